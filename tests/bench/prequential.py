"""A stream through the whole loop in this process, batch by batch, label after label.

Every row is answered by the model that is in service when it comes, and only then
may anything learn from it. What decides is driftloop's own: the monitor's handlers,
the trainer's policy, the training itself, the registry's gate. What is left out is
Kafka and the time that things take; a new version answers after as many rows as its
rollout needs, and only if it was not worse on them than the pipeline file allows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchScored,
    BatchValidated,
    DatasetRef,
    DriftDetected,
    ModelDeployed,
    PackageRef,
    ServedModel,
    Span,
    TableRef,
)
from driftloop.models.formats import MODEL_FILE
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.models.package import write_package
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.monitor.turn import Packaged
from driftloop.registry.gate import PackageFinding, judge
from driftloop.runtime.artifacts import FolderStore
from driftloop.scorer.core import Answers, finite_answers, scored_rows
from driftloop.trainer import core, judging, package_files, training
from driftloop.trainer.facts import Data, LastJob, SkipWith, Start, State
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Environment, Trained, TrainingRefused

from tests.bench.examples import Example, Floats, losses_of
from tests.unit.monitor.story import InProcess

REFERENCE_FILE = "reference.arrow"


@dataclass
class Cost:
    """What an answer to the stream took."""

    trainings: int = 0
    versions: int = 0
    cpu_s: float = 0.0


@dataclass
class Walked:
    """What became of a stream.

    Attributes
    ----------
    losses : (n_rows,) of the rows from the first answer on.
    first : number of the first row that was answered.
    """

    losses: Floats
    first: int
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Version:
    """A model that may answer."""

    number: int
    model: OnnxModel
    classes: tuple[str, ...]
    package: PackageRef


@dataclass
class Rollout:
    """A version on its way into service, compared with the old one row by row."""

    version: Version
    candidate: list[Floats] = field(default_factory=list)
    champion: list[Floats] = field(default_factory=list)

    @property
    def row_count(self) -> int:
        return sum(map(len, self.candidate))

    @property
    def ratio(self) -> float:
        """Candidate's loss to the champion's."""
        both = self.candidate, self.champion
        means = [float(np.mean(np.concatenate(found))) for found in both]
        return means[0] / max(means[1], np.finfo(float).tiny)


class Loop:
    """The loop over one example's rows; :meth:`walk` is called once."""

    def __init__(self, example: Example, folder: Path, batch_rows: int) -> None:
        self._spec, self._rows = example.spec, example.rows
        self._batch_rows = batch_rows
        self._signer = generate_key(folder / "key", folder / "key.pub")
        trusted = TrustedKeys.from_pems([self._signer.public_pem])
        self._store = FolderStore(folder / "artifacts")
        self._using = Environment(self._store, trusted, None, 1, folder)
        self._folder, self._table = folder, folder / "rows"
        write_deltalake(str(self._table), self._rows)
        self._dataset = DatasetRef(
            observations=TableRef(uri=str(self._table), version=0)
        )
        self._packaged: dict[str, Packaged] = {}
        self._monitor = InProcess(self._spec, lambda ref: self._packaged[ref.digest])
        self._state = State()
        self._numbers, self._event_numbers = count(1), count(1)
        self._champion: Version | None = None
        self._rollout: Rollout | None = None
        self.cost = Cost()

    def walk(self) -> Walked:
        """Send all rows through."""
        found: list[Floats] = []
        first = 0
        for start in range(0, self._rows.num_rows, self._batch_rows):
            batch = self._rows.slice(start, self._batch_rows)
            if self._champion is None:
                first = start + batch.num_rows
            else:
                found.append(self._answered(batch))
            verdicts = self._observed(batch)
            self._learn(self._rows.slice(0, start + batch.num_rows), verdicts)
        self._monitor.close()
        return Walked(np.concatenate(found), first, self.cost)

    # ── answering ───────────────────────────────────────────────────────────

    def _answered(self, batch: pa.Table) -> Floats:
        """Return the losses of the model in service; move a rollout on."""
        assert self._champion is not None
        answers, mine = self._said(self._champion, batch)
        rollout, candidate, other = self._rollout, None, None
        if rollout is not None:
            other, its = self._said(rollout.version, batch)
            candidate = rollout.version.number
            rollout.candidate.append(its)
            rollout.champion.append(mine)
        scored = BatchScored(
            **self._base(batch),
            duration_seconds=0.0,
            champion_version=self._champion.number,
            candidate_version=candidate,
        )
        rows = scored_rows(_only_batch(batch), answers, other, candidate or 0)
        self._take(scored.with_rows(rows))
        if rollout is not None:
            self._move_on(rollout)
        return mine

    def _said(self, version: Version, batch: pa.Table) -> tuple[Answers, Floats]:
        said = version.model.predict(batch)
        found = judging.row_losses(self._spec, batch, said, version.classes)
        answers = finite_answers(said.prediction, said.score, version.classes, 0.0)
        return answers, found

    def _move_on(self, rollout: Rollout) -> None:
        """Serve a version that has been compared long enough, or drop it."""
        how = self._spec.rollout
        wanted = how.shadow_rows + how.step_rows * len(how.steps)
        if rollout.row_count >= wanted:
            self._rollout = None
            if rollout.ratio <= how.max_loss_ratio:
                self._serve(rollout.version)

    def _serve(self, version: Version) -> None:
        self._champion = version
        self.cost.versions += 1
        self._state = replace(self._state, champion_version=version.number)
        self._take(
            ModelDeployed(
                pipeline=self._spec.name,
                rollout_id=f"r{version.number}",
                version=version.number,
                package=version.package,
            )
        )

    # ── watching ────────────────────────────────────────────────────────────

    def _observed(self, batch: pa.Table) -> list[DriftDetected]:
        """Return what the monitor concludes from a batch with its labels."""
        base = self._base(batch)
        event = BatchValidated(**base, watermark=base["span"].start)
        told = self._take(event.with_rows(_only_batch(batch)))
        return [event for event in told if isinstance(event, DriftDetected)]

    def _take(self, event: Event) -> list[Event]:
        return self._monitor.take(event)

    def _base(self, batch: pa.Table) -> dict[str, object]:
        times = batch["event_time"]
        return {
            "pipeline": self._spec.name, "shard": "bench", "kind": "observations",
            "row_count": batch.num_rows,
            "span": Span(start=times[0].as_py(), end=times[-1].as_py()),
        }  # fmt: skip

    # ── learning ────────────────────────────────────────────────────────────

    def _learn(self, known: pa.Table, verdicts: list[DriftDetected]) -> None:
        times = known["event_time"]
        labelled = Span(start=times[0].as_py(), end=times[-1].as_py())
        data = Data(self._dataset, known.num_rows, known.num_rows, labelled)
        self._state = replace(self._state, data=data)
        for verdict in verdicts:
            name = f"drift-{next(self._event_numbers)}"
            self._decide(core.after_drift(verdict, name, self._state, self._spec))
        name = f"data-{next(self._event_numbers)}"
        self._decide(core.after_data(name, self._state, self._spec))

    def _decide(self, decided: Start | SkipWith | None) -> None:
        if isinstance(decided, SkipWith):
            self._state = replace(self._state, pending=decided.keep)
        elif decided is not None:
            self._state = replace(self._state, pending=None)
            self._train(decided)

    def _train(self, start: Start) -> None:
        number = next(self._numbers)
        champion = self._champion
        request = JobRequest(
            job_id=f"job-{number}", trigger=start.trigger, spec=self._spec,
            dataset=self._dataset, train_span=start.train_span,
            holdout_span=start.holdout_span,
            champion=champion and ServedModel(
                version=champion.number, package=champion.package
            ),
        )  # fmt: skip
        folder = self._folder / request.job_id
        folder.mkdir()
        self.cost.trainings += 1
        began, trained = time.process_time(), None
        try:
            using = replace(self._using, folder=folder)
            trained = training.train(request, using, lambda *_: None)
        except TrainingRefused:
            pass  # as a failed job: the model in service stays
        self.cost.cpu_s += time.process_time() - began
        data = self._state.data
        assert data is not None
        self._state = replace(
            self._state,
            last_job=LastJob(
                request.job_id, is_running=False, has_failed=trained is None,
                data_end=start.holdout_span.end, label_count=data.label_count,
                champion_version=champion.number if champion else None,
            ),
        )  # fmt: skip
        if trained is not None:
            self._register(number, trained)

    def _register(self, number: int, trained: Trained) -> None:
        checks = judge(trained.evaluation, self._spec.gate, PackageFinding())
        if not all(check.passed or check.severity == "warn" for check in checks):
            return
        reference = package_files.reference(trained)
        files = {MODEL_FILE: trained.chosen.model, REFERENCE_FILE: reference}
        files |= trained.state
        manifest = package_files.manifest_of(trained)
        package = write_package(manifest, files, self._signer, self._store)
        sample = pa.ipc.open_stream(reference).read_all()
        self._packaged[package.digest] = Packaged(trained.evaluation, sample)
        version = Version(
            number, trained.chosen.loaded(), trained.chosen.classes, package
        )
        if self._champion is None:
            self._serve(version)
        else:
            self._rollout = Rollout(version)


