"""The background loop: takes a job under a lease, has it trained, says how it ended.

A job survives the death of its child and of this process: its request is frozen in
the job's row, its checkpoints lie in its folder, and the event that ends it is stored
in the same transaction as the row's new state.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from driftloop.contracts.base import Event, Meta, derived_id, origin_from
from driftloop.contracts.events import (
    AlertRaised,
    CandidateResult,
    ModelTrained,
    PackageRef,
    TrainingFailed,
    TrainingProgressed,
)
from driftloop.models.package import Manifest, PackageRefused, write_package
from driftloop.models.signing import Signer
from driftloop.runtime.errors import Retry
from driftloop.runtime.leases import Cost, Leases, got_further
from driftloop.runtime.outbox import Cause
from driftloop.runtime.service import Runtime
from driftloop.runtime.telemetry import log, processing_span
from driftloop.runtime.throttle import Throttle
from driftloop.trainer import core, metrics
from driftloop.trainer.child import ChildJob
from driftloop.trainer.federated.rounds import Rounds
from driftloop.trainer.handlers import accept
from driftloop.trainer.remote.choice import JobWorker, open_worker
from driftloop.trainer.request import JobRequest
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.submitted import waiting
from driftloop.trainer.tables import (
    ORDER,
    TrainerJob,
    pipeline_row,
    state_of,
)
from driftloop.trainer.worker import (
    Abandoned,
    Answer,
    Crashed,
    LimitReached,
)
from sqlmodel import Session

POLL_S = 0.5
WARMING_POLL_S = 0.1
MAX_FAILURES = 3
FIRST_CRASH_WAIT_S = 1.0
MAX_CRASH_WAIT_S = 60.0
MAX_FAULTS = 20
FIRST_FAULT_WAIT_S = 1.0
MAX_FAULT_WAIT_S = 60.0
MAX_TAKES = 20
"""A job that was taken so often without an end takes its whole service along."""
logger = log(__name__)


class JobLoop:
    """Runs jobs one after the other.

    Parameters
    ----------
    wake : set when a job has been stored; without it the loop looks by itself.
    """

    def __init__(
        self, runtime: Runtime[TrainerSettings], signer: Signer, wake: threading.Event
    ) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._signer = signer
        self._wake = wake
        self._worker: JobWorker = open_worker(self._settings)
        self._leases = Leases(
            runtime.engine, TrainerJob, ORDER, self._settings.replica,
            self._settings.lease_seconds,
        )  # fmt: skip
        self._cost = Cost()

    @property
    def recheck(self) -> threading.Event:
        """To be set when a job that runs here may have been cancelled."""
        return self._leases.recheck

    def run(self) -> None:
        """Loop until the process stops, once it is known what was said before."""
        while not self._runtime.recorded.complete.wait(WARMING_POLL_S):
            if self._runtime.stopping.is_set():
                return
        self._tidy()
        try:
            while not self._runtime.stopping.is_set():
                self._worker.warm()
                metrics.WARM_CHILD.set(self._worker.is_ready)
                job = self._leases.take()
                if job is None:
                    if self.recheck.is_set():  # one that waited was cancelled
                        self.recheck.clear()
                        self._tidy()
                    self._wake.wait(POLL_S if self._worker.is_ready else WARMING_POLL_S)
                    self._wake.clear()
                else:
                    with metrics.JOB_DURATION.time():
                        self._work_on(job)
        finally:
            self._worker.close()

    def _work_on(self, job: TrainerJob) -> None:
        request, origin = job.asked(), _origin_of(job)
        with processing_span(self._runtime.tracer, "trainer", origin) as span:
            span.update_name("train")
            span.set_attribute("driftloop.job.id", job.id)
            logger.info("training", job=job.id, reason=request.trigger.reason)
            self._cost = Cost()
            if job.take_count > MAX_TAKES:
                self._fail(job, request, f"begun {MAX_TAKES} times and never ended")
                return
            try:
                answer = self._train(job, request)
                if answer.kind == "trained":
                    self._finish(job, request, answer)
                else:
                    self._fail(job, request, answer.fields["error"])
            except Abandoned:
                logger.info("gave a job back", job=job.id)
                self._tidy()
            except (PackageRefused, LimitReached) as error:
                self._fail(job, request, str(error))
            except Retry as error:
                self._try_later(job, request, str(error))
            except Crashed as error:
                self._try_again(job, request, str(error))

    def _train(self, job: TrainerJob, request: JobRequest) -> Answer:
        folder = self._folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        emitted, reached = 0, 0.0

        def emit(fields: dict[str, Any]) -> None:
            nonlocal emitted
            emitted += 1
            step = f"{job.lease_epoch}/{emitted}"
            event = TrainingProgressed(
                pipeline=request.spec.name, job_id=job.id, **fields
            )
            self._emit(job, [event], "progress", step)

        throttle = Throttle(emit)

        def progress(fields: dict[str, Any]) -> None:
            nonlocal reached
            reached = max(reached, fields["done_ratio"])
            throttle.take(fields)

        def is_ours() -> bool:
            throttle.flush()
            return self._is_ours(job)

        try:
            return self._worker.run(
                ChildJob(
                    request=request.model_dump_json(),
                    folder=folder,
                    cpu_limit_s=self._cpu_left(job),
                ),
                request.spec.train.timeout_minutes * 60,
                is_ours,
                progress,
            )
        finally:
            self._cost = Cost(self._worker.cpu_seconds, reached)

    def _cpu_left(self, job: TrainerJob) -> float | None:
        """Return the seconds of CPU that the job may still use; at least one."""
        limit = self._settings.max_cpu_minutes
        return None if limit is None else max(1.0, limit * 60 - job.cpu_seconds)

    def _tidy(self) -> None:
        """Remove the folders of jobs that have ended, here or elsewhere."""
        place = self._settings.work_folder
        names = [folder.name for folder in place.iterdir()] if place.exists() else []
        with Session(self._runtime.engine) as session:
            for name in names:
                job = session.get(TrainerJob, name)
                if job is None or job.state not in core.OPEN_STATES:
                    self._worker.forget(place / name)

    def _folder(self, job: TrainerJob) -> Path:
        return self._settings.work_folder / job.id

    def _is_ours(self, job: TrainerJob) -> bool:
        return not self._runtime.stopping.is_set() and self._leases.renew(job)

    def _finish(self, job: TrainerJob, request: JobRequest, answer: Answer) -> None:
        folder = self._folder(job) / "package"
        files = {name: (folder / name).read_bytes() for name in answer.fields["files"]}
        manifest = Manifest.model_validate(answer.fields["manifest"])
        package = write_package(manifest, files, self._signer, self._runtime.store)
        tried = [CandidateResult.model_validate(t) for t in answer.fields["tried"]]
        event = _model_trained(request, manifest, package, tried)
        event = event.model_copy(update={"cpu_seconds": self._cpu_seconds(job)})
        if self._end(job, "done", [event]):
            metrics.JOBS.labels(job.pipeline, "trained").inc()
            logger.info("trained", job=job.id, package=package.digest)

    def _cpu_seconds(self, job: TrainerJob) -> float:
        return round(job.cpu_seconds + self._cost.cpu_seconds, 3)

    def _fail(self, job: TrainerJob, request: JobRequest, error: str) -> None:
        name = request.spec.name
        attempts = job.failure_count + 1
        is_ended = self._end(
            job,
            "failed",
            [
                TrainingFailed(
                    pipeline=name,
                    job_id=job.id,
                    trigger=request.trigger,
                    error=error,
                    attempts=attempts,
                    cpu_seconds=self._cpu_seconds(job),
                ),
                AlertRaised(
                    pipeline=name,
                    condition=f"training-failed/{job.id}",
                    severity="warning",
                    title=f"Training of {name} failed",
                    detail=error,
                    owner=request.spec.owner,
                ),
            ],
            error,
        )
        if is_ended:
            metrics.JOBS.labels(job.pipeline, "failed").inc()
            logger.error("training failed", job=job.id, error=error)

    def _try_again(self, job: TrainerJob, request: JobRequest, error: str) -> None:
        failures = 0 if got_further(job, self._cost) else job.failure_count
        if failures + 1 >= MAX_FAILURES:
            self._fail(job, request, error)
            return
        wait_s = min(FIRST_CRASH_WAIT_S * 2**failures, MAX_CRASH_WAIT_S)
        metrics.JOBS.labels(job.pipeline, "crashed").inc()
        logger.warning(
            "training went wrong, trying again",
            job=job.id, error=error, wait_seconds=wait_s,
        )  # fmt: skip
        self._leases.put_back(job, error, self._cost, wait_s=wait_s, is_fault=False)

    def _try_later(self, job: TrainerJob, request: JobRequest, error: str) -> None:
        """Wait for a store or a table to be back; this is no fault of the job."""
        if job.fault_count + 1 >= MAX_FAULTS:
            self._fail(job, request, error)
            return
        wait_s = min(FIRST_FAULT_WAIT_S * 2**job.fault_count, MAX_FAULT_WAIT_S)
        metrics.JOBS.labels(job.pipeline, "fault").inc()
        logger.warning("waiting", job=job.id, error=error, wait_seconds=wait_s)
        self._leases.put_back(job, error, self._cost, wait_s=wait_s, is_fault=True)

    def _end(
        self, job: TrainerJob, state: str, ended: list[Event], error: str | None = None
    ) -> bool:
        """Store the end with its events, and the job that waited for it.

        Returns
        -------
        bool
            False when somebody else has ended the job, or has it now.
        """
        origin = _origin_of(job)
        with self._runtime.outbox.unit(_cause(job, "end")) as (session, events):
            pipeline = pipeline_row(session, job.pipeline)
            row = self._leases.held(session, job)
            if row is None:
                return False
            row.state, row.error = state, error
            row.failure_count += state == "failed"
            self._cost.add_to(row)
            session.flush()
            events += [event.following(origin) for event in ended]
            applied = self._runtime.pipelines.get(job.pipeline)
            if applied:
                spec, recorded = applied.spec, self._runtime.recorded
                rounds = Rounds(session, self._wake, recorded)
                events.extend(rounds.measure(job.pipeline, spec))
                events.extend(
                    waiting.measure(session, self._wake, job.pipeline, spec, recorded)
                )
                view = state_of(session, pipeline, spec)
                next_one = core.after_job(view, spec)
                if next_one:
                    accepted = accept(session, pipeline, next_one, spec, origin)
                    events.append(accepted)
        self._worker.forget(self._folder(job))
        return True

    def _emit(
        self, job: TrainerJob, said: Iterable[Event], what: str, step: str
    ) -> None:
        origin = _origin_of(job)
        cause = _cause(job, f"{what}/{step}")
        with self._runtime.outbox.unit(cause) as (_, events):
            events += [event.following(origin) for event in said]


def _cause(job: TrainerJob, step: str) -> Cause:
    """Ids of a job's events derive from the job and the step alone."""
    return Cause(derived_id(job.id, step, 0), _origin_of(job).chain)


def _origin_of(job: TrainerJob) -> Meta:
    return origin_from(job.came_from().model_dump(mode="json"))


def _model_trained(
    request: JobRequest,
    manifest: Manifest,
    package: PackageRef,
    tried: list[CandidateResult],
) -> ModelTrained:
    return ModelTrained(
        pipeline=request.spec.name,
        job_id=request.job_id,
        trigger=request.trigger,
        package=package,
        algorithm=manifest.algorithm,
        dataset=request.dataset,
        train_span=manifest.train_span,
        tried=tried,
        evaluation=manifest.evaluation,
        left_out=manifest.left_out,
    )
