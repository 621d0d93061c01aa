"""REST: comments on anything; each change is an event, and stays in the history."""

from datetime import datetime
from typing import Annotated, Any, Literal

from driftloop.contracts.base import Meta, origin_from
from driftloop.contracts.events import MAX_COMMENT_CHARACTERS, CommentChanged
from driftloop.registry.comments import tables
from driftloop.registry.comments.things import ABOUT_PATTERN, HOW, thing_of
from driftloop.registry.comments.thread import Comment
from driftloop.registry.requests import id_of
from driftloop.registry.resources.listing import (
    After,
    Id,
    Listed,
    Place,
    cut,
    place_of,
)
from driftloop.registry.rest import ApiRouter, Context, Key, Limit, Name, later
from driftloop.registry.writes import LATER, SPOKEN_FOR, Text
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Query
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import Session

Words = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=MAX_COMMENT_CHARACTERS
    ),
]
About = Annotated[str, StringConstraints(pattern=ABOUT_PATTERN)]
OF_COMMENTS: dict[str, Any] = {
    "responses": LATER,
    "dependencies": [needs("comment", personal=True)],
}


class WordsBody(BaseModel):
    """What is said; who says it, the credential says."""

    text: Words = Field(
        description="Markdown; kept and given back as it is, never as HTML",
        examples=["The **holiday** rows look thin."],
    )
    by: Text | None = Field(default=None, description=SPOKEN_FOR, examples=["ann"])


class CommentBody(WordsBody):
    """What is said, and about what."""

    about: About = Field(description=HOW, examples=["model/3"])


class Wording(BaseModel):
    """What was written when."""

    event_id: str
    at: datetime
    change: Literal["added", "edited", "deleted"]
    text: str
    by: str


class ShownComment(BaseModel):
    """A comment as it is now, and all that it was."""

    comment_id: str
    pipeline: str = Field(examples=["bike-demand"])
    about: str = Field(examples=["model/3"])
    text: str = Field(description="empty: taken back; the history keeps it")
    by: str = Field(examples=["ann"])
    added_at: datetime
    changed_at: datetime
    is_deleted: bool
    history: list[Wording] = Field(description="oldest first")


def comment_routes(context: Context) -> GuardedRouter:
    """Return the routes about comments."""
    router = ApiRouter(prefix="/pipelines/{pipeline}/comments", tags=["comments"])
    _read_routes(router, context)
    _write_routes(router, context)
    return router


def _read_routes(router: GuardedRouter, context: Context) -> None:
    @router.get("", dependencies=[needs("read")])
    def comments(
        pipeline: Name,
        about: Annotated[
            About | None, Query(description=f"default: all; {HOW}")
        ] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[ShownComment]:
        """List what people wrote about a pipeline and all that is its, newest first."""
        after = place_of(cursor)
        with context.session() as session:
            context.ledger(session, pipeline)
            thing = thing_of(context, session, pipeline, about) if about else ()
            found = tables.comments_about(session, pipeline, *thing)
        places = [(Place(one.history[0].at, one.comment_id), one) for one in found]
        return cut(places, limit, after, lambda one: _view(pipeline, one))

    @router.get("/{comment_id}", dependencies=[needs("read")])
    def comment(pipeline: Name, comment_id: Id) -> ShownComment:
        """Show a comment with its history."""
        with context.session() as session:
            return _view(pipeline, _comment(session, pipeline, comment_id))


def _write_routes(router: GuardedRouter, context: Context) -> None:
    @router.post("", response_model=ShownComment, **OF_COMMENTS)
    def add(pipeline: Name, body: CommentBody, who: AskedBy, key: Key = None) -> Any:
        """Write a comment on a pipeline, or on something that is its."""
        with context.session() as session:
            context.ledger(session, pipeline)
            kind, which = thing_of(context, session, pipeline, body.about)
        event = CommentChanged(
            pipeline=pipeline,
            change="added",
            kind=kind,
            which=which,
            text=body.text,
            by=who.named(body.by),
        )
        return _publish(context, event, key)

    @router.put("/{comment_id}", response_model=ShownComment, **OF_COMMENTS)
    def edit(
        pipeline: Name,
        comment_id: Id,
        body: WordsBody,
        who: AskedBy,
        key: Key = None,
    ) -> Any:
        """Write one's own comment anew."""
        by = who.named(body.by)
        event = _changed(context, pipeline, comment_id, "edited", body.text, by)
        return _publish(context, event, key)

    @router.delete("/{comment_id}", response_model=ShownComment, **OF_COMMENTS)
    def delete(
        pipeline: Name,
        comment_id: Id,
        who: AskedBy,
        by: Annotated[Text | None, Query(description=SPOKEN_FOR)] = None,
        key: Key = None,
    ) -> Any:
        """Take one's own comment back; whoever governs the pipeline may, too."""
        name = who.named(by)
        may_any = who.guard.allows(who.caller, "govern", pipeline)
        event = _changed(
            context, pipeline, comment_id, "deleted", "", name, is_host=may_any
        )
        return _publish(context, event, key)


def _changed(
    context: Context,
    pipeline: str,
    comment_id: str,
    change: Literal["edited", "deleted"],
    text: str,
    by: str,
    *,
    is_host: bool = False,
) -> CommentChanged:
    """Return the event that changes a comment.

    Raises
    ------
    HTTPException
        404 when there is none, 409 when it was taken back, 403 when it is another's.
    """
    with context.session() as session:
        known = _comment(session, pipeline, comment_id)
    if known.is_deleted and change == "edited":
        raise HTTPException(409, "the comment was taken back; write a new one")
    if known.by != by and not is_host:
        raise HTTPException(403, f"the comment is {known.by}'s, not {by}'s")
    return CommentChanged.model_validate(
        {
            "pipeline": pipeline,
            "comment_id": comment_id,
            "change": change,
            "kind": known.kind,
            "which": known.which,
            "text": text,
            "by": by,
        }
    )


def _publish(context: Context, event: CommentChanged, key: str | None) -> Any:
    with context.session() as session:
        origin = _origin(context, session, event)
    meta = context.publish(event, id_of(event, key), origin)
    comment_id = event.comment_id or meta.id

    def applied() -> ShownComment | None:
        with context.session() as session:
            if not tables.is_noted(session, meta.id):
                return None
            known = _comment(session, event.pipeline, comment_id)
            return _view(event.pipeline, known)

    location = f"/api/v1/pipelines/{event.pipeline}/comments/{comment_id}"
    return context.wait(applied) or later(meta, location)


def _origin(context: Context, session: Session, event: CommentChanged) -> Meta | None:
    """Return whose chain a comment belongs to: that of the version it is about."""
    if event.kind not in ("model", "approval"):
        return None
    return origin_from(
        context.version(session, event.pipeline, int(event.which)).origin
    )


def _comment(session: Session, pipeline: str, comment_id: str) -> Comment:
    known = tables.comment(session, pipeline, comment_id)
    if known is None:
        raise HTTPException(
            404,
            f"{pipeline} has no comment {comment_id!r}; GET "
            f"/api/v1/pipelines/{pipeline}/comments lists them",
        )
    return known


def _view(pipeline: str, known: Comment) -> ShownComment:
    return ShownComment(
        comment_id=known.comment_id,
        pipeline=pipeline,
        about=f"{known.kind}/{known.which}",
        text=known.text,
        by=known.by,
        added_at=known.history[0].at,
        changed_at=known.history[-1].at,
        is_deleted=known.is_deleted,
        history=[
            Wording.model_validate(each, from_attributes=True) for each in known.history
        ],
    )
