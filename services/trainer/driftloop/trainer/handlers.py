"""What the trainer does with each event it takes."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from driftloop.contracts.base import Event, Meta, chain_of, origin_from
from driftloop.contracts.describe import stretch_in_words
from driftloop.contracts.events import (
    FAULTS,
    AlertRaised,
    DatasetVersioned,
    DriftDetected,
    DriftEnded,
    FederatedUpdateSubmitted,
    FederationRequested,
    ModelDeployed,
    ModelRolledBack,
    ModelSubmitted,
    PerformanceMeasured,
    RetrainRequested,
    ServedModel,
    Span,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingCancelRequested,
    TrainingSkipped,
    TrainingStarted,
    VerdictOverruled,
    WaitingTrigger,
)
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec
from driftloop.runtime import handlers
from driftloop.runtime.errors import Skip
from driftloop.runtime.recorded import Recorded
from driftloop.trainer import core, told
from driftloop.trainer.faults import within
from driftloop.trainer.federated.rounds import Rounds
from driftloop.trainer.floor import measured
from driftloop.trainer.request import JobRequest
from driftloop.trainer.submitted import waiting
from driftloop.trainer.tables import (
    Origin,
    TrainerJob,
    TrainerPipeline,
    last_job,
    open_jobs,
    pipeline_row,
    state_of,
)
from driftloop.trainer.worth import remembered
from sqlalchemy.event import listen
from sqlmodel import Session


@dataclass(frozen=True)
class Deps(handlers.Deps):
    """What the handlers use.

    Attributes
    ----------
    wake : set once a new job is committed, for the loop that trains.
    recheck : set once a job is cancelled, for who works on it.
    recorded : what the trainer has said and decided by before it started.
    """

    wake: threading.Event
    recheck: threading.Event
    recorded: Recorded = field(default_factory=Recorded)


def on_dataset_versioned(event: DatasetVersioned, deps: Deps) -> Iterator[Event]:
    """Remember the version; start the first model, a waiting one, or the next."""
    spec = deps.pipeline(event.pipeline)
    row = _row(deps, event.pipeline)
    row.set_data(core.with_data(row.data(), event))
    yield from _measure_given(deps, event.pipeline, spec)
    recorded = deps.recorded
    if recorded.has_answered(event.meta.id) or told.is_outdated(event, recorded):
        return
    state = state_of(deps.session, row, spec)
    decision = core.after_data(event.meta.id, state, spec)
    if decision:
        yield _answer(deps, row, decision, spec, event.meta)


def on_drift_detected(event: DriftDetected, deps: Deps) -> Iterator[Event]:
    """Answer a verdict: a training, or the reason why not; keep in mind its fault."""
    spec = deps.pipeline(event.pipeline)
    row = _row(deps, event.pipeline)
    row.set_told_faults(row.told_faults().with_verdict(event, event.meta.id))
    if deps.recorded.has_answered(event.meta.id):
        return
    state = state_of(deps.session, row, spec)
    decision = core.after_drift(event, event.meta.id, state, spec)
    yield _answer(deps, row, decision, spec, event.meta)
    yield from _read_meanwhile(deps, row, event.meta.id, spec)


def on_drift_ended(event: DriftEnded, deps: Deps) -> Iterator[Event]:
    """Remember when values were right again: newer rows are read."""
    row = _row(deps, event.pipeline)
    row.set_told_faults(row.told_faults().with_end(event))
    yield from ()


def _read_meanwhile(
    deps: Deps, row: TrainerPipeline, verdict_id: str, spec: PipelineSpec
) -> Iterator[Event]:
    """Tell of jobs under way that read rows of a fault, as it was told too late."""
    mine = tuple(s for s in row.left_out(spec) if s.verdict_id == verdict_id)
    for job in open_jobs(deps.session, row.name) if mine else ():
        request = job.asked()
        span = Span(start=request.train_span.start, end=request.holdout_span.end)
        known = {stretch.verdict_id for stretch in request.left_out}
        for stretch in within(mine, span) if verdict_id not in known else ():
            yield AlertRaised(
                pipeline=row.name,
                condition=f"fault-in-training/{job.id}/{verdict_id}",
                severity="warning",
                title=f"A training of {row.name} reads rows of a fault",
                detail=f"Job {job.id} was decided before the verdict was told and "
                f"reads {stretch_in_words(stretch)}. driftloop jobs cancel {job.id} "
                f"--by NAME -m REASON ends it; driftloop retrain {row.name} --by NAME "
                "-m REASON then trains without these rows.",
                owner=spec.owner,
            )


def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
    """Answer a person: at once, unless a job runs or rows are too few."""
    spec = deps.pipeline(event.pipeline)
    row = _row(deps, event.pipeline)
    if deps.recorded.has_answered(event.meta.id):
        return
    state = state_of(deps.session, row, spec)
    decision = core.after_request(event, event.meta.id, state, spec)
    yield _answer(deps, row, decision, spec, event.meta)


def on_performance_measured(event: PerformanceMeasured, deps: Deps) -> Iterator[Event]:
    """Remember losses; count windows below the accuracy floor, answer when enough."""
    if event.environment != PRODUCTION:
        raise Skip("not_in_production")
    spec = deps.pipeline(event.pipeline)
    how = spec.retrain
    if how.accuracy_floor.max_loss is None and how.cost.loss_unit_value is None:
        return
    row = _row(deps, event.pipeline)
    row.set_losses(remembered(row.loss_memory(), event, how.cost))
    count, version = measured(row.floor_count(), event, how.accuracy_floor)
    row.set_floor_count(count)
    if version is not None and not deps.recorded.has_answered(event.meta.id):
        state = state_of(deps.session, row, spec)
        decision = core.after_floor(event, event.meta.id, version, state, spec)
        yield _answer(deps, row, decision, spec, event.meta)


def on_training_cancel_requested(
    event: TrainingCancelRequested, deps: Deps
) -> Iterator[Event]:
    """End a job that waits or runs, and let the one that waited for it start."""
    row = _row(deps, event.pipeline)
    if deps.recorded.has_answered(event.meta.id):
        return
    job = deps.session.get(TrainerJob, event.job_id, with_for_update=True)
    is_known = job is not None and job.pipeline == event.pipeline
    refusal = core.cancel_refusal(job.state if job and is_known else None)
    if job is None or refusal:
        reason, detail = refusal or core.UNKNOWN_JOB
        yield TrainingCancelRefused(
            pipeline=event.pipeline,
            job_id=event.job_id,
            requested_by=event.requested_by,
            reason=reason,
            detail=detail,
        )
        return
    yield from _cancelled(deps, row, job, (event.requested_by, event.reason), event)


def _cancelled(
    deps: Deps,
    row: TrainerPipeline,
    job: TrainerJob,
    why: tuple[str, str],
    origin: Event,
) -> Iterator[Event]:
    """End a job for a person's reason, and let the one that waited for it start."""
    by, reason = why
    job.state = "cancelled"
    job.error = core.cancelled_text(by, reason)
    recheck = deps.recheck
    listen(deps.session, "after_commit", lambda _: recheck.set())
    yield TrainingCancelled(
        pipeline=row.name,
        job_id=job.id,
        trigger=job.asked().trigger,
        cancelled_by=by,
        reason=reason,
    )
    deps.session.flush()
    applied = deps.pipelines.get(row.name)
    if applied:
        spec = applied.spec
        yield from _measure_given(deps, row.name, spec)
        follow_up = core.after_job(state_of(deps.session, row, spec), spec)
        if follow_up:
            yield _start(deps, row, follow_up, spec, origin.meta)


