"""One model behind several servers: ours, four others, and the bare runtime.

The same rows, the same kind of model with the same parameters, the same clients, one
server after the other. Ours is the real service on a real broker, with all that it does
for an answer: token, check of each value, request id, log to Kafka, figures.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import PipelineApplied, ServedModel, ServingDesired
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import free_port
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import PackageRef, read_package, write_package
from driftloop.models.samples import SAMPLES_FILE, samples_json
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.admin import create_topics
from driftloop.scorer.core import scored_rows
from driftloop.scorer.shelf import Loaded, Pace
from driftloop.trainer import fitting
from sklearn.datasets import load_breast_cancer

from tests.bench.figures import Figure
from tests.bench.http_load import Load, RefusedError, answer_to, load, tree_of, wire
from tests.component.mlflow_answers import ANSWERS
from tests.component.mlflow_client import QUIET
from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.scorer.packages import Factory, manifest
from tests.unit.support import wait_until

PART = "scoring"
ROOT = Path(__file__).parents[2]
CLIENTS = 16
SECONDS = 4.0
WARM_SECONDS = 1.0
SIZES = (1, 100)
START_TIMEOUT_S = 180
STREAM_ROWS, STREAM_CALLS = 5_000, 20
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "forest": ("random_forest", {"n_estimators": 50, "max_depth": 8}),
}
"""By short name, the candidate that is fitted and the parameters that differ."""
NAMES = [f"f{number}" for number in range(30)]

Body = Callable[[np.ndarray], dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes
    ----------
    packages : to be installed for it; empty: it runs in the project's own environment.
    path, body : of a request to it; rows are (n_rows, 30).
    ours : the path and body of the request to ours beside it.
    """

    name: str
    kind: str
    packages: Sequence[str]
    path: str
    body: Body
    ours: tuple[str, Body]


def _plain(rows: np.ndarray) -> dict[str, Any]:
    return {"rows": rows.tolist()}


def _split(rows: np.ndarray) -> dict[str, Any]:
    return {"dataframe_split": {"columns": NAMES, "data": rows.tolist()}}


def _tensor(rows: np.ndarray) -> dict[str, Any]:
    tensor = {"name": "predict", "shape": [*rows.shape], "datatype": "FP64"}
    return {"inputs": [tensor | {"data": rows.ravel().tolist()}]}


def _tensors(rows: np.ndarray) -> dict[str, Any]:
    shape = [len(rows), 1]
    return {
        "inputs": [
            {"name": name, "shape": shape, "datatype": "FP64", "data": values.tolist()}
            for name, values in zip(NAMES, rows.T, strict=True)
        ]
    }


OURS_AS_MLFLOW = ("/pipelines/{model}/invocations", _split)
OURS_AS_PROTOCOL = ("/v2/models/{model}/infer", _tensor)
MLFLOW = f"mlflow=={ANSWERS.stem.removeprefix('mlflow-')}"
PEERS = (
    Peer(
        "mlflow models serve", "mlflow", [MLFLOW, "scikit-learn"],
        "/invocations", _split, OURS_AS_MLFLOW,
    ),
    Peer(
        "MLServer", "mlserver", ["mlserver==1.7.1", "mlserver-sklearn==1.7.1"],
        "/v2/models/peer/infer", _tensor, OURS_AS_PROTOCOL,
    ),
    Peer(
        "BentoML", "bentoml", ["bentoml==1.4.40", "scikit-learn"],
        "/predict", _plain, OURS_AS_PROTOCOL,
    ),
    Peer("FastAPI handler", "fastapi", [], "/predict", _plain, OURS_AS_PROTOCOL),
    Peer("bare ONNX Runtime", "onnx", [], "/predict", _plain, OURS_AS_PROTOCOL),
)  # fmt: skip


