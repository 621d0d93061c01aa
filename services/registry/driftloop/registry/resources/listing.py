"""Lists, newest first, over the pipelines that the caller may read, page by page.

A page begins after the last item of the page before, named by its time and id: what
comes in meanwhile neither shifts nor repeats what was not seen yet.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from driftloop.contracts.base import NAME_PATTERN
from driftloop.registry import tables
from driftloop.registry.digests import bytewise
from driftloop.registry.rest import Context
from driftloop.runtime.identity.routing import Who
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import Session, col, select

OfPipeline = Annotated[
    str | None,
    Query(
        pattern=NAME_PATTERN,
        description="default: every pipeline that you may read",
        examples=["bike-demand"],
    ),
]
After = Annotated[
    str | None,
    Query(
        alias="cursor",
        max_length=600,
        description="`next_cursor` of the page before",
    ),
]
Id = Annotated[str, Path(max_length=200, pattern=r"^[!-~]+$")]
T = TypeVar("T")


class Listed(BaseModel, Generic[T]):
    """A part of a list; ``next_cursor`` asks for the part after it."""

    items: list[T]
    next_cursor: str | None = Field(default=None, description="null: this is the end")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an item is in a list: by time, then by id."""

    at: datetime
    id: str

    def cursor(self) -> str:
        """Return the place as text for a caller to send back."""
        text = json.dumps([self.at.isoformat(), self.id])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> Place | None:
    """Return the place after which a page begins; None: at the newest.

    Raises
    ------
    HTTPException
        422 when it is no cursor of a page.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        at, name = json.loads(base64.b64decode(padded, b"-_", validate=True))
        if not isinstance(name, str) or "\0" in name:
            raise ValueError("no id")
        return Place(tables.utc(datetime.fromisoformat(at)), name)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise HTTPException(
            422, "cursor: send the next_cursor of the page before, or leave it out"
        ) from error


def scope(
    context: Context, session: Session, who: Who, pipeline: str | None
) -> list[str]:
    """Return the pipelines that a list is about.

    Raises
    ------
    HTTPException
        403 for a pipeline that the caller may not read, 404 for one that is none.
    """
    if pipeline is not None:
        who.check("read", pipeline)
        context.ledger(session, pipeline)
        return [pipeline]
    return who.readable({*context.pipelines, *tables.pipelines_of(session)})


def newest(
    session: Session,
    table: Any,
    id_column: str,
    wanted: Sequence[ColumnElement[bool]],
    after: Place | None,
    count: int,
) -> list[tuple[Place, Any]]:
    """Return at most ``count`` rows after a place, newest first.

    Parameters
    ----------
    table : a class of rows with a time ``at``.
    """
    at = col(table.at)
    name = bytewise(session.connection(), col(getattr(table, id_column)))
    query = select(table).where(*wanted)
    if after is not None:
        is_later = or_(at < after.at, and_(at == after.at, name < after.id))
        query = query.where(is_later)
    rows = session.exec(query.order_by(at.desc(), name.desc()).limit(count))
    return [(Place(tables.utc(row.at), getattr(row, id_column)), row) for row in rows]


def cut(
    found: Iterable[tuple[Place, Any]],
    limit: int,
    after: Place | None,
    view: Callable[[Any], T],
) -> Listed[T]:
    """Return a page of what was found, in any order, at or after a place."""
    wanted = [(p, item) for p, item in found if after is None or p < after]
    wanted.sort(key=lambda each: each[0], reverse=True)
    page = wanted[:limit]
    more = page[-1][0].cursor() if len(wanted) > limit else None
    return Listed(items=[view(item) for _, item in page], next_cursor=more)
