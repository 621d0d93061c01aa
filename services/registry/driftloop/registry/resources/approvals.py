"""REST: versions that people were asked about: who may decide, who has."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from driftloop.contracts.pipeline import DEFAULT_PROJECT
from driftloop.registry import tables
from driftloop.registry.ledger import Decision, Ledger, State, objection
from driftloop.registry.resources.listing import (
    After,
    Listed,
    OfPipeline,
    Place,
    cut,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit, Name, Number
from driftloop.registry.tables import RegistryVersion
from driftloop.registry.views import Approval, approvals_view, summary_of
from driftloop.registry.writes import lacks, roles_of
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, Who, needs
from fastapi import HTTPException, Query
from pydantic import BaseModel, Field
from sqlmodel import Session


class AskedApproval(BaseModel):
    """What people were asked, what they said, and what is still needed."""

    pipeline: str = Field(examples=["bike-demand"])
    version: int = Field(examples=[3])
    is_open: bool
    state: State = Field(description="of the version")
    asked_at: datetime = Field(description="for the first time")
    request: int = Field(description="how often people were asked")
    expires_at: datetime | None = Field(description="of the last request")
    role: str = Field(description="that decides", examples=["approver"])
    project: str = Field(description="in which the roles have to hold")
    people: int = Field(description="of the role that have to say yes", examples=[2])
    also: dict[str, int] = Field(
        description="further roles, and how many of each", examples=[{"compliance": 1}]
    )
    needed: int = Field(description="that still have to say yes; 0: none", examples=[2])
    missing: dict[str, int] = Field(
        description="the same by role", examples=[{"approver": 1, "compliance": 1}]
    )
    author: str | None = Field(description="asked for the training; may not approve")
    package_digest: str
    summary: str = Field(
        examples=["mae 31.2 against champion v2 58.9 on 420 hold-out rows"]
    )
    decisions: list[Approval]
    you_may: bool = Field(description="whether the caller may approve it now")
    why_not: str | None = Field(description="null: the caller may")


def approval_routes(context: Context) -> GuardedRouter:
    """Return the routes that show approvals; they change nothing."""
    router = ApiRouter(
        prefix="/approvals", tags=["approvals"], dependencies=[needs("read")]
    )

    @router.get("")
    def approvals(
        who: AskedBy,
        pipeline: OfPipeline = None,
        is_open: Annotated[
            bool | None, Query(alias="open", description="default: both")
        ] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[AskedApproval]:
        """List what people were asked about, newest first."""
        after = place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            found = [
                (Place(row.fact().at, row.event_id), (row, book))
                for name in names
                for row, book in _asked(session, name)
                if is_open in (None, _is_open(row, book))
            ]
            return cut(
                found, limit, after, lambda each: _view(context, session, who, *each)
            )

    @router.get("/{pipeline}/{version}")
    def approval(who: AskedBy, pipeline: Name, version: Number) -> AskedApproval:
        """Show what people were asked about one version."""
        with context.session() as session:
            row = context.version(session, pipeline, version)
            if row.rule is None:
                raise HTTPException(
                    404, f"nobody was asked about version {version} of {pipeline}"
                )
            book = context.ledger(session, pipeline)
            return _view(context, session, who, row, book)

    return router


def _asked(session: Session, pipeline: str) -> Iterator[tuple[RegistryVersion, Ledger]]:
    book = tables.ledger_of(session, pipeline)
    for row in tables.versions_of(session, pipeline):
        if row.rule is not None:
            yield row, book


def _is_open(row: RegistryVersion, book: Ledger) -> bool:
    return book.standings[row.version].state == "awaiting_approval"


def _view(
    context: Context, session: Session, who: Who, row: RegistryVersion, book: Ledger
) -> AskedApproval:
    standing, is_open = book.standings[row.version], _is_open(row, book)
    rule = standing.rule
    assert rule is not None  # noqa: S101 - people were asked
    project, _ = who.guard.project_of(row.pipeline) or (DEFAULT_PROJECT, [])
    why_not = _why_not(context, who, row, book)
    return AskedApproval(
        pipeline=row.pipeline,
        version=row.version,
        is_open=is_open,
        state=standing.state,
        asked_at=row.fact().at,
        request=standing.request,
        expires_at=rule.expires_at,
        role=rule.role,
        project=project,
        people=rule.people,
        also=dict(rule.also),
        needed=sum(standing.missing.values()),
        missing=standing.missing,
        author=row.author,
        package_digest=row.digest,
        summary=summary_of(row),
        decisions=approvals_view(session, row, standing),
        you_may=why_not is None,
        why_not=why_not,
    )


def _why_not(
    context: Context, who: Who, row: RegistryVersion, book: Ledger
) -> str | None:
    """Return why the caller could not approve a version now; None: they could."""
    project, _ = who.guard.project_of(row.pipeline) or (DEFAULT_PROJECT, [])
    if not who.guard.allows(who.caller, "approve", row.pipeline):
        return str(who.caller.refusal("approve", project))
    fact, by, standing = row.fact(), who.named(None), book.standings[row.version]
    roles = roles_of(context, who, row.pipeline, standing.rule, by)
    if not roles:
        return lacks(by, standing.rule)
    yes = Decision(
        version=row.version,
        event_id="",
        at=datetime.now(UTC),
        decision="approve",
        by=by,
        reason="",
        digest=row.digest,
        request=standing.request,
        roles=frozenset(roles),
    )
    return objection(fact, standing, yes)