def on_verdict_overruled(event: VerdictOverruled, deps: Deps) -> Iterator[Event]:
    """Train where a person says that this is the cure; call off where it is none.

    A job of the overruled verdict that waits or runs is cancelled, and a trigger that
    waits is dropped. A model that came of it is the registry's to speak of. The next
    training reads the rows of a fault that was none, and not those of one that is.
    """
    spec = deps.pipeline(event.pipeline)
    row = _row(deps, event.pipeline)
    row.set_told_faults(row.told_faults().with_ruling(event))
    if core.is_called_off(event):
        kept = row.kept()
        if kept and kept.trigger.event_id == event.verdict_id:
            row.pending = None
        why = f"its verdict was overruled ({event.cause}): {event.reason}"
        for job in open_jobs(deps.session, event.pipeline):
            if job.asked().trigger.event_id == event.verdict_id:
                yield from _cancelled(deps, row, job, (event.overruled_by, why), event)
    if event.cause in FAULTS and event.verdict_cause not in FAULTS:
        yield from _read_meanwhile(deps, row, event.verdict_id, spec)
    if deps.recorded.has_answered(event.meta.id):
        return
    state = state_of(deps.session, row, spec)
    decision = core.after_overruling(event, event.meta.id, state, spec)
    if decision:
        yield _answer(deps, row, decision, spec, event.meta)


def on_model_submitted(event: ModelSubmitted, deps: Deps) -> Iterator[Event]:
    """Take a model that was made elsewhere; measure it once that is possible."""
    spec = deps.pipeline(event.pipeline)
    _row(deps, event.pipeline)
    waiting.take(deps.session, event)
    yield from _given_models(deps, event.pipeline, spec)


def _measure_given(deps: Deps, pipeline: str, spec: PipelineSpec) -> Iterator[Event]:
    """Store the next job for a model that waits to be measured."""
    yield from _rounds(deps).measure(pipeline, spec)
    yield from _given_models(deps, pipeline, spec)


def _given_models(deps: Deps, pipeline: str, spec: PipelineSpec) -> Iterator[Event]:
    session, wake = deps.session, deps.wake
    yield from waiting.measure(session, wake, pipeline, spec, deps.recorded)


def _rounds(deps: Deps) -> Rounds:
    return Rounds(deps.session, deps.wake, deps.recorded)


def on_federation_requested(event: FederationRequested, deps: Deps) -> Iterator[Event]:
    """Open the first round for sites, or say why not."""
    spec = deps.pipeline(event.pipeline)
    _row(deps, event.pipeline)
    yield from _rounds(deps).request(event, spec)


