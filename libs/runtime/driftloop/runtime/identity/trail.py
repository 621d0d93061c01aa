"""Notes for the audit trail: before something is done, and what came of it.

Nothing that is to be noted is done without its note: the broker has it before the
request goes on.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.identity import AuditNoted
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.identity.callers import Caller
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Publisher, PublishError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PUBLISH_TIMEOUT_S = 10.0
MAX_PATH_CHARACTERS = 500
NOTE = "audit_note"
"""Where a request's state keeps what was noted."""
logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is noted.

    Attributes
    ----------
    about : the pipeline, where the path names one.
    """

    action: str
    method: str
    path: str
    about: str | None = None
    request_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What was noted before the request went on."""

    event_id: str
    caller: Caller
    asked: Asked


class Trail:
    """Publishes the notes of one service."""

    def __init__(
        self, service: str, publisher: Publisher, store: ArtifactStore
    ) -> None:
        self._service = service
        self._publisher = publisher
        self._store = store

    def note(
        self,
        caller: Caller,
        asked: Asked,
        outcome: Literal["asked", "refused", "answered"],
        status: int | None = None,
        asked_id: str | None = None,
    ) -> Note:
        """Note something; return once the broker has it.

        Raises
        ------
        PublishError
            When it does not take it in time.
        """
        event = AuditNoted(
            subject=caller.subject,
            credential=caller.credential,
            service=self._service,
            action=asked.action,
            about=asked.about,
            method=asked.method,
            path=asked.path[:MAX_PATH_CHARACTERS],
            request_sha256=asked.request_sha256,
            outcome=outcome,
            status=status,
            asked_id=asked_id,
        )
        event_id = str(uuid.uuid4())
        source = f"/driftloop/{self._service}"
        meta = Meta(event_id, datetime.now(UTC), source, Chain(event_id))
        record = encode(event, meta, self._store)
        self._publisher.publish([record], PUBLISH_TIMEOUT_S)
        return Note(event_id, caller, asked)

    def answered(self, note: Note, status: int) -> None:
        """Note the end of a request; without the broker only the log says it."""
        try:
            self.note(note.caller, note.asked, "answered", status, note.event_id)
        except PublishError as error:
            logger.warning(
                "an answer is not noted", asked=note.event_id, error=str(error)
            )


class NotedAnswers:
    """Middleware: notes the status of each answer whose question was noted."""

    def __init__(self, app: ASGIApp, trail: Trail) -> None:
        self._app = app
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def close(status: int) -> None:
            note = state.pop(NOTE, None)
            if note is not None:
                await run_in_threadpool(self._trail.answered, note, status)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                await close(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except BaseException:
            await close(500)
            raise
