"""Driver on Faust: for services that want its windowed tables beside their work.

Faust's acknowledgements are no safety net: a message left behind un-acked is
committed over by the next one. So every message is acked by hand after the work,
and nothing goes on past one that was not. ADR 0002 has the measurements.
"""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import faust
from driftloop.runtime.drivers.faust_transport import Transport, credentials
from driftloop.runtime.drivers.frontier import Frontier, Place
from driftloop.runtime.drivers.probe import BrokerProbe, Partition
from driftloop.runtime.transport import DriverStatus, Message, Process, StartOffset

logger = logging.getLogger(__name__)

Feed = Callable[[Message], None]
"""Called in Faust's event loop for each message, after ``process`` and before the
ack: the place where Faust tables may be written. A message that is delivered again
is fed again, so tables overcount after a crash: never decide on them alone."""

Configure = Callable[[Any], Feed | None]
"""Adds tables or agents to the ``faust.App`` before it starts; may return a feed."""

LOOK_INTERVAL_S = 0.1
STOP_TIMEOUT_S = 10.0
MAX_REREADS = 5
"""Runs in a row that may end because Faust left messages out and handled none."""
REQUEST_TIMEOUT_S = 30.0
SETTINGS = {
    "web_enabled": False,
    "autodiscover": False,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "store": "memory://",
    "consumer_auto_offset_reset": "earliest",
    # Faust refuses a request time-out below the session time-out.
    "broker_request_timeout": REQUEST_TIMEOUT_S,
    "broker_rebalance_timeout": 30,
    "broker_commit_interval": 0.5,
    "broker_commit_every": 100,
    "stream_wait_empty": False,
    "stream_recovery_delay": 0,
    # Counts messages: 256 batches of 200 KB are 50 MB. Fewer throttle the fetcher.
    "stream_buffer_maxsize": 256,
    "consumer_max_fetch_size": 4 * 1024 * 1024,
    "worker_redirect_stdouts": False,
}


class LeftOutError(RuntimeError):
    """Faust delivered past messages that it has not delivered."""


