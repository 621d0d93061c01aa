"""Scores datasets as a whole, in the background, one job after the other.

A job survives the death of this process: what it reads is fixed in the log
(``scoring-started``), how far it is stands in the table of its answers, and its end is
stored in the same transaction as the event that tells it. What the log has the end of
already, as after the loss of the database, is not done again.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass

from driftloop.contracts.base import Event, Meta, derived_id, origin_from
from driftloop.contracts.events import ServedModel, ServingDesired
from driftloop.contracts.scoring import (
    ScoringCancelled,
    ScoringFailed,
    ScoringPlan,
    ScoringProgressed,
    ScoringRequested,
    ScoringStarted,
)
from driftloop.runtime.database import is_passing
from driftloop.runtime.datasets import answers_uri, storage_options
from driftloop.runtime.errors import Retry
from driftloop.runtime.follower import LogSilentError
from driftloop.runtime.leases import Cost, Leases, got_further
from driftloop.runtime.outbox import Cause, Stopping
from driftloop.runtime.service import Runtime
from driftloop.runtime.telemetry import log, processing_span
from driftloop.runtime.throttle import Fields
from driftloop.scorer.background import Foreground, give_way
from driftloop.scorer.jobs.facts import Abandoned, CannotScore, EndState, Facts
from driftloop.scorer.jobs.reading import read_facts
from driftloop.scorer.loader import OpenModel
from driftloop.scorer.metrics import JOBS
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Shelf
from driftloop.scorer.tables import JOB_ORDER, ScorerJob
from sqlalchemy.exc import DBAPIError

POLL_S = 2.0
"""Between two looks for jobs of scorers that are gone; new ones wake the loop."""
OURS_S = 0.5
"""Between two looks whether a job is still ours, while its model is opened."""
MAX_FAILURES = 3
FIRST_CRASH_WAIT_S = 1.0
MAX_FAULTS = 20
MAX_WAIT_S = 60.0
MAX_TAKES = 20
"""A job that was taken so often without an end takes its whole service along."""
BUG = "see the scorer's log, or ask again with another version"
logger = log(__name__)


@dataclass
class _Try:
    """One try of a job, and what of its cost is not in the database yet."""

    job: ScorerJob
    request: ScoringRequested
    origin: Meta
    wall: float
    cpu: float
    reached: float = 0.0
    told: int = 0

    @classmethod
    def of(cls, job: ScorerJob) -> "_Try":
        return cls(
            job, job.asked(), origin_from(job.origin), time.monotonic(),
            time.thread_time(),
        )  # fmt: skip

    def cause(self, step: str) -> Cause:
        """Ids of a job's events derive from the job and the step alone."""
        return Cause(derived_id(self.job.id, step, 0), self.origin.chain)

    def add_cost_to(self, row: ScorerJob) -> None:
        """Add what it took since the last time."""
        wall, cpu = time.monotonic(), time.thread_time()
        row.duration_seconds += wall - self.wall
        row.cpu_seconds += cpu - self.cpu
        row.reached = max(row.reached, self.reached)
        self.wall, self.cpu = wall, cpu


