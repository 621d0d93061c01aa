"""Requests are answered: which version, on which thread, and what if it fails."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import numpy as np
from driftloop.contracts.events import Role, ScorerReported, VersionReport
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.contracts.profile import DoorCost
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import InputColumn
from driftloop.runtime.database import is_passing
from driftloop.runtime.outbox import Cause, OutboxRelay
from driftloop.runtime.telemetry import log
from driftloop.scorer.asked import Asked, row_ids
from driftloop.scorer.batching import Batching, Callee
from driftloop.scorer.core import is_candidates, p99
from driftloop.scorer.drifted import Drifted, Drifts, drifted_headers
from driftloop.scorer.explaining.explainer import Unexplained
from driftloop.scorer.explaining.pool import Explaining, Explanation
from driftloop.scorer.explaining.wish import Wish
from driftloop.scorer.feeds import BadRequest, Columns, Feeds, feeds_of
from driftloop.scorer.metrics import count_call
from driftloop.scorer.profiles import Meter, Taken
from driftloop.scorer.shelf import Loaded, Served, Shelf
from driftloop.scorer.unfamiliar import Unfamiliar, count_unfamiliar, headers_of
from sqlalchemy.exc import DBAPIError

INLINE_SECONDS = 0.002
"""Longer calls leave the event loop to others; a thread costs about 0.1 ms."""
KEPT_DURATIONS = 1000
DRAIN_S = 1.0
REPORT_S = 60.0
logger = log(__name__)


class ModelFailed(Exception):  # noqa: N818 - says what happened
    """The version asked for, or the champion, could not answer."""


class NotServed(Exception):  # noqa: N818 - says what happened
    """There is no such pipeline or version in service."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and who gave it; predictions are (n_rows,).

    Attributes
    ----------
    unfamiliar : columns with values that the version has not learned from.
    explanation : why; None: nobody asked.
    drifted : columns that are others now, by the monitor's verdicts.
    """

    version: int
    role: Role
    said: Predictions
    request_id: str
    unfamiliar: Sequence[Unfamiliar] = ()
    explanation: Explanation | Unexplained | None = None
    drifted: Sequence[Drifted] = ()

    def headers(self) -> dict[str, str]:
        """Return what an answer's head says of its columns."""
        return {**headers_of(self.unfamiliar), **drifted_headers(self.drifted)}

    def warnings(self) -> str:
        """Return the same in words."""
        return "; ".join(map(str, (*self.unfamiliar, *self.drifted)))


@dataclass
class _Figures:
    role: Role
    row_count: int = 0
    error_count: int = 0
    detail: str = ""
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_DURATIONS))
    metered_count: int = 0
    metered_row_count: int = 0
    door_seconds: float = 0.0
    model_seconds: float = 0.0

    def door(self) -> DoorCost | None:
        """Return what its requests took beside the model's calls."""
        count = self.metered_count
        if not count:
            return None
        return DoorCost(
            requests=count,
            rows=self.metered_row_count / count,
            seconds=max(0.0, self.door_seconds) / count,
            model_seconds=self.model_seconds / count,
        )


