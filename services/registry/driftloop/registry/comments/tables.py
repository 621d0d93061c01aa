"""What people wrote: one row an event, in the order of its pipeline's partition."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from driftloop.contracts.events import CommentChanged
from driftloop.registry.comments.thread import Comment, Written, comments_of
from driftloop.registry.ledger import Entry
from driftloop.registry.tables import utc
from sqlmodel import Field, Session, SQLModel, col, select


class RegistryComment(SQLModel, table=True):
    """A comment was added, edited or taken back."""

    __tablename__ = "registry_comment"
    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(unique=True)
    comment_id: str = Field(index=True)
    pipeline: str = Field(index=True)
    kind: str
    which: str
    at: datetime
    change: str
    text: str
    by: str

    def written(self) -> Written:
        return Written(
            event_id=self.event_id,
            comment_id=self.comment_id,
            kind=self.kind,
            which=self.which,
            at=utc(self.at),
            change=self.change,
            text=self.text,
            by=self.by,
        )


TABLES: list[type[SQLModel]] = [RegistryComment]


def note(session: Session, event: CommentChanged) -> None:
    session.add(
        RegistryComment(
            event_id=event.meta.id,
            comment_id=event.comment_id or event.meta.id,
            pipeline=event.pipeline,
            kind=event.kind,
            which=event.which,
            at=event.meta.time,
            change=event.change,
            text=event.text,
            by=event.by,
        )
    )


def is_noted(session: Session, event_id: str) -> bool:
    """Whether a change has been read from the log."""
    query = select(RegistryComment.event_id)
    return (
        session.exec(query.where(RegistryComment.event_id == event_id)).first()
        is not None
    )


def comment(session: Session, pipeline: str, comment_id: str) -> Comment | None:
    """Return a comment with its history; None: there is none."""
    table = RegistryComment
    query = select(table).where(
        table.pipeline == pipeline, table.comment_id == comment_id
    )
    return next(_folded(session.exec(query.order_by(col(table.position)))), None)


def comments_about(
    session: Session,
    pipeline: str,
    kind: str | None = None,
    which: str | None = None,
) -> list[Comment]:
    """Return a pipeline's comments, or those on one thing, newest first."""
    table = RegistryComment
    query = select(table).where(table.pipeline == pipeline)
    if kind is not None:
        query = query.where(table.kind == kind, table.which == which)
    return [*_folded(session.exec(query.order_by(col(table.position))))][::-1]


def _folded(rows: Iterable[RegistryComment]) -> Iterator[Comment]:
    return comments_of(row.written() for row in rows)


def entries_of(
    session: Session, pipeline: str, until: datetime | None = None
) -> list[Entry]:
    """Return what was written about a pipeline, as lines of its history."""
    table = RegistryComment
    rows = session.exec(select(table).where(table.pipeline == pipeline))
    return [
        Entry(
            at=utc(row.at),
            event_id=row.event_id,
            version=int(row.which) if row.kind in ("model", "approval") else None,
            subject="comment",
            before=None,
            after=row.change,
            detail=f"by {row.by} on {row.kind} {row.which}: {row.text}",
        )
        for row in rows
        if until is None or utc(row.at) <= until
    ]