class ScoringJobs:
    """Does the jobs that are stored.

    Parameters
    ----------
    wake : set when a job has been stored.
    facts_of : what the log says of a pipeline now, and of a version of its dataset.
    """

    def __init__(
        self,
        runtime: Runtime[ScorerSettings],
        shelf: Shelf,
        open_model: OpenModel,
        wake: threading.Event,
        facts_of: Callable[[str, str], Facts] | None = None,
    ) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._settings = settings
        self._shelf = shelf
        self._open_model = open_model
        self._wake = wake
        self._desired = runtime.state(ServingDesired)
        self._facts_of = facts_of or (
            lambda pipeline, wanted: read_facts(
                settings, runtime.store, pipeline, wanted, runtime.stopping
            )
        )
        self._ended: dict[str, EndState] = {}
        self._foreground = Foreground()
        self._leases = Leases(
            runtime.engine, ScorerJob, JOB_ORDER, settings.replica,
            settings.scoring_lease_seconds,
        )  # fmt: skip

    @property
    def recheck(self) -> threading.Event:
        """To be set when a job that runs here may have been cancelled."""
        return self._leases.recheck

    def run(self) -> None:
        """Do what is to be done until the process is to stop."""
        give_way()
        while not self._runtime.stopping.is_set():
            if self._desired.caught_up.is_set() and self._step():
                continue
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _step(self) -> bool:
        """Do one job, if there is one; a database that is away is waited for."""
        try:
            job = self._leases.take()
            if job is None:
                return False
            self._work_on(job)
        except DBAPIError as error:
            if not is_passing(error):
                raise
            logger.warning("jobs wait", error="the database is away")
            return False
        return True

    def _work_on(self, job: ScorerJob) -> None:
        run = _Try.of(job)
        with processing_span(self._runtime.tracer, "scorer", run.origin) as span:
            span.update_name("score dataset")
            span.set_attribute("driftloop.job.id", job.id)
            try:
                self._settle(run)
            except Abandoned:
                logger.info("gave a job back", job=job.id)
            except CannotScore as error:
                self._fail(run, error)
            except (Retry, LogSilentError) as error:
                self._try_later(run, str(error))
            except (DBAPIError, Stopping):
                raise
            except Exception as error:
                logger.exception("cannot score", job=job.id)
                self._try_again(run, f"{type(error).__name__}: {error!s:.300}")

    def _settle(self, run: _Try) -> None:
        """Do a job, unless it has ended or is to end."""
        job = run.job
        if job.id in self._ended:
            self._end(run, self._ended[job.id], [])
            return
        facts = self._facts_of(job.pipeline, run.request.dataset)
        self._ended |= facts.ends
        if job.id in self._ended:
            self._end(run, self._ended[job.id], [])
        elif job.cancelled_by is not None:
            self._cancel(run)
        elif job.take_count > MAX_TAKES:
            text = f"begun {MAX_TAKES} times and never ended"
            raise CannotScore(text, BUG)
        else:
            self._score(run, facts)

    def _score(self, run: _Try, facts: Facts) -> None:
        # here, as a scorer starts without what only these jobs need
        from driftloop.scorer.jobs import work

        job = run.job
        plan = told = job.fixed() or facts.plan_of(job.id)
        if plan is None:
            dataset, model = facts.choose(
                run.request.version, self._champion(job.pipeline)
            )
            plan = ScoringPlan(
                dataset=dataset, version=model.version, package=model.package,
                answers_uri=answers_uri(self._settings, job.pipeline, job.id),
                row_count=0,
            )  # fmt: skip
        working = work.Working(
            storage_options(self._settings),
            self._settings.scoring_part_rows,
            self._runtime.stopping,
            lambda: self._is_ours(job),
            lambda fields: self._progressed(run, fields),
        )
        loaded = self._loaded(job, plan)
        source = work.opened(job.pipeline, plan, loaded, working)
        plan = plan.model_copy(update={"row_count": source.row_count})
        if job.plan is None:
            self._fix(run, plan, is_told=told is not None)
        event = work.scored(job.id, plan, source, loaded, working)
        by = run.request.requested_by
        self._end(run, "done", [event.model_copy(update={"requested_by": by})])

    def _champion(self, pipeline: str) -> ServedModel | None:
        wish: ServingDesired | None = self._desired.get(pipeline)
        return wish.champion if wish else None

    def _loaded(self, job: ScorerJob, plan: ScoringPlan) -> Loaded:
        """Return a version: the one in memory, or verified and tried like any other."""
        served = self._shelf.get(job.pipeline)
        there = served.loaded().get(plan.version) if served else None
        if there is not None and there.package.digest == plan.package.digest:
            return there
        model = ServedModel(version=plan.version, package=plan.package)
        opening = self._foreground.submit(self._open_model, job.pipeline, model)
        while not wait([opening], OURS_S).done:
            if not self._is_ours(job):
                raise Abandoned
        try:
            return opening.result()
        except (Retry, DBAPIError):
            raise
        except Exception as error:
            raise CannotScore(
                f"version {plan.version} cannot be loaded: {error!s:.500}",
                f"take another one of: driftloop models {job.pipeline}",
            ) from error

    def _fix(self, run: _Try, plan: ScoringPlan, *, is_told: bool) -> None:
        """Store what is scored, and tell it unless the log has it already."""
        started = ScoringStarted(
            pipeline=run.job.pipeline, job_id=run.job.id, plan=plan,
            requested_by=run.request.requested_by,
        )  # fmt: skip
        with self._runtime.outbox.unit(run.cause("start")) as (session, events):
            row = self._leases.held(session, run.job)
            if row is None:
                raise Abandoned
            row.plan = run.job.plan = plan.model_dump_json()
            if not is_told:
                events.append(started.following(run.origin))
        logger.info("scoring a dataset", job=run.job.id, rows=plan.row_count)

    def _is_ours(self, job: ScorerJob) -> bool:
        return not self._runtime.stopping.is_set() and self._leases.renew(job)

    def _progressed(self, run: _Try, fields: Fields) -> None:
        """Tell how far a job is, and store what it took so far."""
        run.told += 1
        run.reached = fields["done_ratio"]
        step = f"progress/{run.job.lease_epoch}/{run.told}"
        event = ScoringProgressed(
            pipeline=run.job.pipeline, job_id=run.job.id, **fields
        )
        with self._runtime.outbox.unit(run.cause(step)) as (session, events):
            row = self._leases.held(session, run.job)
            if row is None:
                raise Abandoned
            run.add_cost_to(row)
            events.append(event.following(run.origin))

    def _cancel(self, run: _Try) -> None:
        job = run.job
        cancelled = ScoringCancelled(
            pipeline=job.pipeline, job_id=job.id,
            cancelled_by=job.cancelled_by or "", reason=job.cancel_reason or "",
        )  # fmt: skip
        self._end(run, "cancelled", [cancelled])

    def _fail(self, run: _Try, error: CannotScore) -> None:
        job, plan = run.job, run.job.fixed()
        failed = ScoringFailed(
            pipeline=job.pipeline, job_id=job.id, dataset=run.request.dataset,
            version=plan.version if plan else run.request.version, error=str(error),
            remedy=error.remedy, attempts=job.failure_count + 1,
            requested_by=run.request.requested_by,
        )  # fmt: skip
        if self._end(run, "failed", [failed], str(error)):
            logger.warning("dataset not scored", job=job.id, error=str(error))

    def _end(
        self, run: _Try, state: EndState, said: list[Event], error: str | None = None
    ) -> bool:
        """Store the end with its event; False when the job is somebody else's now.

        Parameters
        ----------
        said : empty when the log has it already.
        """
        job = run.job
        with self._runtime.outbox.unit(run.cause("end")) as (session, events):
            row = self._leases.held(session, job)
            if row is None:
                return False
            row.state, row.error = state, error
            run.add_cost_to(row)
            events += [_with_cost(event, row).following(run.origin) for event in said]
        if state != "done":
            self._remove_answers(job)
        if said:
            outcome = "scored" if state == "done" else state
            JOBS.labels(job.pipeline, outcome).inc()
        return True

    def _remove_answers(self, job: ScorerJob) -> None:
        """Remove what a job without an end of its own had written."""
        from driftloop.runtime.data.stored import remove_table

        try:
            uri = answers_uri(self._settings, job.pipeline, job.id)
            remove_table(uri, storage_options(self._settings))
        except Retry as error:
            logger.warning("answers stay; driftloop gc finds them", error=str(error))

    def _try_again(self, run: _Try, error: str) -> None:
        job = run.job
        cost = Cost(reached=run.reached)
        failures = 0 if got_further(job, cost) else job.failure_count
        if failures + 1 >= MAX_FAILURES:
            self._fail(run, CannotScore(error, BUG))
            return
        wait_s = min(FIRST_CRASH_WAIT_S * 2**failures, MAX_WAIT_S)
        JOBS.labels(job.pipeline, "crashed").inc()
        self._leases.put_back(job, error, cost, wait_s=wait_s, is_fault=False)

    def _try_later(self, run: _Try, error: str) -> None:
        """Wait for a store or the broker to be back; this is no fault of the job."""
        job = run.job
        if job.fault_count + 1 >= MAX_FAULTS:
            self._fail(run, CannotScore(error, "ask again once it is back"))
            return
        wait_s = min(2.0**job.fault_count, MAX_WAIT_S)
        JOBS.labels(job.pipeline, "fault").inc()
        logger.warning("waiting", job=job.id, error=error, wait_seconds=wait_s)
        cost = Cost(reached=run.reached)
        self._leases.put_back(job, error, cost, wait_s=wait_s, is_fault=True)


def _with_cost(event: Event, row: ScorerJob) -> Event:
    took = {
        "cpu_seconds": round(row.cpu_seconds, 3),
        "duration_seconds": round(row.duration_seconds, 3),
    }
    known = type(event).model_fields
    return event.model_copy(update={k: v for k, v in took.items() if k in known})
