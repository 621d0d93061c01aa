"""REST: erasures, the models that they affect, and what people decide about them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from driftloop.contracts.base import NAME_PATTERN, origin_from
from driftloop.contracts.events import (
    ErasureCompleted,
    ErasureSettled,
    SettledModel,
    TracedVersion,
)
from driftloop.registry.erasures import tables
from driftloop.registry.erasures.settling import State, objection
from driftloop.registry.erasures.tables import RegistryErasure
from driftloop.registry.requests import id_of
from driftloop.registry.rest import (
    MAX_NUMBER,
    ApiRouter,
    Context,
    Cursor,
    Key,
    Limit,
    Page,
    later,
    page_of,
)
from driftloop.registry.tables import utc
from driftloop.registry.writes import LATER, SPOKEN_FOR, Text
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel, Field
from sqlmodel import Session

MAX_VERSIONS = 1000
ErasureId = Annotated[
    str,
    Path(max_length=200, examples=["0b7d9c1e-4a55-4c58-9d53-7f1f7f0f8a11"]),
]


class AffectedModel(BaseModel):
    """A model that has seen the subject's rows."""

    version: int
    state: State
    decision: str | None = Field(description="retrain or waive; null: none yet")
    by: str | None
    reason: str | None
    settled: SettledModel | None


class Erasure(BaseModel):
    """What was destroyed, what it affects, and how far that is settled."""

    erasure_id: str
    pipeline: str
    subject: str = Field(description="keyed hash of the person's id")
    requested_by: str
    erased_at: datetime
    key_count: int
    token_count: int
    payload_count: int
    datasets: list[TracedVersion]
    models: list[AffectedModel]
    open_trainings: list[str] = Field(
        description="that read such versions and have not ended"
    )
    is_completed: bool
    proof: ErasureCompleted | None


class SettleBody(BaseModel):
    """What becomes of which models, and why; who says so, the credential says."""

    versions: list[Annotated[int, Field(ge=1, le=MAX_NUMBER)]] = Field(
        min_length=1, max_length=MAX_VERSIONS, examples=[[3]]
    )
    decision: Literal["retrain", "waive"] = Field(examples=["waive"])
    by: Text | None = Field(default=None, description=SPOKEN_FOR, examples=["ann"])
    reason: Text = Field(examples=["not served any more"])


def erasure_routes(context: Context) -> GuardedRouter:
    """Return the routes about erasures."""
    router = ApiRouter(prefix="/erasures", tags=["erasures"])

    @router.get("", dependencies=[needs("read")])
    def erasures(
        who: AskedBy,
        pipeline: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Page[Erasure]:
        """List erasures, newest first."""
        with context.session() as session:
            rows = tables.erasures_of(session, pipeline)[::-1]
            names = set(who.readable({row.pipeline for row in rows}))
            rows = [row for row in rows if row.pipeline in names]
            page, following = page_of(rows, limit, cursor)
            items = [_view(session, row) for row in page]
        return Page(items=items, next_cursor=following)

    @router.get("/{erasure_id}", dependencies=[needs("read")])
    def erasure(who: AskedBy, erasure_id: ErasureId) -> Erasure:
        """Show an erasure, the models that it affects, and its proof."""
        with context.session() as session:
            row = _row(session, erasure_id)
            who.check("read", row.pipeline)
            return _view(session, row)

    @router.post(
        "/{erasure_id}/settle",
        response_model=Erasure,
        responses=LATER,
        dependencies=[needs("settle")],
    )
    def settle(
        who: AskedBy, erasure_id: ErasureId, body: SettleBody, key: Key = None
    ) -> Any:
        """Say of affected models that they are trained anew, or may stay."""
        with context.session() as session:
            row = _row(session, erasure_id)
            who.check("settle", row.pipeline)
            event = ErasureSettled(
                pipeline=row.pipeline,
                erasure_id=erasure_id,
                versions=body.versions,
                decision=body.decision,
                by=who.named(body.by),
                reason=body.reason,
            )
            event_id = id_of(event, key)
            if not tables.is_settled_by(session, event_id):  # else it is a repeat
                _check(session, row, body)
            origin = origin_from(row.origin)
        meta = context.publish(event, event_id, origin)

        def applied() -> Erasure | None:
            with context.session() as session:
                if not tables.is_settled_by(session, meta.id):
                    return None
                return _view(session, _row(session, erasure_id))

        location = f"/api/v1/erasures/{erasure_id}"
        return context.wait(applied) or later(meta, location)

    return router


def _check(session: Session, row: RegistryErasure, body: SettleBody) -> None:
    """Refuse what would change nothing, before it is published."""
    if row.completed is not None:
        raise HTTPException(409, "the erasure is completed; nothing is left to decide")
    problem = objection(tables.standing(session, row), body.versions)
    if problem:
        raise HTTPException(409, problem)


def _row(session: Session, erasure_id: str) -> RegistryErasure:
    row = session.get(RegistryErasure, erasure_id)
    if row is None:
        raise HTTPException(
            404, f"no erasure {erasure_id!r}; GET /api/v1/erasures lists them"
        )
    return row


def _view(session: Session, row: RegistryErasure) -> Erasure:
    traced = row.event()
    standing = tables.standing(session, row)
    proof = ErasureCompleted.model_validate(row.completed) if row.completed else None
    return Erasure(
        erasure_id=row.erasure_id,
        pipeline=row.pipeline,
        subject=traced.subject,
        requested_by=traced.requested_by,
        erased_at=utc(traced.erased_at),
        key_count=traced.key_count,
        token_count=traced.token_count,
        payload_count=traced.payload_count,
        datasets=traced.versions,
        models=[
            AffectedModel(
                version=model.version,
                state=model.state,
                decision=model.decision.decision if model.decision else None,
                by=model.decision.by if model.decision else None,
                reason=model.decision.reason if model.decision else None,
                settled=model.settled,
            )
            for model in standing.models
        ],
        open_trainings=list(standing.open_jobs),
        is_completed=proof is not None,
        proof=proof,
    )
