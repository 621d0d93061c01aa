"""From the last round's weights to the job that makes a candidate of them."""

import json

from driftloop.contracts.base import Event
from driftloop.contracts.events import FederationRequested, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import core, given
from driftloop.trainer.federated.tables import Federation
from driftloop.trainer.request import FederatedResult
from sqlmodel import Session


def _trigger_of(row: Federation) -> Trigger:
    return Trigger(
        event_id=row.request_id,
        event_type=FederationRequested.topic(),
        reason="federated",
        requested_by=row.requested_by,
    )


def job_id_of(row: Federation) -> str:
    """Return the id of the job that measures a federation's model."""
    return core.job_id_of(_trigger_of(row))


def job_of(session: Session, row: Federation, spec: PipelineSpec) -> Event | None:
    """Store the job that measures a federation's model; see :func:`given.job_of`."""
    found = FederatedResult(
        federation_id=row.id,
        rounds=row.number,
        sites=json.loads(row.sites),
        row_count=row.row_count,
        encoding=row.encoded(),
        weights=json.loads(row.weights),
    )
    trigger, job_id = _trigger_of(row), job_id_of(row)
    return given.job_of(session, spec, trigger, job_id, row.origin, found)