def _only_batch(rows: pa.Table) -> pa.RecordBatch:
    (batch,) = rows.combine_chunks().to_batches()
    return batch


def batches(rows: pa.Table, first: int, size: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number of its first row, rows) of what comes from ``first`` on."""
    for start in range(first, rows.num_rows, size):
        yield start, rows.slice(start, size)


def retrained(
    example: Example, first: int, size: int, every: int | None, make: Callable[[], Any]
) -> Walked:
    """Walk with one kind of model that is fitted anew after every so many rows.

    On the pipeline's window up to the newest label, in service at once, whether it is
    better or not; None: never after the first.

    Parameters
    ----------
    make : gives a scikit-learn model.
    """
    found: list[Floats] = []
    cost = Cost()
    step = every or example.rows.num_rows
    for start, asked in batches(example.rows, first, step):
        known = _window(example, start)
        began = time.process_time()
        found.append(
            losses_of(lambda x, y: make().fit(x, y), example.spec, known, asked)
        )
        cost.cpu_s += time.process_time() - began
        cost.trainings += 1
    cost.versions = cost.trainings
    return Walked(np.concatenate(found), first, cost)


def _window(example: Example, count: int) -> pa.Table:
    """Return the rows of the pipeline's window among the first ``count``."""
    known = example.rows.slice(0, count)
    times = known["event_time"]
    labelled = Span(start=times[0].as_py(), end=times[-1].as_py())
    begin, _ = core.plan(labelled, example.spec.train)
    start = pa.scalar(begin.start, times.type)
    return known.filter(pc.greater_equal(times, start))


