"""An exported folder as a process: what it checks, answers, refuses and needs."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from driftloop.cli.context import CommandError
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import (
    InputColumn,
    OutputColumn,
    read_package,
    write_package,
)
from driftloop.models.samples import samples_json
from driftloop.models.signing import TrustedKeys
from driftloop.scorer.shelf import Loaded, Pace
from driftloop.trainer import fitting
from driftloop.trainer.fitting import Fitted

from tests.unit.edge.exported import VERSION, Runner, environment, export, run
from tests.unit.scorer.door import Door
from tests.unit.scorer.packages import NAME, NAN_ABOVE_100, Factory, manifest
from tests.unit.trainer.cases import rows as case_rows
from tests.unit.trainer.cases import spec as case_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONLY = """
import sys
class Guard:
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "driftloop_edge"}
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame and frame.f_globals.get("__name__", "").startswith("importlib"):
            frame = frame.f_back
        while frame and "_bootstrap" in frame.f_code.co_filename:
            frame = frame.f_back
        asked_by = frame.f_globals.get("__name__", "") if frame else ""
        if asked_by == "__main__" or asked_by.startswith("driftloop_edge"):
            print("asked", name, file=sys.stderr)
            if name.split(".")[0] not in self.allowed:
                raise ImportError(f"{asked_by} may not import {name}")
        if name.split(".")[0] == "driftloop":
            raise ImportError("there is no driftloop here")
sys.meta_path.insert(0, Guard())
sys.argv = ["runner.py", *sys.argv[1:]]
sys.path.insert(0, ".")
import runpy
runpy.run_path("runner.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def exported(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that no test changes."""
    folder = tmp_path_factory.mktemp("edge") / "binary"
    return export(factory, folder, factory.package(is_binary=True))


@pytest.fixture
def mine(exported: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "mine"))


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Runner]:
    with Runner(exported, "--max-body-bytes", "20000") as runner:
        yield runner


# ── what it needs, and what it checks ───────────────────────────────────────


