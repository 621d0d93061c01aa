"""Jobs for models that are there already: measured, not fitted."""

from driftloop.contracts.base import Event, origin_from
from driftloop.contracts.events import TrainingStarted, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import core
from driftloop.trainer.request import FederatedResult, JobRequest, SubmittedModel
from driftloop.trainer.tables import Origin, TrainerJob, last_job, pipeline_row
from sqlmodel import Session


def job_of(
    session: Session,
    spec: PipelineSpec,
    trigger: Trigger,
    job_id: str,
    origin: str,
    given: FederatedResult | SubmittedModel,
) -> Event | None:
    """Store the job that makes a candidate of a model, and say so.

    None while the pipeline has too few labelled rows of its own to measure it on, or
    another job of it waits or runs.

    For the policy it is as if the job had learned nothing: it counts from the data of
    the job before, since the pipeline's own rows were not learned from.

    Parameters
    ----------
    origin : an :class:`Origin` as JSON, whose chain goes on.
    """
    pipeline = pipeline_row(session, spec.name)
    data, before = pipeline.data(), last_job(session, spec.name)
    if data is None or data.labelled is None or data.label_count < spec.train.min_rows:
        return None
    if before is not None and before.state in core.OPEN_STATES:
        return None
    train_span, holdout_span, left_out = core.read_of(
        data, spec, pipeline.left_out(spec)
    )
    request = JobRequest(
        job_id=job_id,
        trigger=trigger,
        spec=spec,
        dataset=data.dataset,
        train_span=train_span,
        holdout_span=holdout_span,
        champion=pipeline.served(),
        federated=given if isinstance(given, FederatedResult) else None,
        submitted=given if isinstance(given, SubmittedModel) else None,
        left_out=left_out,
    )
    champion = request.champion.version if request.champion else None
    session.add(
        TrainerJob(
            id=job_id,
            pipeline=spec.name,
            number=before.number + 1 if before else 1,
            request=request.model_dump_json(),
            origin=origin,
            data_end=before.data_end if before else data.labelled.start.isoformat(),
            label_count=before.label_count if before else 0,
            champion_version=before.champion_version if before else champion,
        )
    )
    started = TrainingStarted(
        pipeline=spec.name,
        job_id=job_id,
        trigger=trigger,
        dataset=data.dataset,
        train_span=train_span,
        holdout_span=holdout_span,
        label_count=data.label_count,
        champion=request.champion,
        left_out=list(left_out),
    )
    stored = Origin.model_validate_json(origin)
    return started.following(origin_from(stored.model_dump(mode="json")))
