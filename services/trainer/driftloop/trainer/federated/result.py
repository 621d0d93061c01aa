"""From the last round's weights to the job that makes a candidate of them."""

import json

from driftloop.contracts.base import Event
from driftloop.contracts.events import FederationRequested, Trigger
from driftloop.contracts.events import TrainingStarted as Started
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import core
from driftloop.trainer.federated.tables import Federation
from driftloop.trainer.request import FederatedResult, JobRequest
from driftloop.trainer.tables import TrainerJob, last_job, pipeline_row
from sqlmodel import Session


def job_of(session: Session, row: Federation, spec: PipelineSpec) -> Event | None:
    """Store the job that makes a candidate of a federation, and say so.

    None while the pipeline has too few labelled rows of its own to measure it on, or
    another job of it waits or runs.

    For the policy it is as if the job had learned nothing: it counts from the data of
    the job before, since the pipeline's own rows were not learned from.
    """
    pipeline = pipeline_row(session, row.pipeline)
    data, before = pipeline.data(), last_job(session, row.pipeline)
    if data is None or data.labelled is None or data.label_count < spec.train.min_rows:
        return None
    if before is not None and before.state in core.OPEN_STATES:
        return None
    trigger = Trigger(
        event_id=row.request_id,
        event_type=FederationRequested.topic(),
        reason="federated",
        requested_by=row.requested_by,
    )
    train_span, holdout_span = core.plan(data.labelled, spec.train)
    request = JobRequest(
        job_id=core.job_id_of(trigger),
        trigger=trigger,
        spec=spec,
        dataset=data.dataset,
        train_span=train_span,
        holdout_span=holdout_span,
        champion=pipeline.served(),
        federated=FederatedResult(
            federation_id=row.id,
            rounds=row.number,
            sites=json.loads(row.sites),
            row_count=row.row_count,
            encoding=row.encoded(),
            weights=json.loads(row.weights),
        ),
    )
    champion = request.champion.version if request.champion else None
    session.add(
        TrainerJob(
            id=request.job_id,
            pipeline=row.pipeline,
            number=before.number + 1 if before else 1,
            request=request.model_dump_json(),
            origin=row.origin,
            data_end=before.data_end if before else data.labelled.start.isoformat(),
            label_count=before.label_count if before else 0,
            champion_version=before.champion_version if before else champion,
        )
    )
    started = Started(
        pipeline=row.pipeline,
        job_id=request.job_id,
        trigger=trigger,
        dataset=data.dataset,
        train_span=train_span,
        holdout_span=holdout_span,
    )
    return started.following(row.meta())