class FaustDriver:
    """A :class:`transport.Driver` on a Faust app in an event loop of its own.

    ``process`` gets one message at a time, in one worker thread: Faust spends more
    on handing over a message than a larger chunk would save.

    Parameters
    ----------
    bootstrap : ``host:port,…`` of the brokers.
    group : consumer group, and name of the Faust app.
    topics : names; all must exist before anything is read.
    instance_id : stable name of this replica (static membership).
    session_timeout_s : after this silence others take over the partitions.
    client_config : librdkafka settings for security (``security.protocol``,
        ``sasl.*``, ``ssl.ca.location``), translated for Faust.
    configure : adds tables or agents to the app; see :data:`Configure`.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        *,
        instance_id: str | None = None,
        session_timeout_s: float = 8,
        client_config: Mapping[str, str] | None = None,
        configure: Configure | None = None,
    ) -> None:
        self._group = group
        self._topics = list(topics)
        self._configure = configure
        self._settings: dict[str, Any] = {
            **SETTINGS,
            "broker": [f"kafka://{host}" for host in bootstrap.split(",")],
            "broker_credentials": credentials(client_config or {}),
            "consumer_group_instance_id": instance_id,
            "broker_session_timeout": session_timeout_s,
            "broker_heartbeat_interval": session_timeout_s / 4,
        }
        self._probe = BrokerProbe(bootstrap, group, client_config or {})
        self._stopping = threading.Event()
        self._start_offset: StartOffset = lambda _topic, _partition: None
        self._app: Any = None
        self._frontier = Frontier()
        self._failure: Exception | None = None
        self._processed = 0

    def run(self, process: Process, start_offset: StartOffset) -> None:
        """See :meth:`transport.Driver.run`; any thread will do.

        Raises
        ------
        RuntimeError
            When Faust itself has given up; its reason is the cause.
        """
        partitions = self._probe.wait_for_topics(self._topics, self._stopping)
        if partitions is None:
            return
        self._start_offset = start_offset
        with (
            tempfile.TemporaryDirectory(prefix="faust-") as folder,
            ThreadPoolExecutor(1, "driver-work") as worker,
            self._probe.watching(self._assigned, lambda: self._frontier.positions),
        ):
            rereads = 0
            while not self._stopping.is_set():
                before = self._processed
                asyncio.run(self._run(process, worker, folder, partitions))
                rereads = 1 if self._processed > before else rereads + 1
                if self._failure is None:
                    return
                if not isinstance(self._failure, LeftOutError) or rereads > MAX_REREADS:
                    raise self._failure
                # What was left out is delivered when the app starts anew.
                logger.warning("reading again: %s", self._failure)
                self._failure = None
                self._frontier.forget()

    def stop(self) -> None:
        self._stopping.set()

    @property
    def _is_ending(self) -> bool:
        return self._stopping.is_set() or self._failure is not None

    def status(self) -> DriverStatus:
        assigned = frozenset(self._assigned())
        positions = {
            p: at for p, at in self._frontier.positions.items() if p in assigned
        }
        return DriverStatus(
            connected=self._probe.connected,
            assigned=assigned,
            lag=self._probe.lag(positions) if len(positions) == len(assigned) else None,
            processed=self._processed,
            stranded=self._probe.stranded,
        )

    def _assigned(self) -> list[Partition]:
        if self._app is None:
            return []
        with suppress(faust.exceptions.ConsumerNotStarted):
            return [
                (tp.topic, tp.partition)
                for tp in self._app.consumer.assignment()
                if tp.topic in self._topics
            ]
        return []

    async def _run(
        self,
        process: Process,
        worker: ThreadPoolExecutor,
        folder: str,
        partitions: Mapping[str, int],
    ) -> None:
        app = faust.App(self._group, datadir=folder, **self._settings)
        app.transport = Transport(
            app.conf.broker_consumer,
            app,
            self._begin,
            self._frontier.begin,
            self._frontier.forget,
        )
        in_work = asyncio.Lock()
        raw = app.topic(
            *self._topics,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

        async def consume(stream: Any) -> None:
            async for event in stream.noack().events():
                async with in_work:
                    if await self._is_done(event, process, worker, feed):
                        event.ack()
                if self._is_ending:
                    # Faust commits over a message left behind as soon as the next
                    # one is acked: so there is no next one.
                    await asyncio.Event().wait()

        app.agent(raw, name=f"{self._group}.driver", concurrency=1)(consume)
        feed = self._configure(app) if self._configure else None
        await asyncio.to_thread(self._create_changelogs, app, partitions)
        try:
            async with in_work:  # no message before all is there
                await app.start()
                for name in self._changelogs(app):
                    # The partitioner fails on a topic that it does not know yet.
                    await app.producer._ensure_producer().partitions_for(name)
            self._app = app
            while not (self._stopping.is_set() or self._failure or app.crashed):
                await asyncio.sleep(LOOK_INTERVAL_S)
            await in_work.acquire()  # the message in work is finished and acked
            if app.crashed and self._failure is None:
                self._failure = RuntimeError(f"Faust gave up: {app.crash_reason!r}")
                self._failure.__cause__ = app.crash_reason
        finally:
            self._app = None
            await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)

    async def _is_done(
        self,
        event: Any,
        process: Process,
        worker: ThreadPoolExecutor,
        feed: Feed | None,
    ) -> bool:
        """Process one message; False leaves it to be delivered again."""
        if self._is_ending:
            return False
        message = _message(event.message)
        epoch = self._frontier.epoch
        place = self._frontier.place(message)
        if place in {Place.REPEAT, Place.UNKNOWN}:
            return place is Place.REPEAT
        loop = asyncio.get_running_loop()
        try:
            if place is Place.AHEAD:
                await loop.run_in_executor(worker, self._check_gap, message)
            await loop.run_in_executor(worker, process, [message])
            if feed is not None:
                feed(message)
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self._failure = error
            return False
        self._processed += 1
        return self._frontier.advance(message, epoch)

    def _check_gap(self, message: Message) -> None:
        """Tell a gap in the log from messages that Faust has left out.

        Raises
        ------
        LeftOutError
            When there are messages before this one: a restart reads them.
        """
        partition = (message.topic, message.partition)
        expected = self._frontier.positions[partition]
        first = self._probe.first_offset(partition, expected, self._stopping)
        if first is not None and first < message.offset:
            raise LeftOutError(
                f"Faust left out offset {first} of {message.topic}/"
                f"{message.partition} and delivered {message.offset}"
            )

    def _begin(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Lower of the group's and the handler's own offset, where there is one."""
        begin = {}
        for partition, offset in committed.items():
            own = self._start_offset(*partition)
            known = [o for o in (offset, own) if o is not None and o >= 0]
            if known:
                begin[partition] = min(known)
        return begin

    def _changelogs(self, app: Any) -> list[str]:
        return [table.changelog_topic_name for table in app.tables.values()]

    def _create_changelogs(self, app: Any, partitions: Mapping[str, int]) -> None:
        """Create the topics of the app's tables, which Faust is not allowed to."""
        for table in app.tables.values():
            count = table.partitions or max(partitions.values())
            topic = table.changelog_topic
            cleanup = ["compact"] if topic.compacting else []
            cleanup += ["delete"] if topic.deleting else []
            settings = {"cleanup.policy": ",".join(cleanup or ["delete"])}
            if topic.retention:
                settings["retention.ms"] = str(int(topic.retention * 1000))
            self._probe.create_topic(table.changelog_topic_name, count, settings)


def _message(raw: Any) -> Message:
    return Message(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        key=raw.key,
        value=raw.value,
        headers=tuple((name, value or b"") for name, value in raw.headers or ()),
        timestamp_ms=round(raw.timestamp * 1000),
    )
