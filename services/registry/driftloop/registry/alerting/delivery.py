"""Tells people: what is due follows from the log, and what was told is said there.

One thread decides, one replica at a time; each channel that has something to tell is
called by a worker, so a receiver that hangs holds up its own notices alone. Killed
between a call and its record, the same notice goes out again under the same id.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from driftloop.contracts.alerting import Channel
from driftloop.contracts.alerts import AlertDelivered, Outcome
from driftloop.contracts.base import Chain, derived_id, origin_from
from driftloop.registry import metrics
from driftloop.registry.alerting.channels import NotSentError, Sender
from driftloop.registry.alerting.content import content_of, cut
from driftloop.registry.alerting.due import Notice
from driftloop.registry.alerting.seeing import FINAL, Result, Rules, Sight
from driftloop.runtime import database
from driftloop.runtime.database import Outbox, next_offset
from driftloop.runtime.follower import LogSilentError, Partition
from driftloop.runtime.outbox import Cause, OutboxRelay
from driftloop.runtime.replicas import SessionLock
from driftloop.runtime.telemetry import log
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, select

POLL_S = 0.5
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 600.0
WORKERS = 16
"""So many receivers may hang at once before others wait for one of them."""
MAX_SAID = 10_000
MAX_REASON = 500
Key = tuple[str, str]
"""Pipeline and channel."""
logger = log(__name__)


class Call(NamedTuple):
    """A call that a worker has ended; ``error`` None: the receiver has the notice."""

    notice: Notice
    kind: str
    seconds: float
    error: NotSentError | None


@dataclass
class Receiver:
    """How a channel's receiver does; forgotten with the process."""

    failures: int = 0
    not_before: float = 0.0
    is_busy: bool = False
    tried: dict[str, int] = field(default_factory=dict)