def on_federated_update_submitted(
    event: FederatedUpdateSubmitted, deps: Deps
) -> Iterator[Event]:
    """Take a site's update; the last one wanted closes the round."""
    spec = deps.pipeline(event.pipeline)
    yield from _rounds(deps).submit(event, spec)


def on_model_deployed(event: ModelDeployed, deps: Deps) -> Iterator[Event]:
    """Remember the champion that the next candidate is compared with."""
    served = ServedModel(version=event.version, package=event.package)
    _set_champion(deps, event, served)
    yield from ()


def on_model_rolled_back(event: ModelRolledBack, deps: Deps) -> Iterator[Event]:
    """Make the restored version the champion again, or know that there is none."""
    _set_champion(deps, event, event.restored)
    yield from ()


def _set_champion(
    deps: Deps, event: ModelDeployed | ModelRolledBack, served: ServedModel | None
) -> None:
    """Two topics have no common order; the generation gives it."""
    row = _row(deps, event.pipeline)
    if event.generation < row.generation:
        raise Skip("older_generation")
    row.generation = event.generation
    row.champion = served.model_dump_json() if served else None


def _row(deps: Deps, pipeline: str) -> TrainerPipeline:
    """Return a pipeline's row; a new one begins with what the log says of its jobs.

    Raises
    ------
    Retry
        When the log says something and the pipeline is not applied.
    """
    is_new = deps.session.get(TrainerPipeline, pipeline) is None
    row = pipeline_row(deps.session, pipeline)
    if is_new and told.is_known(deps.recorded, pipeline):
        told.restore(deps.session, row, deps.pipeline(pipeline), deps.recorded)
    return row


def _start(
    deps: Deps,
    row: TrainerPipeline,
    decision: core.Start,
    spec: PipelineSpec,
    origin: Meta,
) -> Event:
    wake = deps.wake
    listen(deps.session, "after_commit", lambda _: wake.set())
    return accept(deps.session, row, decision, spec, origin)


def _answer(
    deps: Deps,
    row: TrainerPipeline,
    decision: core.Start | core.SkipWith,
    spec: PipelineSpec,
    origin: Meta,
) -> Event:
    if isinstance(decision, core.Start):
        return _start(deps, row, decision, spec, origin)
    before = last_job(deps.session, row.name)
    waits = None
    if decision.keep:
        row.keep(decision.keep, Origin.model_validate(chain_of(origin)))
        waits = WaitingTrigger(
            since=decision.keep.since, newest_job=before.id if before else None
        )
    return TrainingSkipped(
        pipeline=row.name,
        trigger=decision.trigger,
        reason=decision.reason,
        detail=decision.detail,
        covered_by_job=decision.covered_by_job,
        waits=waits,
    )


def accept(
    session: Session,
    row: TrainerPipeline,
    start: core.Start,
    spec: PipelineSpec,
    origin: Meta,
) -> Event:
    """Store a job with all that it depends on, and say so.

    A job for a trigger that waited continues that trigger's chain.
    """
    for kept in (row.kept_for_person(), row.kept()):
        if kept and kept.trigger.event_id == start.trigger.event_id:
            origin = origin_from(kept.origin.model_dump(mode="json"))
    row.asked = None
    kept = row.kept()
    if not core.still_waits(kept.pending() if kept else None, start):
        row.pending = None
    data, job_id = row.data(), core.job_id_of(start.trigger)
    assert data is not None  # noqa: S101 - nothing starts without data
    before = last_job(session, row.name)
    request = JobRequest(
        job_id=job_id,
        trigger=start.trigger,
        spec=spec,
        dataset=data.dataset,
        train_span=start.train_span,
        holdout_span=start.holdout_span,
        champion=row.served(),
        left_out=start.left_out,
    )
    session.add(
        TrainerJob(
            id=job_id,
            pipeline=row.name,
            number=before.number + 1 if before else 1,
            request=request.model_dump_json(),
            origin=Origin.model_validate(chain_of(origin)).model_dump_json(),
            data_end=start.data_end.isoformat(),
            label_count=data.label_count,
            champion_version=request.champion.version if request.champion else None,
        )
    )
    started = TrainingStarted(
        pipeline=row.name,
        job_id=job_id,
        trigger=start.trigger,
        dataset=data.dataset,
        train_span=start.train_span,
        holdout_span=start.holdout_span,
        explanation=start.why,
        label_count=data.label_count,
        champion=request.champion,
        left_out=list(start.left_out),
        data_end=start.data_end if start.data_end > start.holdout_span.end else None,
    )
    return started.following(origin) if start.answers_pending else started


HANDLERS: list[handlers.EventHandler] = [
    on_dataset_versioned,
    on_drift_detected,
    on_verdict_overruled,
    on_drift_ended,
    on_performance_measured,
    on_retrain_requested,
    on_training_cancel_requested,
    on_model_submitted,
    on_federation_requested,
    on_federated_update_submitted,
    on_model_deployed,
    on_model_rolled_back,
]