def adaptive_forest(example: Example, first: int, size: int) -> Walked:
    """Walk with river's adaptive random forest, which learns each row's label.

    With river's own defaults, a batch's labels after the whole batch was answered, as
    everybody gets them; rows before ``first`` are learned from first.
    """
    from river import forest

    spec, cost = example.spec, Cost()
    names = list(spec.data.features)
    is_number = spec.task == "regression"
    kind = forest.ARFRegressor if is_number else forest.ARFClassifier
    model = kind(seed=spec.train.seed)
    rows = example.rows.select([*names, spec.data.target]).to_pylist()
    pairs = [({n: r[n] for n in names}, r[spec.data.target]) for r in rows]
    began = time.process_time()
    for x, y in pairs[:first]:
        model.learn_one(x, y)
    found = []
    classes = tuple(str(c) for c in spec.data.classes or ())
    for start, batch in batches(example.rows, first, size):
        asked = pairs[start : start + batch.num_rows]
        if is_number:
            said = Predictions(np.array([model.predict_one(x) for x, _ in asked]))
        else:
            shares = [model.predict_proba_one(x) for x, _ in asked]
            score = np.array([[s.get(c, 0.0) for c in classes] for s in shares])
            score = score if len(classes) > 2 else score[:, 1]
            said = Predictions(np.array([""] * batch.num_rows), score)
        found.append(judging.row_losses(spec, batch, said, classes))
        for x, y in asked:
            model.learn_one(x, y)
    cost.cpu_s = time.process_time() - began
    return Walked(np.concatenate(found), first, cost)