@dataclass
class Deliverer:
    """Runs in a thread of its own.

    Attributes
    ----------
    is_ready : whether the pipeline files are read.
    console_url : for links; None: there are none.
    give_up_s : after which a notice that still fails is over.
    ends : next offset of each partition of ``tables.TOPICS``.
    clock : of pauses, in seconds.
    """

    engine: Engine
    outbox: OutboxRelay
    alone: SessionLock
    sight: Sight
    sender: Sender
    is_ready: Callable[[], bool]
    console_url: str | None
    give_up_s: float
    ends: Callable[[], dict[Partition, int]]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    workers: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(WORKERS, "alert")
    )

    def __post_init__(self) -> None:
        self._receivers: dict[Key, Receiver] = {}
        self._ended: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._unsaid: list[Result] = []
        self._said: set[tuple[str, Outcome]] = set()

    def run(self, stopping: threading.Event) -> None:
        """Look and tell, until ``stopping`` is set."""
        try:
            while not stopping.wait(POLL_S):
                try:
                    if not self.alone.take():
                        self.stand_by()
                    elif self.is_ready():
                        self.round()
                except LogSilentError as error:
                    logger.warning("alerts wait", error=str(error))
                except DBAPIError as error:
                    if not database.is_passing(error):
                        raise
                    logger.warning("alerts wait", error="the database is away")
        finally:
            self.workers.shutdown(wait=False, cancel_futures=True)
            self.alone.release()

    def stand_by(self) -> None:
        """Leave it to another replica, also what this one has called and not said."""
        while not self._ended.empty():
            notice = self._ended.get().notice
            self._receiver((notice.alert.pipeline, notice.channel)).is_busy = False
        self._unsaid.clear()

    def round(self) -> None:
        """Say what has become of notices, then call whom it is time to call."""
        self._take_ended()
        self._say()
        now = self.now()
        seen = self.sight.look(now)
        metrics.ALERTS_OPEN.set(seen.open_count)
        metrics.ALERTS_WAITING.set(len(seen.due))
        if not seen.due and not seen.waiting:
            return
        ends = self.ends()
        with Session(self.engine) as session:
            if not _has_read(session, ends):
                return  # what seems due may have been told by a run that was killed
            stored = _stored(session)
        self._unsaid += [one for one in seen.waiting if not self._is_said(one, stored)]
        open_ = [one for one in seen.due if not self._is_ended(one, stored)]
        for key, notices in _by_channel(open_).items():
            self._call_one(notices, self._receiver(key), seen.rules[key[0]], now)
        self._say()

    def _receiver(self, key: Key) -> Receiver:
        return self._receivers.setdefault(key, Receiver())

    # ── calling ─────────────────────────────────────────────────────────────

    def _call_one(
        self, notices: list[Notice], receiver: Receiver, rules: Rules, now: datetime
    ) -> None:
        """Hand a channel's next notice to a worker; give up those that are too old."""
        if receiver.is_busy:
            return
        oldest = now - timedelta(seconds=self.give_up_s)
        for notice in (one for one in notices if one.at < oldest):
            tries = receiver.tried.pop(notice.id, 0)
            why = f"{tries} tries failed" if tries else "it was too old to be told"
            self._unsaid.append(Result(notice, "given_up", tries, why))
        timely = [one for one in notices if one.at >= oldest]
        if not timely or self.clock() < receiver.not_before:
            return
        notice = min(timely, key=lambda n: (receiver.tried.get(n.id, 0), n.at, n.id))
        receiver.is_busy = True
        channel = rules.alerts.channels[notice.channel]
        self.workers.submit(self._call, notice, channel, rules.project)

    def _call(self, notice: Notice, channel: Channel, project: str) -> None:
        """Call a receiver; in a worker, which changes nothing here."""
        began = time.monotonic()
        error: NotSentError | None = None
        try:
            content = content_of(notice, self.console_url)
            self.sender.send(channel, content, project)
        except NotSentError as problem:
            error = problem
        except Exception as bug:
            logger.exception("a notice could not be made", notice=notice.id)
            error = NotSentError(f"{type(bug).__name__}: {bug}", is_final=True)
        seconds = time.monotonic() - began
        self._ended.put(Call(notice, channel.kind, seconds, error))

    def _take_ended(self) -> None:
        """Take note of calls that have ended."""
        while not self._ended.empty():
            notice, kind, seconds, error = self._ended.get()
            metrics.ALERT_CALL_SECONDS.labels(kind).observe(seconds)
            receiver = self._receiver((notice.alert.pipeline, notice.channel))
            receiver.is_busy = False
            tries = receiver.tried.pop(notice.id, 0) + 1
            if error is None:
                receiver.failures, receiver.not_before = 0, 0.0
                self._unsaid.append(Result(notice, "delivered", tries, ""))
                age_s = (self.now() - notice.at).total_seconds()
                metrics.ALERT_DELAY_SECONDS.observe(max(0.0, age_s))
            else:
                self._failed(notice, receiver, tries, error)

    def _failed(
        self, notice: Notice, receiver: Receiver, tries: int, error: NotSentError
    ) -> None:
        pipeline, channel = notice.alert.pipeline, notice.channel
        metrics.ALERT_FAILURES.labels(pipeline, channel).inc()
        logger.warning(
            "a channel did not take an alert",
            pipeline=pipeline,
            channel=channel,
            notice=notice.id,
            tries=tries,
            problem=str(error),
        )
        is_late = (self.now() - notice.at).total_seconds() > self.give_up_s
        if error.is_final or is_late:
            self._unsaid.append(Result(notice, "given_up", tries, str(error)))
            return
        receiver.tried[notice.id] = tries
        receiver.failures += 1
        pause_s = min(FIRST_PAUSE_S * 2 ** (receiver.failures - 1), MAX_PAUSE_S)
        receiver.not_before = self.clock() + pause_s

    # ── saying ──────────────────────────────────────────────────────────────

    def _say(self) -> None:
        """Put into the log what has become of notices."""
        while self._unsaid:
            result = self._unsaid[0]
            self._publish(result)
            pipeline = result.notice.alert.pipeline
            metrics.ALERT_NOTICES.labels(pipeline, result.outcome).inc()
            if len(self._said) > MAX_SAID:
                self._said.clear()  # the log has them, and it is read before a call
            self._said.add((result.notice.id, result.outcome))
            self._unsaid.pop(0)

    def _publish(self, result: Result) -> None:
        notice, alert = result.notice, result.notice.alert
        event = AlertDelivered(
            pipeline=alert.pipeline,
            alert_id=alert.id,
            condition=alert.condition,
            notice_id=notice.id,
            reason=notice.reason,
            number=notice.number,
            channel=notice.channel,
            outcome=result.outcome,
            attempts=result.attempts,
            detail=cut(result.detail, MAX_REASON),
        )
        cause_id = _cause_id(result)
        with self.outbox.unit(Cause(cause_id, Chain(cause_id))) as (_, events):
            events.append(event.following(origin_from(alert.origin)))

    def _is_said(self, result: Result, stored: frozenset[str]) -> bool:
        mark = (result.notice.id, result.outcome)
        return mark in self._said or _event_id(result) in stored

    def _is_ended(self, notice: Notice, stored: frozenset[str]) -> bool:
        results = (Result(notice, outcome, 0, "") for outcome in FINAL)
        return any(self._is_said(result, stored) for result in results)


def _by_channel(notices: Iterable[Notice]) -> dict[Key, list[Notice]]:
    found: dict[Key, list[Notice]] = {}
    for notice in notices:
        found.setdefault((notice.alert.pipeline, notice.channel), []).append(notice)
    return found


def _cause_id(result: Result) -> str:
    """Return what the event's id is made from: said again, it has the same."""
    return derived_id(f"{result.notice.id}/{result.outcome}", "alert-told", 0)


def _event_id(result: Result) -> str:
    return derived_id(_cause_id(result), AlertDelivered.topic(), 0)


def _has_read(session: Session, ends: dict[Partition, int]) -> bool:
    connection = session.connection()
    return all(
        (next_offset(connection, topic, partition) or 0) >= end
        for (topic, partition), end in ends.items()
    )


def _stored(session: Session) -> frozenset[str]:
    """Return ids of what is on its way to the log."""
    query = select(Outbox.event_id).where(Outbox.topic == AlertDelivered.topic())
    return frozenset(session.exec(query).all())