def test_it_needs_numpy_and_onnx_runtime_and_nothing_else(exported: Path) -> None:
    """Every import by its own modules is seen; one of anything else would fail it."""
    done = subprocess.run(
        [sys.executable, "-c", ONLY, "check"],
        cwd=exported, env=environment(), capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = {line.split()[1] for line in done.stderr.splitlines() if "asked " in line}
    assert {"numpy", "onnxruntime", "driftloop_edge.main"} <= asked


def test_another_import_is_found(mine: Path) -> None:
    """The control: a module of driftloop's, and one that is installed here."""
    for module in ("driftloop.models", "fastapi"):
        relist(mine, "driftloop_edge/errors.py", f"import {module}\n")
        done = subprocess.run(
            [sys.executable, "-c", ONLY, "check"],
            cwd=mine, env=environment(), capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip
        assert done.returncode == 1, module
        assert "pip install -r requirements.txt" in done.stderr


def relist(folder: Path, name: str, added: str) -> None:
    """Change a file of an export, and what ``model.json`` says of it."""
    path, list_ = folder / name, folder / "model.json"
    path.write_text(path.read_text() + added)
    listed = json.loads(list_.read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    listed["files"][name] = {"sha256": digest, "size_bytes": path.stat().st_size}
    list_.write_text(json.dumps(listed))


def test_a_flipped_byte_of_any_file_is_refused(mine: Path) -> None:
    code, said = run(mine, "check")
    assert (code, "2 samples answered as expected" in said) == (0, True), said
    names = [p.relative_to(mine).as_posix() for p in sorted(mine.rglob("*.*"))]
    files = [name for name in names if (mine / name).is_file()]
    assert len(files) > 20
    for name in (f for f in files if f not in ("runner.py", "model.json")):
        path = mine / name
        good = path.read_bytes()
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        code, said = run(mine, "check")
        path.write_bytes(good)
        assert code == 1
        assert f"refused, and nothing was loaded: {name} was changed" in said


def test_a_missing_file_and_one_too_many_are_refused(mine: Path) -> None:
    extra = mine / "driftloop_edge" / "more.py"
    extra.write_text("")
    assert "driftloop_edge/more.py is not part of the export" in run(mine, "check")[1]
    extra.unlink()
    (mine / "samples.json").rename(mine / "samples.bak")
    assert "samples.json cannot be read" in run(mine, "check")[1]


def test_a_file_beside_it_stands_in_for_no_module(mine: Path) -> None:
    """Neither for one of the standard library, nor for what is installed."""
    for name in ("json.py", "hashlib.py", "numpy.py", "onnxruntime.py"):
        (mine / name).write_text("raise SystemExit('taken for a module')")
    code, said = run(mine, "check")
    assert code == 0, said


def test_the_digest_of_all_and_the_signer_may_be_named(
    mine: Path, factory: Factory
) -> None:
    digest = hashlib.sha256((mine / "model.json").read_bytes()).hexdigest()
    signer = factory.signer.key_id
    assert run(mine, "check", "--signer", signer, DIGEST=digest)[0] == 0
    code, said = run(mine, "check", "--signer", "0" * 16)
    assert code == 1
    assert f"signed by key {signer}; only {'0' * 16} is believed" in said
    relist(mine, "README.md", "more")  # who can change a file can change the list too
    code, said = run(mine, "check", DIGEST=digest)
    assert code == 1
    assert f"DRIFTLOOP_EDGE_DIGEST says {digest}" in said
    assert run(mine, "check")[0] == 0  # the control: without it nobody can tell


@pytest.mark.parametrize("part", ["inputs", "classes", "pipeline"])
def test_what_was_signed_counts(mine: Path, part: str) -> None:
    """The list may be written anew by anybody; the manifest may not."""
    list_ = mine / "model.json"
    listed = json.loads(list_.read_text())
    listed[part] = "other" if part == "pipeline" else listed[part][:1]
    list_.write_text(json.dumps(listed))
    assert f"'{part}' is not what was signed" in run(mine, "check")[1]
    relist(mine, "manifest.json", " ")
    assert "does not fit manifest.json" in run(mine, "check")[1]


def test_another_model_with_its_digest_is_refused(mine: Path) -> None:
    """Who writes its digest into the list has no signature for it."""
    with (mine / "model.onnx").open("ab") as file:
        file.write(b"\0")
    list_ = mine / "model.json"
    listed = json.loads(list_.read_text())
    data = (mine / "model.onnx").read_bytes()
    listed["files"]["model.onnx"]["sha256"] = hashlib.sha256(data).hexdigest()
    list_.write_text(json.dumps(listed))
    said = run(mine, "check")[1]
    assert "model.onnx is not what was signed in manifest.json" in said


def test_a_model_that_answers_otherwise_is_not_exported(
    factory: Factory, tmp_path: Path
) -> None:
    ref = factory.package(samples={"prediction": [11.0, 3.0]})
    words = "cannot run this version.*sample 1: prediction is 2.0, expected 3.0"
    with pytest.raises(CommandError, match=f"(?s){words}"):
        export(factory, tmp_path / "none", ref)
    assert list(tmp_path.iterdir()) == []


# ── what it answers ─────────────────────────────────────────────────────────


def test_each_protocol_is_answered(served: Runner) -> None:
    rows = {"columns": ["size", "colour"], "data": [[1.0, "red"], [2.0, "blue"]]}
    split = served.client.post("/invocations", json={"dataframe_split": rows})
    assert split.json() == {"predictions": ["yes", "yes"]}
    assert split.headers["x-driftloop-model-version"] == str(VERSION)
    records = [{"size": -100.0, "colour": "blue"}]
    asked = served.client.post(
        f"/pipelines/{NAME}/invocations",
        json={"dataframe_records": records},
        headers={"x-request-id": "order-42"},
    )
    assert asked.json() == {"predictions": ["no"]}
    assert asked.headers["x-request-id"] == "order-42"
    text = served.client.post(
        "/invocations",
        content="size,colour\n1,red\n",
        headers={"content-type": "text/csv; charset=utf-8"},
    )
    assert text.json() == {"predictions": ["yes"]}
    answer = served.client.post(
        f"/v2/models/{NAME}/versions/{VERSION}/infer",
        json={
            "id": "order-43",
            "inputs": [
                {"name": "size", "shape": [1], "datatype": "FP64", "data": [0.0]},
                {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["x"]},
            ],
            "outputs": [{"name": "score"}],
        },
    ).json()
    assert answer["id"] == "order-43"
    assert answer["model_version"] == str(VERSION)
    assert answer["outputs"] == [
        {"name": "score", "datatype": "FP64", "shape": [1, 1], "data": [0.5]}
    ]


def test_it_says_what_it_is(served: Runner) -> None:
    get = served.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert get("/ping").status_code == 200
    told = get(f"/v2/models/{NAME}").json()
    assert [one["name"] for one in told["inputs"]] == ["size", "colour"]
    assert get(f"/v2/models/{NAME}/ready").json() == {"name": NAME, "ready": True}
    page = get("/metrics").text
    assert f'driftloop_model_serving_info{{pipeline="{NAME}",version="3"}} 1' in page
    assert 'driftloop_edge_requests_total{pipeline="bike-demand",status="200"}' in page


JSON = {"content-type": "application/json"}
BAD: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/invocations", {"json": {"instances": [["x", "red"]]}}, 400, "size: row"),
    ("POST", "/invocations", {"json": {"inputs": {"size": [1]}}}, 400, "missing: col"),
    ("POST", "/invocations", {"content": b"{", "headers": JSON}, 400, "is not JSON"),
    ("POST", "/invocations", {"content": b"x"}, 415, "send application/json or"),
    ("POST", "/invocations", {"content": b"x" * 20_001}, 413, "at most 20000 bytes"),
    ("POST", "/invocations", {"content": iter([b"x"])}, 411, "Content-Length"),
    (
        "POST",
        "/invocations?explain=true",
        {"json": {"instances": [[1, "red"]]}},
        400,
        "no explanations at the edge",
    ),
    ("POST", "/pipelines/other/invocations", {"json": {}}, 404, "no model is served"),
    ("POST", "/v2/models/other/infer", {"json": {}}, 404, "no model is served for"),
    ("GET", f"/v2/models/{NAME}/versions/9", {}, 404, "version '9' of"),
    ("GET", "/nothing", {}, 404, "there is no '/nothing'"),
    ("GET", "/invocations", {}, 405, "takes POST"),
    ("POST", f"/v2/models/{NAME}/infer", {"json": {}}, 400, "expected 'inputs'"),
    ("GET", "/ping", {"headers": {"host": "elsewhere.example"}}, 403, "not this mach"),
    (
        "POST",
        "/invocations",
        {"json": {"instances": []}, "headers": {"content-encoding": "gzip"}},
        415,
        "not compressed",
    ),
]


@pytest.mark.parametrize(("method", "path", "fields", "status", "words"), BAD)
def test_what_is_not_right_is_told(
    served: Runner, method: str, path: str, fields: Any, status: int, words: str
) -> None:
    """In the form of the protocol; the connection goes on, or is closed."""
    answer = served.client.request(method, path, **fields)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert words in (body["error"] if path.startswith("/v2") else body["message"])
    assert served.client.get("/ping").status_code == 200


def test_two_requests_in_one_stay_two(served: Runner) -> None:
    """A body that was not read is not taken for the next request."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = served.client.post("/nothing", content=hidden)
    assert answer.status_code == 404
    assert answer.headers["connection"] == "close"


def test_a_token_is_asked_for_where_there_is_one(
    exported: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    code, said = run(exported, "serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - refused
    assert code == 1
    assert "lets other machines ask: give --answer-token-file" in said
    with Runner(exported, ANSWER_TOKEN_FILE=file) as runner:
        body = {"instances": [[1, "red"]]}
        assert runner.client.post("/invocations", json=body).status_code == 401
        assert runner.client.get("/metrics").status_code == 401
        secret = runner.client.get("/v2/models/other")
        assert (secret.status_code, NAME in secret.text) == (401, False)
        assert runner.client.get("/v2/health/ready").status_code == 200
        good = {"authorization": "Bearer a-token"}
        answer = runner.client.post("/invocations", json=body, headers=good)
        assert answer.status_code == 200


def test_a_request_in_work_is_answered_before_it_stops(exported: Path) -> None:
    with Runner(exported) as runner:
        assert runner.client.get("/ping").status_code == 200
        assert runner.stop() == 0


def test_rows_without_a_finite_answer(factory: Factory, tmp_path: Path) -> None:
    """A request fails; of a file, the row alone."""
    folder = export(factory, tmp_path / "nan", factory.package(extra=NAN_ABOVE_100))
    with Runner(folder) as runner:
        body = {"dataframe_records": [{"size": 200, "colour": "x"}]}
        answer = runner.client.post("/invocations", json=body)
        assert answer.status_code == 500
        assert answer.json()["message"] == "no finite answer for 1 of 1 rows"
    (tmp_path / "in.csv").write_text("id,size,colour\na,1,red\nb,200,red\nc,2,x\n")
    code, said = run(folder, "score", "../in.csv", "../out.csv")
    assert code == 0, said
    assert "3 rows, 1 without a finite answer; wrote" in said
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == [
        "id,size,colour,prediction", "a,1,red,11.0", "b,200,red,", "c,2,x,2.0"
    ]  # fmt: skip


def test_a_file_that_is_not_right_leaves_nothing(
    exported: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = "".join(f"{number},red\n" for number in range(1500))
    source.write_text(f"size,colour\n{rows}many,red\n")
    code, said = run(exported, "score", str(source), str(target))
    assert code == 1
    assert "refused: size: row 1500 is 'many'; expected a number or null" in said
    source.write_text("size,colour,prediction\n1,red,2\n")
    assert (
        "there is a column 'prediction'" in run(exported, "score", str(source), "o")[1]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


# ── the answers are the scorer's ────────────────────────────────────────────

HAS_TORCH = find_spec("torch") is not None
CANDIDATES = [
    ("linear", "regression"),
    ("gradient_boosting", "multiclass"),
    ("gradient_boosting", "binary"),
    pytest.param(
        "mlp",
        "binary",
        marks=[
            pytest.mark.torch,
            pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed"),
        ],
    ),
]


@pytest.mark.parametrize(("candidate", "task"), CANDIDATES)
def test_answers_are_those_of_the_scorer(
    factory: Factory, tmp_path: Path, candidate: str, task: str
) -> None:
    """Same rows, same numbers, by request and by file; as JSON writes them."""
    table = case_rows(300, task=task)
    fitted = fitting.fit(candidate, table, case_spec(task=task), 1)
    loaded, folder = packed(factory, tmp_path, fitted, table, task)
    asked = [
        {column.name: row[column.name] for column in loaded.manifest.inputs}
        for row in json.loads(json.dumps(table.slice(0, 50).to_pylist(), default=str))
    ]
    body = {"dataframe_records": asked}
    home = Door(loaded).client.post(f"/pipelines/{NAME}/invocations", json=body)
    with Runner(folder) as runner:
        ours = runner.client.post("/invocations", json=body)
        assert_same(ours, home)
        assert ours.headers.get("x-driftloop-unfamiliar") == home.headers.get(
            "x-driftloop-unfamiliar"
        )
        tensors = {"inputs": tensors_of(asked, loaded.manifest.inputs)}
        ours = runner.client.post(f"/v2/models/{NAME}/infer", json=tensors)
        theirs = Door(loaded).client.post(f"/v2/models/{NAME}/infer", json=tensors)
        assert theirs.status_code == 200, theirs.text
        assert ours.json()["outputs"] == theirs.json()["outputs"]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, asked[0])
        writer.writeheader()
        writer.writerows(asked)
    code, said = run(folder, "score", "../in.csv", "../out.csv")
    assert code == 0, said
    with (tmp_path / "out.csv").open() as file:
        said_ = [row["prediction"] for row in csv.DictReader(file)]
    assert said_ == [str(one) for one in home.json()["predictions"]]


def assert_same(ours: httpx.Response, home: httpx.Response) -> None:
    assert home.status_code == 200, home.text
    assert ours.status_code == 200, ours.text
    assert len(set(map(str, home.json()["predictions"]))) > 1  # says something
    assert ours.json() == home.json()


def tensors_of(rows: list[dict[str, Any]], inputs: list[InputColumn]) -> list[Any]:
    kinds = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
    return [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": kinds.get(column.type, "BYTES"),
            "data": [row[column.name] for row in rows],
        }
        for column in inputs
    ]


def packed(
    factory: Factory, tmp_path: Path, fitted: Fitted, table: pa.Table, task: str
) -> tuple[Loaded, Path]:
    """Return a fitted candidate in the scorer's memory, and exported."""
    onnx, inputs = fitted.model, list(fitted.inputs)
    rows = table.slice(100, 5).combine_chunks().to_batches()[0]
    said = OnnxModel(onnx, inputs).predict(rows)
    classes = list(fitted.classes)
    outputs = [
        OutputColumn(
            name="prediction", type="category" if classes else "number", description=""
        ),
        *(
            [OutputColumn(name="score", type="number", description="")]
            if classes
            else []
        ),
    ]
    about = manifest(NAME, inputs, is_binary=False).model_copy(
        update={"task": task, "classes": classes, "outputs": outputs}
    )
    files = {"model.onnx": onnx, "samples.json": samples_json(rows, inputs, said)}
    ref = write_package(about, files, factory.signer, factory.store)
    trusted = TrustedKeys.from_folder(factory.home / "keys" / "trusted")
    package = read_package(ref, factory.store, trusted)
    model, pace = OnnxModel.from_package(package), Pace(1e-5, 1e-5)
    loaded = Loaded(VERSION, ref, package.manifest, model, pace)
    return loaded, export(factory, tmp_path / "edge", ref)
