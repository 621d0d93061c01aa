"""How a service says what it handles: a list of functions, read by annotation."""

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from driftloop.contracts.base import Event
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.errors import Retry
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from sqlmodel import Session


@dataclass(frozen=True)
class Deps:
    """What handlers may use; a service adds fields in its own subclass.

    Attributes
    ----------
    session : the transaction of the message in hand; the runner replaces it for
        each message. Effects written to it and events returned are stored
        together or not at all.
    pipelines : the applied pipelines by name.
    """

    session: Session
    pipelines: StateView[PipelineApplied]

    def pipeline(self, name: str) -> PipelineSpec:
        """Return a pipeline's file as last applied.

        Raises
        ------
        Retry
            When it has not been applied yet: the message waits for it.
        """
        applied = self.pipelines.get(name)
        if applied is None:
            raise Retry(f"pipeline {name!r} is not applied; run: driftloop apply FILE")
        return applied.spec

    def told(self, message: Message) -> Message:
        """Return what of a raw message may stand in dead letters, logs and traces.

        All of it, unless a service knows better: the very message says so.
        """
        return message


@dataclass(frozen=True)
class DeadLetter:
    """What a chunk handler yields for a message, or a row of it, that it cannot use.

    Attributes
    ----------
    row : number of the row in its message, from 1; ``message`` then holds that
        row alone, at the position of the whole. None: the message as it came.
    """

    message: Message
    error: Exception
    row: int | None = None


EventHandler = Callable[[Any, Any], Iterator[Event]]
ChunkHandler = Callable[[Sequence[Message], Any], Iterator[Event | DeadLetter]]
IsKnown = Callable[[Message, Any], bool]
"""Whether a message's effects are stored for certain, told without decoding it."""


@dataclass(frozen=True)
class Chunk:
    """A handler that takes several undecoded messages of one partition at once.

    For the data door, where one message is one row: the runner handles a chunk
    in one transaction and derives ids from its offset range.

    Attributes
    ----------
    is_known : for a service that reads back what it has written itself: chunks of
        known messages are passed over without a transaction. None: none is known.
    """

    topic: str
    function: ChunkHandler
    is_known: IsKnown | None = None


@dataclass(frozen=True)
class HandlerTable:
    """A service's handlers by topic."""

    by_topic: dict[str, EventHandler] = field(default_factory=dict)
    chunks: dict[str, ChunkHandler] = field(default_factory=dict)
    is_known: dict[str, IsKnown] = field(default_factory=dict)

    @property
    def topics(self) -> tuple[str, ...]:
        return (*self.by_topic, *self.chunks)


def event_of(handler: EventHandler) -> type[Event]:
    """Return the event class that a handler's first parameter is annotated with.

    Raises
    ------
    TypeError
        When the function's name and its annotation disagree.
    """
    hints = typing.get_type_hints(handler)
    first = next(iter(inspect.signature(handler).parameters))
    event: type[Event] = hints[first]
    expected = f"on_{event.topic().replace('-', '_')}"
    if handler.__name__ != expected:
        raise TypeError(
            f"{handler.__name__} handles {event.__name__}; call it {expected}"
        )
    return event


def handler_table(handlers: Sequence[EventHandler | Chunk]) -> HandlerTable:
    """Return the table of a service's ``HANDLERS`` list."""
    table = HandlerTable()
    for handler in handlers:
        if isinstance(handler, Chunk):
            table.chunks[handler.topic] = handler.function
            if handler.is_known is not None:
                table.is_known[handler.topic] = handler.is_known
        else:
            table.by_topic[event_of(handler).topic()] = handler
    return table
