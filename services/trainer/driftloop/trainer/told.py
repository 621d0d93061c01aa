"""A pipeline's jobs and waiting triggers from what the trainer once said of them.

For a trainer that has lost its database. It reads its inputs anew, the topics in
another order, so it would decide otherwise than before, and train again what has been
trained. Jobs, how they ended and what waits are therefore taken from its own events;
data, losses and the champion from the inputs, whose order within a topic is kept.
"""

from collections.abc import Sequence

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetVersioned,
    FederationRequested,
    ModelSubmitted,
    ModelTrained,
    TrainingCancelled,
    TrainingFailed,
    TrainingProgressed,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.recorded import Recorded
from driftloop.trainer import core
from driftloop.trainer.request import JobRequest
from driftloop.trainer.tables import Origin, TrainerJob, TrainerPipeline
from sqlmodel import Session

GIVEN = (ModelSubmitted.topic(), FederationRequested.topic())
"""Triggers of jobs whose model is there already; see :func:`given.job_of`."""
Ended = ModelTrained | TrainingFailed | TrainingCancelled


def is_known(recorded: Recorded, pipeline: str) -> bool:
    """Whether the log says anything of a pipeline's jobs."""
    kinds: tuple[type[Event], ...] = (TrainingStarted, TrainingSkipped)
    return any(recorded.of(kind, pipeline) for kind in kinds)


def restore(
    session: Session, row: TrainerPipeline, spec: PipelineSpec, recorded: Recorded
) -> None:
    """Store the jobs that were told of, and let the triggers wait that did.

    A job that has not ended is trained (again), by the pipeline file of now. One whose
    model was given is stored once the model is read anew.
    """
    started = recorded.of(TrainingStarted, row.name)
    jobs = {event.job_id: event for event in reversed(started)}  # the first of each
    before: TrainerJob | None = None
    for number, event in enumerate(reversed(jobs.values()), start=1):
        job = _job(event, before, number, spec, recorded)
        if job.state != "waiting" or not _is_given(event):
            session.add(job)
        before = job
    _let_wait(row, list(reversed(jobs.values())), recorded)
    session.flush()


def _job(
    event: TrainingStarted,
    before: TrainerJob | None,
    number: int,
    spec: PipelineSpec,
    recorded: Recorded,
) -> TrainerJob:
    end = _end_of(event, recorded)
    champion = event.champion
    job = TrainerJob(
        id=event.job_id,
        pipeline=event.pipeline,
        number=number,
        request=JobRequest(
            job_id=event.job_id,
            trigger=event.trigger,
            spec=spec,
            dataset=event.dataset,
            train_span=event.train_span,
            holdout_span=event.holdout_span,
            champion=champion,
            left_out=tuple(event.left_out),
        ).model_dump_json(),
        origin=_origin_of(event).model_dump_json(),
        data_end=event.known_until.isoformat(),
        label_count=event.label_count,
        champion_version=champion.version if champion else None,
        lease_epoch=_told_steps(event, recorded),
    )
    if _is_given(event):
        job.data_end = before.data_end if before else event.train_span.start.isoformat()
        job.label_count = before.label_count if before else 0
        if before:
            job.champion_version = before.champion_version
    match end:
        case ModelTrained():
            job.state, job.cpu_seconds = "done", end.cpu_seconds
        case TrainingFailed():
            job.state, job.error = "failed", end.error
            job.failure_count, job.cpu_seconds = end.attempts, end.cpu_seconds
        case TrainingCancelled():
            job.state = "cancelled"
            job.error = core.cancelled_text(end.cancelled_by, end.reason)
    return job


def _is_given(event: TrainingStarted) -> bool:
    return event.trigger.event_type in GIVEN


def _end_of(event: TrainingStarted, recorded: Recorded) -> Ended | None:
    kinds: tuple[type[Ended], ...] = (ModelTrained, TrainingFailed, TrainingCancelled)
    for kind in kinds:
        for end in recorded.of(kind, event.pipeline):
            if end.job_id == event.job_id:
                return end
    return None


def _told_steps(event: TrainingStarted, recorded: Recorded) -> int:
    """Return more than the tries that have told where they are: ids go on from it."""
    told = recorded.of(TrainingProgressed, event.pipeline)
    return sum(each.job_id == event.job_id for each in told)


def _origin_of(event: Event) -> Origin:
    """Return whose chain an event goes on with."""
    meta = event.meta
    return Origin(
        id=meta.causation_id or meta.id,
        time=meta.time,
        source=meta.source,
        chain_id=meta.chain.id,
        traceparent=meta.chain.traceparent,
    )


def _let_wait(
    row: TrainerPipeline, started: Sequence[TrainingStarted], recorded: Recorded
) -> None:
    """Keep the newest trigger of each kind that no later job has dealt with."""
    numbers = {event.job_id: n for n, event in enumerate(started, start=1)}
    for event in recorded.of(TrainingSkipped, row.name):
        if event.waits is None:
            continue
        pending = core.Pending(event.trigger, event.waits.since)
        later = started[numbers.get(event.waits.newest_job or "", 0) :]
        begun = (_start_of(each) for each in later if not _is_given(each))
        if all(core.still_waits(pending, start) for start in begun):
            row.keep(pending, _origin_of(event))


def _start_of(event: TrainingStarted) -> core.Start:
    spans = event.train_span, event.holdout_span
    return core.Start(event.trigger, *spans, event.known_until)


def has_begun(recorded: Recorded, pipeline: str, job_id: str) -> bool:
    """Whether the log says already that a job was accepted."""
    return any(e.job_id == job_id for e in recorded.of(TrainingStarted, pipeline))


def is_outdated(event: DatasetVersioned, recorded: Recorded) -> bool:
    """Whether the log held a newer one when the trainer began to read it anew.

    Nothing is decided by an older one: it may have been read before, by a trainer that
    knew something else.
    """
    known, name = recorded.by_id(DatasetVersioned, event.pipeline), event.meta.id
    return name in known and name != next(reversed(known))
