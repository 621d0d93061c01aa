"""REST: the audit trail, for auditors."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from driftloop.contracts.base import NAME_PATTERN
from driftloop.registry import audit
from driftloop.registry.rest import ApiRouter, Context, Cursor, Limit, Page
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.problems import refusals
from fastapi import HTTPException, Query
from pydantic import AwareDatetime, BaseModel, Field


class AuditEntry(BaseModel):
    """One entry of the trail."""

    position: int
    content: dict[str, Any] = Field(description="who asked for what, and the outcome")
    previous: str = Field(description="hash of the entry before it")
    hash: str


class Wanted(BaseModel):
    """What is looked for in the trail; what is left out matches all."""

    subject: str | None = Field(
        default=None, max_length=200, description="who asked", examples=["ann"]
    )
    action: str | None = Field(
        default=None, max_length=50, description="what for", examples=["approve"]
    )
    pipeline: str | None = Field(default=None, pattern=NAME_PATTERN)
    outcome: Literal["asked", "refused", "answered"] | None = None
    since: AwareDatetime | None = Field(default=None, examples=["2026-11-26T08:00:00Z"])
    until: AwareDatetime | None = Field(default=None, description="and not after")
    limit: Limit = 100
    cursor: Cursor = None

    def has(self, content: Mapping[str, Any]) -> bool:
        """Whether an entry is wanted; one that cannot be read matches nothing."""
        names = {"subject": self.subject, "action": self.action,
                 "about": self.pipeline, "outcome": self.outcome}  # fmt: skip
        if any(value not in (None, content.get(name)) for name, value in names.items()):
            return False
        if self.since is None and self.until is None:
            return True
        try:
            at = datetime.fromisoformat(str(content.get("time")))
            return (self.since or at) <= at <= (self.until or at)
        except (ValueError, TypeError):
            return False


class AuditBreak(BaseModel):
    """Where the trail is not what it was."""

    position: int
    kind: str = Field(examples=["altered"])
    detail: str


class Verification(BaseModel):
    """Whether the trail is whole."""

    whole: bool
    entry_count: int
    anchor_count: int = Field(description="hashes that the log has anchored")
    breaks: list[AuditBreak]


def audit_routes(context: Context) -> GuardedRouter:
    """Return the routes; all take the right to audit, in any project."""
    router = ApiRouter(prefix="/audit", tags=["audit"], dependencies=[needs("audit")])

    @router.get("")
    def entries(wanted: Annotated[Wanted, Query()]) -> Page[AuditEntry]:
        """List the trail from its beginning, or what is wanted of it.

        A page of a search may be empty and yet have a `next_cursor`: so far nothing
        was found.
        """
        with context.session() as session:
            found, following = audit.search(
                session,
                wanted.cursor or 0,
                wanted.limit,
                lambda entry: wanted.has(entry.content),
            )
        items = [
            AuditEntry(
                position=e.position,
                content=dict(e.content),
                previous=e.previous,
                hash=e.hash,
            )
            for e in found
        ]
        return Page(items=items, next_cursor=following)

    @router.get("/verify", responses=refusals({503: "the broker is away"}))
    def verify() -> Verification:
        """Check every hash and anchor of the trail, and that the log says the same."""
        settings = context.settings
        try:
            found = audit.verify(
                context.engine,
                settings.broker,
                settings.kafka_config,
                context.requests.store,
            )
        except audit.LogUnreadError as error:
            raise HTTPException(503, str(error)) from error
        return Verification(
            whole=not found.breaks,
            entry_count=found.entry_count,
            anchor_count=found.anchor_count,
            breaks=[AuditBreak(**each.as_json()) for each in found.breaks],
        )

    return router
