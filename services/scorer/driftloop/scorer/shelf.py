"""The models in memory, and which of them answer for each pipeline."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
from driftloop.contracts.events import PackageRef
from driftloop.contracts.profile import VersionProfile
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.models.package import Manifest
from driftloop.runtime.telemetry import log
from driftloop.scorer.batching import Line
from driftloop.scorer.core import Answers, finite_answers, no_answers
from driftloop.scorer.explaining.explainer import Explainer, Unexplained
from driftloop.scorer.feeds import Feeds
from driftloop.scorer.metrics import SERVING_INFO
from driftloop.scorer.unfamiliar import Familiar

logger = log(__name__)
MOST_JOINT_ROWS = 100
"""A trial's profile has a call of as many."""
NO_EXPLAINER = Unexplained("this version was loaded without rows to compare with")


@dataclass(frozen=True)
class Pace:
    """How long calls of a version take: one part by itself, one for each row.

    Processor time: that a machine was busy while a version was tried makes none slow.
    """

    call_seconds: float
    row_seconds: float

    @classmethod
    def of(cls, profile: VersionProfile) -> "Pace":
        """Return the pace by the medians of a trial, for as many rows as are joined.

        A version whose second number of rows would have taken too long to try is one
        whose rows each cost what the first did.
        """
        tried = [cost for cost in profile.batches if cost.rows <= MOST_JOINT_ROWS]
        one, many = tried[0], tried[-1]
        if one is many:
            return cls(0.0, one.p50_seconds / one.rows)
        row_seconds = max(0.0, many.p50_seconds - one.p50_seconds) / (
            many.rows - one.rows
        )
        return cls(max(0.0, one.p50_seconds - one.rows * row_seconds), row_seconds)

    def seconds(self, rows: int) -> float:
        """Return about how long a call with so many rows takes."""
        return self.call_seconds + rows * self.row_seconds

    def joint_rows(self, longer_seconds: float) -> int:
        """Return how many rows a joint call may have; 1: joining does not pay.

        Two rows together have to take at most three quarters of what two calls take,
        and a call no more than so much longer than one of a single row.

        >>> Pace(0.010, 0.001).joint_rows(0.0055)
        6
        >>> Pace(0.001, 0.002).joint_rows(0.5)
        1
        """
        if self.call_seconds < self.row_seconds or longer_seconds <= 0:
            return 1
        if longer_seconds >= self.row_seconds * MOST_JOINT_ROWS:
            return MOST_JOINT_ROWS
        return 1 + int(longer_seconds / self.row_seconds)


@dataclass(frozen=True)
class Loaded:
    """A verified version that is ready to answer.

    Attributes
    ----------
    pace : by its trial.
    explainer : explains its answers; or why it has none.
    profile : what it cost in its trial on this machine.
    """

    version: int
    package: PackageRef
    manifest: Manifest
    model: OnnxModel
    pace: Pace
    explainer: Explainer | Unexplained = NO_EXPLAINER
    profile: VersionProfile | None = None

    @cached_property
    def line(self) -> Line:
        """Requests that wait for it."""
        return Line()

    @cached_property
    def familiar(self) -> Familiar:
        """What it has learned from."""
        return Familiar(self.manifest.inputs)

    def answer(self, rows: pa.RecordBatch) -> Answers:
        """Predict rows; a model that fails harms nobody, its rows are null."""
        return self._answered(lambda: self.model.predict(rows), rows.num_rows)

    def answer_feeds(self, feeds: Feeds, row_count: int) -> Answers:
        """Do so with rows that are arrays already; see ``OnnxModel``."""
        return self._answered(lambda: self.predict(feeds, row_count), row_count)

    def _answered(self, ask: Callable[[], Predictions], row_count: int) -> Answers:
        started = time.perf_counter()
        classes = self.manifest.classes
        try:
            said = ask()
        except Exception as error:  # noqa: BLE001 - whatever a model does is its verdict
            seconds = time.perf_counter() - started
            logger.warning("model failed", version=self.version, error=str(error))
            return no_answers(row_count, classes, seconds, f"{error!s:.300}")
        seconds = time.perf_counter() - started
        return finite_answers(said.prediction, said.score, classes, seconds)

    def predict(self, feeds: Feeds, rows: int) -> Predictions:
        """Predict rows that are arrays already; see ``OnnxModel``."""
        return self.model.predict_arrays(feeds, rows)


@dataclass(frozen=True)
class Served:
    """What answers for one pipeline; replaced as a whole, never changed.

    Attributes
    ----------
    generation : of the ``serving-desired`` it follows.
    is_settled : every version asked for is loaded or known to be bad.
    failed : why versions cannot be loaded.
    """

    generation: int
    champion: Loaded | None = None
    candidate: Loaded | None = None
    share: float = 0.0
    is_settled: bool = False
    failed: Mapping[int, str] = field(default_factory=dict)

    def loaded(self) -> dict[int, Loaded]:
        """Versions in memory."""
        models = (self.champion, self.candidate)
        return {model.version: model for model in models if model is not None}


class Shelf:
    """What answers now, by pipeline; read by handlers and requests, no locks."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    def get(self, pipeline: str) -> Served | None:
        return self._served.get(pipeline)

    def show(self, pipeline: str, served: Served) -> None:
        """Switch at once: a call in work ends with the version it began with."""
        before, self._served = self._served, {**self._served, pipeline: served}
        for role, version in _roles(before.get(pipeline)) - _roles(served):
            SERVING_INFO.remove(pipeline, str(version), role)
        for role, version in _roles(served):
            SERVING_INFO.labels(pipeline, str(version), role).set(1)

    def pipelines(self) -> list[str]:
        """Names of pipelines that have a champion, sorted."""
        return sorted(n for n, s in self._served.items() if s.champion is not None)


def _roles(served: Served | None) -> set[tuple[str, int]]:
    if served is None:
        return set()
    models = {"champion": served.champion, "candidate": served.candidate}
    return {(role, model.version) for role, model in models.items() if model}
