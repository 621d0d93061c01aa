"""What an erasure leads to when facts about it, or its models, come."""

from collections.abc import Iterator

from driftloop.contracts.base import Event, origin_from
from driftloop.contracts.events import (
    ErasureCompleted,
    ErasureSettled,
    ErasureTraced,
    RetrainRequested,
    SettlementRequested,
)
from driftloop.registry.erasures import tables
from driftloop.registry.erasures.tables import RegistryErasure
from driftloop.registry.recorded import RecordedVerdicts
from sqlmodel import Session


def take_traced(
    event: ErasureTraced, session: Session, recorded: RecordedVerdicts
) -> Iterator[Event]:
    """Store an erasure; ask people, or close it where no model has seen the rows."""
    row = tables.note_traced(session, event)
    yield from _follow(session, row, recorded)


def take_settled(
    event: ErasureSettled, session: Session, recorded: RecordedVerdicts
) -> Iterator[Event]:
    """Store a decision; a retrain is asked for as anybody would ask for one."""
    tables.note_settled(session, event)
    row = session.get(RegistryErasure, event.erasure_id)
    if event.decision == "retrain" and (row is None or row.completed is None):
        yield RetrainRequested(
            pipeline=event.pipeline,
            requested_by=event.by,
            reason=f"erasure {event.erasure_id}: {event.reason}",
        )
    if row is not None:
        yield from _follow(session, row, recorded)


def follow(
    session: Session, pipeline: str, recorded: RecordedVerdicts
) -> Iterator[Event]:
    """Look at a pipeline's open erasures after one of its trainings went on."""
    for row in tables.erasures_of(session, pipeline):
        if row.completed is None:
            yield from _follow(session, row, recorded)


def _follow(
    session: Session, row: RegistryErasure, recorded: RecordedVerdicts
) -> Iterator[Event]:
    """Say what is new; what the log holds already is not said again."""
    session.flush()
    traced, origin = row.event(), origin_from(row.origin)
    before = recorded.completed_erasure(row.erasure_id)
    if before is not None:
        row.completed = before.model_dump(mode="json")
        return
    standing = tables.standing(session, row)
    asked = {*row.asked, *recorded.asked_erasure(row.erasure_id)}
    new = [version for version in standing.asked() if version not in asked]
    row.asked = sorted(asked | {*new})
    if new:
        yield SettlementRequested(
            pipeline=row.pipeline,
            erasure_id=row.erasure_id,
            subject=traced.subject,
            versions=new,
        ).following(origin)
    if standing.is_settled:
        proof = ErasureCompleted(
            pipeline=row.pipeline,
            erasure_id=row.erasure_id,
            subject=traced.subject,
            requested_by=traced.requested_by,
            erased_at=traced.erased_at,
            key_count=traced.key_count,
            token_count=traced.token_count,
            payload_count=traced.payload_count,
            versions=traced.versions,
            models=[model.settled for model in standing.models if model.settled],
        )
        row.completed = proof.model_dump(mode="json")
        yield proof.following(origin)