class Traffic:
    """Figures of requests until they are reported; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[tuple[str, int, int], _Figures] = {}

    def add(
        self, key: tuple[str, int, int], role: Role, rows: int, seconds: float,
        error: str | None, taken: Taken | None = None,
    ) -> None:  # fmt: skip
        """Count one call; the key is pipeline, generation and version.

        Parameters
        ----------
        taken : processor time of the thread that answers; None: not known.
        """
        with self._lock:
            figures = self._figures.get(key)
            if figures is None:
                figures = self._figures[key] = _Figures(role)
            figures.row_count += rows
            figures.seconds.append(seconds)
            if taken is not None:
                figures.metered_count += 1
                figures.metered_row_count += rows
                figures.door_seconds += taken.door
                figures.model_seconds += taken.model
            if error is not None:
                figures.error_count += rows
                figures.detail = figures.detail or error

    def has_errors(self) -> bool:
        with self._lock:
            return any(figures.error_count for figures in self._figures.values())

    def drain(self) -> dict[tuple[str, int], list[VersionReport]]:
        """Return the reports by pipeline and generation, and begin anew."""
        with self._lock:
            taken, self._figures = self._figures, {}
        reports: dict[tuple[str, int], list[VersionReport]] = {}
        for (pipeline, generation, version), figures in sorted(taken.items()):
            reports.setdefault((pipeline, generation), []).append(
                VersionReport(
                    version=version,
                    role=figures.role,
                    state="ready",
                    detail=figures.detail,
                    row_count=figures.row_count,
                    error_count=figures.error_count,
                    call_count=len(figures.seconds),
                    latency_p50_seconds=float(np.median(figures.seconds)),
                    latency_p99_seconds=p99(figures.seconds),
                    door=figures.door(),
                )
            )
        return reports


def traffic_reporter(
    traffic: Traffic,
    outbox: OutboxRelay,
    replica: str,
    stopping: threading.Event,
    environment: str = PRODUCTION,
) -> Callable[[], None]:
    """Return the loop that reports requests: errors at once, else rarely.

    They are counted in memory only: a crash forgets the last of them. While the
    database is away they are kept, and told once it is back.
    """

    def tell(pipeline: str, generation: int, versions: list[VersionReport]) -> None:
        with outbox.unit(Cause.none(f"requests/{uuid4()}")) as (_, events):
            events.append(
                ScorerReported(
                    pipeline=pipeline,
                    replica=replica,
                    environment=environment,
                    generation=generation,
                    versions=versions,
                )
            )

    def run() -> None:
        last = time.monotonic()
        untold: deque[tuple[tuple[str, int], list[VersionReport]]] = deque()
        while not stopping.wait(DRAIN_S):
            now = time.monotonic()
            is_due = now - last >= REPORT_S or traffic.has_errors()
            if not untold and is_due:
                last = now
                untold.extend(traffic.drain().items())
            try:
                while untold:
                    (pipeline, generation), versions = untold[0]
                    tell(pipeline, generation, versions)
                    untold.popleft()
            except DBAPIError as error:
                if not is_passing(error):
                    raise
                logger.warning("no report of requests", error="the database is away")

    return run


class Desk:
    """Answers requests with what is on the shelf.

    Parameters
    ----------
    batching : of versions whose calls leave the event loop to others.
    batch_seconds : that a joint call may take longer; see :meth:`Pace.joint_rows`.
    """

    def __init__(
        self,
        shelf: Shelf,
        traffic: Traffic,
        asked: Asked | None = None,
        explaining: Explaining | None = None,
        drifts: Drifts | None = None,
        batching: Batching | None = None,
        batch_seconds: float = 0.0,
    ) -> None:
        self.shelf = shelf
        self._batching = batching or Batching(calls=1)
        self._batch_seconds = batch_seconds
        self._drifts = drifts or Drifts()
        self.explaining = explaining or Explaining.off()
        self._traffic = traffic
        self._meter = Meter()
        self._log = asked or Asked(lambda _: "none", most_bytes=0)

    async def answer(
        self,
        pipeline: str,
        columns: Columns,
        request_id: str | None = None,
        version: int | None = None,
        check: Callable[[Sequence[InputColumn]], None] | None = None,
        explain: Wish | None = None,
    ) -> Reply:
        """Predict each row of a request.

        Parameters
        ----------
        columns : feature to values; see :func:`feeds.feeds_of`.
        request_id : decides whether a candidate answers; None: it is drawn.
        version : exactly this one.
        check : a further test of the request against the champion's inputs.
        explain : how long the answer may wait for its explanation; None: none is
            wanted. No answer fails for want of one.

        Raises
        ------
        NotServed
            When the pipeline or the version is not served.
        BadRequest
            When the request does not fit the model.
        ModelFailed
            When the version cannot answer.
        """
        served = self.shelf.get(pipeline)
        if served is None or served.champion is None:
            raise NotServed(f"no model is served for {pipeline!r}")
        named, request_id = request_id, request_id or str(uuid4())
        if check is not None:
            check(served.champion.manifest.inputs)
        if version is not None:
            loaded = served.loaded().get(version)
            if loaded is None:
                raise NotServed(f"version {version} of {pipeline!r} is not served")
            role: Role = "champion" if loaded is served.champion else "candidate"
            return await self._asked(
                pipeline, served, loaded, role, columns, request_id, named, explain
            )
        candidate = served.candidate
        if candidate and is_candidates(request_id, candidate.version, served.share):
            try:
                return await self._asked(
                    pipeline,
                    served,
                    candidate,
                    "candidate",
                    columns,
                    request_id,
                    named,
                    explain,
                )
            except (ModelFailed, BadRequest) as error:
                logger.warning("candidate failed", pipeline=pipeline, error=str(error))
        return await self._asked(
            pipeline,
            served,
            served.champion,
            "champion",
            columns,
            request_id,
            named,
            explain,
        )

    async def _asked(
        self,
        pipeline: str,
        served: Served,
        loaded: Loaded,
        role: Role,
        columns: Columns,
        request_id: str,
        named: str | None,
        explain: Wish | None,
    ) -> Reply:
        feeds, rows = feeds_of(columns, loaded.manifest.inputs)
        key = (pipeline, served.generation, loaded.version)
        started = time.perf_counter()
        error = None
        try:
            if loaded.pace.seconds(rows) <= INLINE_SECONDS:
                with self._meter.model_call():
                    said = _predict(loaded, feeds, rows)
            else:
                most_rows = loaded.pace.joint_rows(self._batch_seconds)
                predict = partial(_predict, loaded)
                to = Callee(pipeline, loaded.line, most_rows, predict)
                said = await self._batching.predict(to, feeds, rows)
        except Exception as problem:
            error = f"{problem!s:.300}"
            raise ModelFailed(
                f"version {loaded.version} of {pipeline!r} cannot answer: {error}"
            ) from problem
        finally:
            seconds = time.perf_counter() - started
            self._traffic.add(key, role, rows, seconds, error, self._meter.taken())
            failed = 0 if error is None else rows
            count_call(pipeline, role, "requests", rows, failed, seconds)
        self._log.add(
            (pipeline, loaded.version, role), loaded.manifest, request_id,
            row_ids(columns, rows, named), feeds, said,
        )  # fmt: skip
        unfamiliar = loaded.familiar.unfamiliar(feeds)
        count_unfamiliar(pipeline, unfamiliar)
        why = None
        if explain is not None:
            why = await self.explaining.explain(
                pipeline, loaded.explainer, feeds, said, explain
            )
        drifted = self._drifts.of(pipeline, loaded.version, feeds)
        return Reply(loaded.version, role, said, request_id, unfamiliar, why, drifted)


def _predict(loaded: Loaded, feeds: Feeds, rows: int) -> Predictions:
    said = loaded.predict(feeds, rows)
    if bad := said.non_finite_count():
        raise ModelFailed(f"no finite answer for {bad} of {rows} rows")
    return said
