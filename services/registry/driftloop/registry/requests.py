"""REST writes: published as events, and waited for until they are applied."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from driftloop.contracts.base import EVENT_NAMESPACE, Chain, Event, Meta
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.telemetry import continuing_traceparent, traceparent_of
from driftloop.runtime.transport import Publisher
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace import get_current_span as current_span

SOURCE = "/driftloop/registry/api"
PUBLISH_TIMEOUT_S = 10.0
POLL_S = 0.05
T = TypeVar("T")


@dataclass(frozen=True)
class Requests:
    """Publishes what people ask for."""

    publisher: Publisher
    store: ArtifactStore
    tracer: Tracer

    def publish(self, event: Event, event_id: str, origin: Meta | None = None) -> Meta:
        """Publish an event; return once the broker has it.

        Parameters
        ----------
        event_id : see :func:`id_of`.
        origin : the event whose chain goes on; None: a chain begins here.

        Raises
        ------
        PublishError
            When the broker does not acknowledge it; it may be asked for again.
        """
        if origin is None:
            name = f"create {event.topic()}"
            span = self.tracer.start_span(name, kind=SpanKind.PRODUCER)
            chain = Chain(event_id, traceparent_of(span))
            span.end()
        else:
            trigger = current_span().get_span_context()
            parent = continuing_traceparent(self.tracer, event.topic(), origin, trigger)
            chain = Chain(origin.chain.id, parent)
        meta = Meta(
            id=event_id,
            time=datetime.now(UTC),
            source=SOURCE,
            chain=chain,
            causation_id=origin.id if origin else None,
        )
        self.publisher.publish([encode(event, meta, self.store)], PUBLISH_TIMEOUT_S)
        return meta


def id_of(event: Event, key: str | None) -> str:
    """Return an event id: fresh, or derived from the caller's ``Idempotency-Key``.

    The same key and content give the same id, so that a repeat has no second effect.
    """
    if key is None:
        return str(uuid.uuid4())
    name = f"{key}/{event.topic()}/{event.model_dump_json()}"
    return str(uuid.uuid5(EVENT_NAMESPACE, name))


def wait_for(look: Callable[[], T | None], timeout_s: float) -> T | None:
    """Look again and again until something is found; None: not in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)
