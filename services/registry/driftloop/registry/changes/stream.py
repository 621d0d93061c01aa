"""One caller's stream: its own reader of the log, from where the caller left off.

Nothing is kept between callers, so a stream that is cut, or a process that is killed,
costs a caller nothing: the id of the last event says where each partition goes on. A
slow caller holds up its own reader alone, and is cut when it takes nothing.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, Full, Queue

import anyio
from driftloop.contracts.base import Event
from driftloop.contracts.describe import describe
from driftloop.registry.changes.positions import Positions, as_text
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, Field
from starlette.types import Message as Sent
from starlette.types import Receive, Scope, Send

LOOK_S = 0.1
HEARTBEAT_S = 15.0
SEND_TIMEOUT_S = 20.0
"""A caller that takes nothing for so long is cut; its id says where to go on."""
RETRY_MS = 2000
WAITING = 100
"""Messages that wait for one caller, beside what the client library holds."""
SMALL = {"queued.max.messages.kbytes": "1024"}
"""Of what the client library reads ahead, which would be 64 MB a caller."""
logger = log(__name__)


class Change(BaseModel):
    """Something happened; ask the other routes for what is true now."""

    kind: str = Field(description="topic of the event", examples=["model-deployed"])
    pipeline: str = Field(examples=["bike-demand"])
    at: datetime
    event_id: str
    chain_id: str
    position: str = Field(
        description="in the log; `?at=` takes it", examples=["model-deployed/0/17"]
    )
    version: int | None = Field(examples=[3])
    text: str = Field(examples=["v3 answers all requests"])


def change_of(event: Event) -> Change:
    """Return what a caller is told of an event."""
    meta = event.meta
    return Change(
        kind=event.topic(),
        pipeline=event.pipeline,
        at=meta.time,
        event_id=meta.id,
        chain_id=meta.chain.id,
        position=f"{meta.topic}/{meta.partition}/{meta.offset}",
        version=getattr(event, "version", None),
        text=describe(event),
    )


class LogReader:
    """Reads topics from given positions in a thread, as fast as the caller takes."""

    def __init__(
        self, settings: RegistrySettings, topics: Sequence[str], begin: Positions
    ) -> None:
        self._queue: Queue[Message] = Queue(WAITING)
        self._closed = threading.Event()
        self._follower = LogFollower(
            settings.broker,
            topics,
            self._put,
            {**settings.kafka_config, **SMALL},
            lambda topic, partition: begin.get((topic, partition), 0),
        )
        threading.Thread(target=self._follower.run, daemon=True).start()

    def _put(self, message: Message) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(message, timeout=LOOK_S)
            except Full:
                continue
            return

    def next(self) -> Message | None:
        """Return the next message; None: there is none yet."""
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Let the thread end; does not wait for it."""
        self._closed.set()
        self._follower.stop()


@dataclass(frozen=True)
class Listener:
    """What one caller wants, and may have.

    Attributes
    ----------
    pipeline : whose changes are wanted; None: of all.
    may_read : whether the caller may read a pipeline now; an HTTPException where that
        cannot be told.
    still_holds : whether the caller's credential still proves who they are.
    """

    pipeline: str | None
    may_read: Callable[[str], bool]
    still_holds: Callable[[], Awaitable[bool]]

    def is_about(self, message: Message) -> bool:
        """Whether a record is of the pipeline wanted, told by its key, undecoded."""
        return self.pipeline is None or message.key == self.pipeline.encode()


async def told(
    reader: LogReader,
    positions: Positions,
    listener: Listener,
    store: ArtifactStore,
    stopping: threading.Event,
) -> AsyncIterator[bytes]:
    """Yield each change as a server-sent event, and a sign of life now and then.

    Each has the id after which to go on, a sign of life as well.
    """
    yield format_sse_event(comment="hello", id=as_text(positions), retry=RETRY_MS)
    beat = time.monotonic()
    while not stopping.is_set():
        if time.monotonic() - beat >= HEARTBEAT_S:
            if not await listener.still_holds():
                return
            yield format_sse_event(comment="still here", id=as_text(positions))
            beat = time.monotonic()
        message = reader.next()
        if message is None:
            await asyncio.sleep(LOOK_S)
            continue
        try:
            change = await asyncio.to_thread(_change, message, listener, store)
        except (Retry, HTTPException):
            return  # what it takes is away; the caller comes again, to this message
        positions[message.topic, message.partition] = message.offset + 1
        if change is not None:
            data = change.model_dump_json()
            yield format_sse_event(data_str=data, id=as_text(positions))


def _change(
    message: Message, listener: Listener, store: ArtifactStore
) -> Change | None:
    """Return what a record is to a caller; None: nothing."""
    if not listener.is_about(message):
        return None
    try:
        event = decode(message, store)
    except Reject:
        return None  # none of ours
    return change_of(event) if listener.may_read(event.pipeline) else None


class EventStream(StreamingResponse):
    """Server-sent events; a caller that takes none is cut.

    Parameters
    ----------
    close : called once when the stream has ended, however it did.
    """

    media_type = "text/event-stream"

    def __init__(
        self, content: AsyncIterator[bytes], close: Callable[[], None]
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Sent) -> None:
            with anyio.fail_after(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:  # the server closes the connection of an unended answer
            logger.info("a caller that took no changes was cut")
        finally:
            self._close()
