"""The real training, each one made once for all policies.

What a training gives follows from its rows and its settings alone; a training that
another policy has made of the same is taken from the shelf. What depends on the
champion, the comparison on the hold-out, is made for each; where the model itself
depends on it (going on from its state, a fair hold-out of a model that was refitted,
slices that the gate compares), so does the training's place on the shelf.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake
from driftloop.backtest.stream import Ints, Stream
from driftloop.contracts.events import (
    DatasetRef,
    Evaluation,
    PackageRef,
    TableRef,
)
from driftloop.models.formats import MODEL_FILE
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import Package, read_package, write_package
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.monitor.turn import Packaged
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.trainer import fingerprint, judging, losses, package_files, training
from driftloop.trainer.dataset import without_faults
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Environment, TrainingRefused

REFERENCE_FILE = "reference.arrow"
THREADS = 1
DEPENDS_ON_CHAMPION = "champion"
TRAINING_PARTS: Any = {
    "name": True, "task": True, "data": True, "train": True,
    "gate": {"slices": True, "fairness": {"columns"}, "reproducible": True},
}  # fmt: skip
"""Of the pipeline file: what a training, or what it measures, can depend on."""


@dataclass(frozen=True)
class Learned:
    """A model that a training gave.

    Attributes
    ----------
    cpu_seconds : that the training took, whoever made it.
    """

    package: PackageRef
    evaluation: Evaluation
    cpu_seconds: float
    opened: Package = field(repr=False, compare=False)

    @cached_property
    def model(self) -> OnnxModel:
        return OnnxModel.from_package(self.opened, threads=THREADS)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.opened.manifest.classes)

    @property
    def packaged(self) -> Packaged:
        """What the monitor wants of it."""
        sample = pa.ipc.open_stream(self.opened.files[REFERENCE_FILE]).read_all()
        return Packaged(self.evaluation, sample, None, self.classes)


@dataclass(frozen=True)
class Refused:
    """A training that gave no model, and why."""

    why: str
    cpu_seconds: float


class Shelf:
    """Trainings by what they were made of; several processes share its folder.

    Parameters
    ----------
    allowed_imports : modules that a pipeline's own candidates may come from.
    """

    def __init__(
        self,
        stream: Stream,
        folder: Path,
        store: ArtifactStore,
        signer: Signer,
        allowed_imports: tuple[str, ...] = (),
    ) -> None:
        self._stream, self._folder = stream, folder
        self._store, self._signer = store, signer
        self._allowed_imports = allowed_imports
        self._trusted = TrustedKeys.from_pems([signer.public_pem])

    def train(self, request: JobRequest, known: Ints) -> Learned | Refused:
        """Return what a training gives.

        Parameters
        ----------
        known : (n_rows,) numbers of the rows whose label is known by now.
        """
        rows = _within(self._stream.taken(known), request)
        rows, _ = without_faults(rows, request.left_out)
        request = request.model_copy(update={"left_out": ()})
        key = _key(request, rows)
        path = self._folder / f"{key}.json"
        with _alone(path.with_suffix(".lock")):
            if not path.exists():
                found = self._made(request, rows)
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(found))
                partial.replace(path)
        found = json.loads(path.read_text())
        if "refused" in found:
            return Refused(found["refused"], found["cpu_seconds"])
        package = PackageRef.model_validate(found["package"])
        opened = read_package(package, self._store, self._trusted)
        learned = Learned(
            package, opened.manifest.evaluation, found["cpu_seconds"], opened
        )
        if request.champion is None or found[DEPENDS_ON_CHAMPION]:
            return learned
        return replace(learned, evaluation=self._compared(learned, request, rows))

    def open(self, package: PackageRef) -> Package:
        return read_package(package, self._store, self._trusted)

    def _made(self, request: JobRequest, rows: pa.Table) -> dict[str, object]:
        """Train, store the package, and return what the shelf remembers."""
        depends = _depends_on_champion(request)
        if not depends:
            request = request.model_copy(update={"champion": None})
        with TemporaryDirectory(dir=self._folder) as place:
            write_deltalake(f"{place}/rows", rows)
            table = TableRef(uri=f"{place}/rows", version=0)
            request = request.model_copy(
                update={"dataset": DatasetRef(observations=table)}
            )
            folder = Path(place) / "work"
            folder.mkdir()
            using = Environment(
                self._store, self._trusted, None, THREADS, folder,
                self._allowed_imports,
            )  # fmt: skip
            began = time.process_time()
            try:
                trained = training.train(request, using, lambda *_: None)
            except TrainingRefused as error:
                return {
                    "refused": str(error),
                    "cpu_seconds": round(time.process_time() - began, 3),
                }
        reference = package_files.reference(trained)
        files = {MODEL_FILE: trained.chosen.model, REFERENCE_FILE: reference}
        manifest = package_files.manifest_of(trained)
        package = write_package(
            manifest, files | dict(trained.state), self._signer, self._store
        )
        return {
            "package": package.model_dump(mode="json"),
            "cpu_seconds": round(time.process_time() - began, 3),
            DEPENDS_ON_CHAMPION: depends,
        }

    def _compared(
        self, learned: Learned, request: JobRequest, rows: pa.Table
    ) -> Evaluation:
        """Return the evaluation with the champion's losses on the same hold-out."""
        champion = request.champion
        if champion is None:
            return learned.evaluation
        spec, said = request.spec, learned.evaluation
        cut = pa.scalar(request.train_span.end, pa.timestamp("us", tz="UTC"))
        holdout = rows.filter(pc.greater(rows["event_time"], cut))
        other = self.open(champion.package)
        mine, its = (
            judging.row_losses(
                spec, holdout, model.predict(holdout), tuple(manifest.classes)
            )
            for model, manifest in (
                (learned.model, learned.opened.manifest),
                (OnnxModel.from_package(other), other.manifest),
            )
        )
        return said.model_copy(
            update={
                "champion": losses.metric_value(said.metric, its),
                "champion_version": champion.version,
                "comparison": losses.paired_comparison(mine, its),
            }
        )


def _within(rows: pa.Table, request: JobRequest) -> pa.Table:
    """Return the rows of the training window and its hold-out, as stored ones."""
    kind = pa.timestamp("us", tz="UTC")
    start = pa.scalar(request.train_span.start, kind)
    end = pa.scalar(request.holdout_span.end, kind)
    times = rows["event_time"]
    return rows.filter(
        pc.and_(pc.greater_equal(times, start), pc.less_equal(times, end))
    )


def _depends_on_champion(request: JobRequest) -> bool:
    spec = request.spec
    return request.champion is not None and (
        spec.train.continue_from_champion or spec.train.refit or bool(spec.gate.slices)
    )


def _key(request: JobRequest, rows: pa.Table) -> str:
    """Return a name for all that a training depends on."""
    champion = request.champion if _depends_on_champion(request) else None
    said = {
        "rows": fingerprint.digest_of(rows),
        "spec": request.spec.model_dump(mode="json", include=TRAINING_PARTS),
        "spans": [
            request.train_span.model_dump(mode="json"),
            request.holdout_span.model_dump(mode="json"),
        ],
        "since": request.trigger.since and request.trigger.since.isoformat(),
        "champion": champion and champion.package.digest,
    }
    # Which stretch since the drift is tried only where the file names it.
    if "since_drift" not in request.spec.train.windows:
        said.pop("since")
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with its holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
