"""A service's own handlers in this process, on a database in memory.

The same list of handlers that runs on Kafka; ids derive from causes as the runtime
derives them. What is missing is the bus, and the time that things take.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from driftloop.contracts.base import Chain, Event, Meta, numbered
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import Deps, EventHandler, handler_table
from driftloop.runtime.state import StateView
from sqlmodel import Session, SQLModel

SOURCE = "/driftloop/backtest"


def meta_of(event_id: str, time: datetime, cause: Meta | None = None) -> Meta:
    """Return the origin of an event at a moment of the simulated time."""
    chain = cause.chain if cause else Chain(event_id)
    return Meta(event_id, time, SOURCE, chain, cause.id if cause else None)


def caused(events: Sequence[Event], cause: Meta) -> list[Event]:
    """Give events their ids, time and chain, as the runtime does on storing them."""
    return [
        event.with_meta(meta_of(event_id, cause.time, event.follows or cause))
        for event_id, event in numbered(events, cause.id)
    ]


def applied(spec: PipelineSpec) -> StateView[PipelineApplied]:
    """Return the view of applied pipelines that handlers look at."""
    event = PipelineApplied(pipeline=spec.name, spec=spec, applied_by="backtest")
    return StateView(PipelineApplied, {spec.name: event})


class InProcess:
    """One service's handlers."""

    def __init__(
        self,
        handlers: Sequence[EventHandler],
        tables: Sequence[type[SQLModel]],
        make_deps: Callable[[Session], Deps],
    ) -> None:
        self._engine = open_database("sqlite://", tables)
        self.session = Session(self._engine, expire_on_commit=False)
        self._deps: Any = make_deps(self.session)
        self._handlers = handler_table(handlers).by_topic

    def take(self, event: Event) -> list[Event]:
        """Handle an event in one transaction and return what is told, with origins."""
        handler = self._handlers.get(event.topic())
        if handler is None:
            return []
        try:
            told = list(handler(event, self._deps))
        except Skip:
            told = []
        self.session.commit()
        return caused(told, event.meta)

    def close(self) -> None:
        self.session.close()
        self._engine.dispose()
