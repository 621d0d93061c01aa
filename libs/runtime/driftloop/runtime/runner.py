"""From a record to stored effects and published events, exactly once in effect.

decode → handler in one transaction with inbox and outbox → publish → acks →
(the driver) commit. Killed anywhere, a repeat finds the inbox row or nothing.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Generic, TypeVar

from driftloop.contracts.base import Event, Meta
from driftloop.runtime import database, metrics
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.database import Attempt
from driftloop.runtime.envelope import Attributes, attributes_of, decode, meta_of
from driftloop.runtime.errors import Reject, Retry, Skip, without_values
from driftloop.runtime.handlers import DeadLetter, Deps, HandlerTable
from driftloop.runtime.outbox import Cause, OutboxRelay, Stopping
from driftloop.runtime.telemetry import log, processing_span
from driftloop.runtime.transport import Message
from opentelemetry.trace import Tracer
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError
from sqlmodel import Session

D = TypeVar("D", bound=Deps)

FIRST_WAIT_S = 0.05
MAX_WAIT_S = 5.0
MAX_RACES = 3
MAX_CRASHES = 3
"""A message that ended the process so often goes to the dead letters."""

logger = log(__name__)


class Runner(Generic[D]):
    """Handles messages of one service; given to a driver as its ``process``."""

    def __init__(
        self,
        service: str,
        handlers: HandlerTable,
        deps: D,
        engine: Engine,
        outbox: OutboxRelay,
        store: ArtifactStore,
        tracer: Tracer,
        retry_limit_s: float = 600,
    ) -> None:
        self._service = service
        self._handlers = handlers
        self._deps = deps
        self._engine = engine
        self._outbox = outbox
        self._store = store
        self._tracer = tracer
        self._retry_limit_s = retry_limit_s
        self._stopping = False
        self._passed: dict[tuple[str, int], int] = {}
        self._passed_lock = threading.Lock()
        self.beats = 0
        """Moved by each attempt; the watchdog tells a wait from a standstill."""
        self.last_error: str | None = None

    def stop(self) -> None:
        """Give up waiting for passing faults; the message in hand stays unhandled."""
        self._stopping = True

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def start_offset(self, topic: str, partition: int) -> int:
        """First offset whose effects are not stored; 0 for an empty database.

        So a database that was dropped is built anew from the log. Asked for when a
        partition is assigned: what its last owner left behind goes out first.
        """
        self._outbox.take_over()
        with self._engine.begin() as connection:
            return database.next_offset(connection, topic, partition) or 0

    def process(self, messages: Sequence[Message]) -> None:
        """Handle messages durably; see :data:`transport.Process`.

        Raises
        ------
        Stopping
            When asked to stop while a passing fault lasts.
        Exception
            A bug: the process must end, the offsets stay.
        """
        by_partition = sorted(messages, key=lambda m: (m.topic, m.partition))
        for (topic, _), group in groupby(
            by_partition, key=lambda m: (m.topic, m.partition)
        ):
            chunk = list(group)
            if self._is_known(chunk):
                continue
            if topic in self._handlers.chunks and not self._has_crashed_on(chunk):
                self._until_done(chunk)
            else:
                for message in chunk:
                    self._until_done([message])

    def _is_known(self, chunk: list[Message]) -> bool:
        """Whether a chunk's effects are all stored; then its position is noted."""
        topic, last = chunk[0].topic, chunk[-1]
        is_known = self._handlers.is_known.get(topic)
        if is_known is None or not all(is_known(m, self._deps) for m in chunk):
            return False
        self.beats += 1
        self._count(topic, "repeat", len(chunk))
        with self._passed_lock:
            self._passed[topic, last.partition] = last.offset + 1
        return True

    def store_positions(self) -> None:
        """Store how far known messages were passed over; to be called now and then.

        What is not stored is passed over, or handled as a repeat, after a restart.
        """
        with self._passed_lock:
            passed, self._passed = self._passed, {}
        if passed:
            with self._engine.begin() as connection:
                for (topic, partition), offset in passed.items():
                    database.advance(connection, topic, partition, offset)

    def _has_crashed_on(self, chunk: list[Message]) -> bool:
        """Whether a chunk's start ended the process before: then one by one."""
        first = chunk[0]
        with Session(self._engine) as session:
            key = (first.topic, first.partition, first.offset)
            return session.get(Attempt, key) is not None

    def _until_done(self, messages: list[Message]) -> None:
        """Try in place until it works: order within a key is kept."""
        started, wait_s, races = time.monotonic(), FIRST_WAIT_S, 0
        while True:
            try:
                self._attempt(messages)
                self.last_error = None
            except Stopping:
                raise
            except Exception as error:
                if isinstance(error, IntegrityError) and races < MAX_RACES:
                    races += 1  # another instance stored it first: see it as done
                    continue
                if not (isinstance(error, Retry) or database.is_passing(error)):
                    if self._is_private(messages[0]):
                        self._end_by_bug(messages[0], error)
                        return
                    if self._crashed(messages[0], error):
                        return
                    raise
                self.last_error = str(error)
                metrics.RETRIES.labels(self._service, messages[0].topic).inc()
                if time.monotonic() - started > self._retry_limit_s:
                    self._set_aside(messages, error)
                    return
                if wait_s >= 1:
                    logger.warning("waiting", topic=messages[0].topic, why=str(error))
                self._wait(wait_s)
                wait_s = min(wait_s * 2, MAX_WAIT_S)
            else:
                return

    def _is_private(self, message: Message) -> bool:
        """Whether nobody may read the message's values: not even in an error."""
        return self._deps.told(message) is not message

    def _end_by_bug(self, message: Message, error: Exception) -> None:
        """Say where a bug is, but not what the message held; see ``Deps.told``."""
        plain = RuntimeError(str(without_values(error)))
        plain = plain.with_traceback(error.__traceback__)
        plain.__suppress_context__ = True
        if not self._crashed(message, plain):
            raise plain from None

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stopping:
                raise Stopping("stopped during a passing fault")
            time.sleep(min(0.1, seconds))

    def _attempt(self, messages: list[Message]) -> None:
        topic, partition = messages[0].topic, messages[0].partition
        started = time.perf_counter()
        self.beats += 1
        try:
            with self._outbox.transaction() as session:
                todo = self._not_done(session, messages)
                if todo:
                    self._handle(session, todo)
                    end = todo[-1].offset + 1
                    database.advance(session.connection(), topic, partition, end)
        except (Reject, DataError) as error:
            # DataError: the message holds what the database cannot, such as a NUL.
            self._set_aside(messages, error)
        metrics.HANDLER_DURATION.labels(self._service, topic).observe(
            time.perf_counter() - started, metrics.exemplar_of(_trace_of(messages[0]))
        )

    def _not_done(self, session: Session, messages: list[Message]) -> list[Message]:
        topic, partition = messages[0].topic, messages[0].partition
        done = database.take_next_offset(session.connection(), topic, partition)
        todo = [message for message in messages if message.offset >= done]
        if len(todo) < len(messages):
            self._count(topic, "repeat", len(messages) - len(todo))
        return todo

    def _handle(self, session: Session, messages: list[Message]) -> None:
        if messages[0].topic in self._handlers.chunks:
            self._handle_chunk(session, messages)
        else:
            self._handle_event(session, messages[0])

    def _handle_event(self, session: Session, message: Message) -> None:
        event = decode(message, self._store)
        meta = event.meta
        metrics.EVENT_AGE.labels(self._service, message.topic).observe(
            max(0.0, time.time() - meta.time.timestamp()),
            metrics.exemplar_of(meta.chain.traceparent),
        )
        with processing_span(self._tracer, self._service, meta) as span:
            if not database.remember(session.connection(), meta.source, meta.id):
                self._count(message.topic, "repeat")
                return
            handler = self._handlers.by_topic[message.topic]
            try:
                events = list(handler(event, replace(self._deps, session=session)))
            except Skip as reason:
                session.rollback()  # of what the handler did before it knew
                database.remember(session.connection(), meta.source, meta.id)
                self._count(message.topic, "skipped")
                span.set_attribute("driftloop.outcome", f"skipped: {reason}")
            else:
                self._outbox.add(session, Cause.of(meta), events)
                self._count(message.topic, "handled")

    def _handle_chunk(self, session: Session, messages: list[Message]) -> None:
        first, last = messages[0], messages[-1]
        meta = _origin_of(self._deps.told(first))
        chunk_id = f"{first.topic}/{first.partition}/{first.offset}-{last.offset}"
        with processing_span(self._tracer, self._service, meta) as span:
            span.set_attribute("messaging.batch.message_count", len(messages))
            deps = replace(self._deps, session=session)
            function = self._handlers.chunks[first.topic]
            events: list[Event] = []
            rejected = 0
            for output in function(messages, deps):
                if isinstance(output, DeadLetter):
                    self._dead_letter(
                        session, output.message, output.error, row=output.row
                    )
                    rejected += output.row is None
                else:
                    events.append(output)
            self._outbox.add(session, Cause(chunk_id, meta.chain), events)
        self._count(first.topic, "handled", len(messages) - rejected)

    def _dead_letter(
        self,
        session: Session,
        message: Message,
        error: Exception,
        attempts: int = 1,
        row: int | None = None,
    ) -> None:
        if self._is_private(message):
            message, error = self._deps.told(message), without_values(error)
        self._outbox.add_dead_letter(session, message, error, attempts, row)
        self._count(message.topic, "dead_lettered")
        logger.error(
            "dead letter",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            row=row,
            reason=str(error),
        )

    def _set_aside(
        self, messages: list[Message], error: Exception, attempts: int = 1
    ) -> None:
        """Put messages to the dead letters and go past them."""
        last = messages[-1]
        with self._outbox.transaction() as session:
            for message in self._not_done(session, messages):
                self._dead_letter(session, message, error, attempts)
            database.advance(
                session.connection(), last.topic, last.partition, last.offset + 1
            )

    def _crashed(self, message: Message, error: Exception) -> bool:
        """Count a bug; True once the message has been put aside because of it."""
        logger.error(
            "handler failed", topic=message.topic, offset=message.offset, exc_info=error
        )
        key = (message.topic, message.partition, message.offset)
        with Session(self._engine) as session:
            row = session.get(Attempt, key) or Attempt(
                topic=key[0], partition=key[1], offset=key[2], count=0
            )
            row.count = count = row.count + 1
            session.add(row)
            session.commit()
        if count < MAX_CRASHES:
            return False
        with suppress(Stopping):
            self._set_aside([message], error, count)
        return True

    def _count(self, topic: str, outcome: str, number: int = 1) -> None:
        metrics.EVENTS_CONSUMED.labels(self._service, topic, outcome).inc(number)


def _trace_of(message: Message) -> str | None:
    found = (value for name, value in message.headers if name == "traceparent")
    return next(found, b"").decode("latin-1") or None


def _origin_of(message: Message) -> Meta:
    """Origin of a record that may be anything."""
    try:
        return meta_of(attributes_of(message), message)
    except Reject:
        return meta_of(Attributes({}, "", None), message)