def run() -> Iterator[Figure]:
    """Measure the part."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="driftloop-"))
        home = Path(name)
        node = stack.enter_context(KafkaNode(home / "kafka", fast_start=False))
        create_topics(node.bootstrap)
        factory = Factory(home)
        made = {model: _made(model, factory) for model in MODELS}
        _write_for_peers(made, home)
        scorer = stack.enter_context(ServiceProcess("scorer", home, node.bootstrap))
        _serve(node.bootstrap, home, made)
        rows = load_breast_cancer().data
        for model in MODELS:
            _wait_for(scorer, model, rows)
        for peer in PEERS:
            yield from _beside(peer, home, scorer, rows)
        for model, ref in made.items():
            yield from _streamed(model, ref, factory)


def _wait_for(scorer: ServiceProcess, model: str, rows: np.ndarray) -> None:
    path, body = OURS_AS_PROTOCOL
    url = f"{scorer.url}{path.format(model=model)}"
    asked = wire("POST", url, TOKEN, json.dumps(body(rows[:1])).encode())
    try:
        wait_until(lambda: answer_to(url, asked)[0] == 200, START_TIMEOUT_S)
    except AssertionError as error:
        error.add_note(f"{answer_to(url, asked)}; {scorer.log.read_text()[-3000:]}")
        raise


def _beside(
    peer: Peer, home: Path, scorer: ServiceProcess, rows: np.ndarray
) -> Iterator[Figure]:
    try:
        python = _environment(peer, home)
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace")[-300:]
        raise RuntimeError(f"{peer.name} cannot be installed: {why}") from error
    for model in MODELS:
        with _running(peer, python, model, home) as (url, pid):
            for size in SIZES:
                path, body = peer.ours
                ours = f"{scorer.url}{path.format(model=model)}"
                mine = _load(ours, body, rows, size, scorer.pid, TOKEN)
                theirs = _load(f"{url}{peer.path}", peer.body, rows, size, pid, None)
                yield from _figures(peer, model, size, mine, theirs)


def _figures(
    peer: Peer, model: str, size: int, mine: Load, theirs: Load
) -> Iterator[Figure]:
    name = f"{model}, {size} row{'s' if size > 1 else ''} a request"
    yield Figure(PART, name, "requests/s", mine.per_s, peer.name, theirs.per_s)
    cpu = (mine.cpu_ms, theirs.cpu_ms)
    yield Figure(PART, f"{name}, CPU", "ms", cpu[0], peer.name, cpu[1])
    for share in (50, 99):
        found = [load_.percentile_ms(share) for load_ in (mine, theirs)]
        yield Figure(PART, f"{name}, p{share}", "ms", found[0], peer.name, found[1])


def _load(
    url: str, body: Body, rows: np.ndarray, size: int, pid: int, token: str | None
) -> Load:
    """Ask for other rows each time; the first second does not count."""
    bodies = [
        json.dumps(body(rows[start : start + size])).encode()
        for start in range(0, 400, max(size, 8))
    ]
    requests = [wire("POST", url, token, content) for content in bodies]

    def nth(number: int) -> bytes:
        return requests[number % len(requests)]

    load(url, nth, CLIENTS, WARM_SECONDS, lambda: tree_of(pid))
    return load(url, nth, CLIENTS, SECONDS, lambda: tree_of(pid))


def _environment(peer: Peer, home: Path) -> Path:
    """Return the interpreter that runs a peer, with what it needs installed."""
    if not peer.packages:
        return Path(sys.executable)
    folder = home / f"venv-{peer.kind}"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    install = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet", "--python", python]
    if peer.kind == "mlflow":
        install += ["--constraint", ROOT / "requirements-mlflow.lock"]
    subprocess.run([*install, *peer.packages], check=True, stderr=subprocess.PIPE)
    return python


@contextmanager
def _running(
    peer: Peer, python: Path, model: str, home: Path
) -> Iterator[tuple[str, int]]:
    """Start a peer; the value is its address and process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = Path(__file__).with_name("scoring_servers.py")
    log = home / f"{peer.kind}-{model}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, program, peer.kind, model, str(port), home],
            env=QUIET | {"PATH": f"{python.parent}:/usr/bin:/bin"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    rows = load_breast_cancer().data[:1]
    address = f"{url}{peer.path}"
    asked = wire("POST", address, None, json.dumps(peer.body(rows)).encode())

    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{peer.name} ended: {log.read_text('utf-8')[-2000:]}")
        try:
            status, body = answer_to(address, asked)
        except (OSError, RefusedError):
            return False
        if status >= 400 and status != 404 and status < 500:
            raise RuntimeError(f"{peer.name} refuses: {status} {body!r:.300}")
        return status == 200

    try:
        wait_until(answers, START_TIMEOUT_S)
        yield url, process.pid
    finally:
        for pid in reversed(tree_of(process.pid)):
            subprocess.run(["kill", str(pid)], check=False, capture_output=True)
        process.wait(30)


def _table() -> pa.Table:
    found = load_breast_cancer()
    start = datetime(2024, 1, 1, tzinfo=UTC)
    count = len(found.data)
    return pa.table(
        {
            "id": [str(number) for number in range(count)],
            "event_time": pa.array(
                [start + timedelta(hours=number) for number in range(count)],
                pa.timestamp("us", "UTC"),
            ),
            **{name: found.data[:, number] for number, name in enumerate(NAMES)},
            "y": ["yes" if value else "no" for value in found.target],
        }
    )


def _made(model: str, factory: Factory) -> PackageRef:
    """Fit a model as the trainer does, and write its signed package."""
    candidate, parameters = MODELS[model]
    spec = _spec(model)
    table = _table()
    fitted = fitting.fit(candidate, table, spec, 1, parameters=parameters)
    (factory.home / f"{model}.onnx").write_bytes(fitted.model)
    first = table.slice(0, 10).combine_chunks().to_batches()[0]
    said = fitted.loaded().predict(first)
    return write_package(
        manifest(model, list(fitted.inputs), is_binary=True),
        {
            "model.onnx": fitted.model,
            SAMPLES_FILE: samples_json(first, list(fitted.inputs), said),
        },
        factory.signer,
        factory.store,
    )


def _spec(model: str) -> PipelineSpec:
    features = {name: {"type": "number"} for name in NAMES}
    data = {"target": "y", "classes": ["no", "yes"], "features": features}
    return PipelineSpec.model_validate({"name": model, "task": "binary", "data": data})


def _write_for_peers(made: dict[str, PackageRef], home: Path) -> None:
    found = load_breast_cancer()
    np.savez(home / "rows.npz", matrix=found.data, target=found.target)
    parameters = {"linear": {"max_iter": 1000}, "forest": MODELS["forest"][1]}
    assert parameters.keys() == made.keys()
    (home / "parameters.json").write_text(json.dumps(parameters), "utf-8")


def _serve(bootstrap: str, home: Path, made: dict[str, PackageRef]) -> None:
    log = Log(bootstrap, home)
    events: list[Event] = []
    for model, ref in made.items():
        spec = _spec(model)
        events += [
            PipelineApplied(pipeline=model, spec=spec, applied_by="bench"),
            ServingDesired(
                pipeline=model,
                generation=1,
                champion=ServedModel(version=1, package=ref),
                candidate=None,
                candidate_share=0.0,
            ),
        ]
    log.publish(*(with_id(event, f"scoring-{n}") for n, event in enumerate(events)))
    log.close()


def _streamed(model: str, ref: PackageRef, factory: Factory) -> Iterator[Figure]:
    """Yield rows a second of one core that scores validated batches."""
    trusted = TrustedKeys.from_folder(factory.home / "keys" / "trusted")
    package = read_package(ref, factory.store, trusted)
    loaded = Loaded(
        1, ref, package.manifest, OnnxModel.from_package(package), Pace(1e-6, 1e-6)
    )
    table = _table()
    draw = np.random.default_rng(0).integers(0, table.num_rows, STREAM_ROWS)
    batch = table.take(pa.array(draw)).combine_chunks().to_batches()[0]
    matrix = np.stack([batch.column(n).to_numpy() for n in NAMES], axis=1)
    single = matrix.astype(np.float32)
    feeds = {name: single[:, i : i + 1].copy() for i, name in enumerate(NAMES)}
    ours = _rate(lambda: scored_rows(batch, loaded.answer(batch)))
    bare = _rate(lambda: loaded.predict(feeds, STREAM_ROWS))
    what = f"{model}, batches of {STREAM_ROWS:,} rows, scored and written"
    yield Figure(PART, what, "rows/CPU-s", ours, "bare ONNX Runtime", bare)


def _rate(work: Callable[[], object]) -> float:
    work()
    before = time.process_time()
    for _ in range(STREAM_CALLS):
        work()
    return STREAM_ROWS * STREAM_CALLS / (time.process_time() - before)
