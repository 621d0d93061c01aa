"""The registry's own handlers on the log's part that a database has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

from driftloop.contracts.events import ModelTrained, PipelineApplied, TrackingChanged
from driftloop.registry.handlers import HANDLERS, Deps
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.mlflow import apply
from driftloop.registry.rebuild.state import Snapshot, snapshot_of
from driftloop.registry.recorded import TOPICS as VERDICT_TOPICS
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.artifacts import ArtifactStore, open_store
from driftloop.runtime.database import Unsent, store_unsent
from driftloop.runtime.envelope import decode, sequence_of
from driftloop.runtime.errors import Reject
from driftloop.runtime.follower import Partition, bounds_of, read_part
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.runner import Runner
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, Record
from opentelemetry.trace import NoOpTracer
from sqlalchemy import Engine
from sqlmodel import Session

SERVICE = "registry"
TRAINED, TRACKING = ModelTrained.topic(), TrackingChanged.topic()
Tell = Callable[[int, int], None]
"""Called with how many events are done, of how many."""


class RebuildRefusedError(Exception):
    """A database cannot be built anew as asked; the text names the remedy."""


class _Nobody:
    """Takes what handlers say: the log has it already."""

    def publish(self, records: Sequence[Record], timeout_s: float = 30.0) -> None:
        pass

    def close(self) -> None:
        pass


def _never_judged(event: ModelTrained) -> NoReturn:
    raise RebuildRefusedError(
        f"the log holds no verdict about {event.pipeline}'s job {event.job_id}, which "
        "the registry has registered: start it, so that it publishes what it stored, "
        "and try again"
    )


class Reading:
    """One run: the log's part that counts, through the registry's own handlers."""

    def __init__(
        self, settings: RegistrySettings, engine: Engine, live: Snapshot | None
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._live = live
        self._store: ArtifactStore = open_store(settings)
        self._pipelines = StateView(PipelineApplied)
        self._recorded = RecordedVerdicts()
        self._outbox = OutboxRelay(
            SERVICE, engine, _Nobody(), self._store, NoOpTracer(), settings.replica
        )
        table = handler_table(HANDLERS)
        self._topics = table.topics
        deps = Deps(
            Session(engine),
            self._pipelines,
            _never_judged,
            self._recorded,
            self._store,
            Reporter(settings.openlineage_namespace, settings.broker),
            lambda _: False,
        )
        self._runner = Runner(
            SERVICE, table, deps, engine, self._outbox, self._store, NoOpTracer(),
            settings.retry_limit_seconds,
        )  # fmt: skip
        self._closed: set[Partition] = set()
        self._late: list[Message] = []
        self.event_count = 0
        self.left_count = 0

    def read_log(self, tell: Tell) -> None:
        """Handle what the log holds, up to what the live database has."""
        self._read_verdicts()
        bounds = self._bounds()
        total = sum(end - start for start, end in bounds.values())
        seen = 0
        tell(0, total)
        for is_tracking in (True, False):  # what is about clients' writes finds them
            part = {
                p: b for p, b in bounds.items() if (p[0] == TRACKING) is is_tracking
            }
            for chunk in self._part(part):
                seen += len(chunk)
                wanted = self._wanted(chunk)
                if wanted:
                    self._runner.process(wanted)
                    self.event_count += len(wanted)
                tell(seen, total)
        self._outbox.tidy()

    def _part(
        self, bounds: dict[Partition, tuple[int, int]]
    ) -> Iterator[list[Message]]:
        settings = self._settings
        return read_part(settings.broker, bounds, settings.kafka_config)

    def _bounds_of(self, topics: Sequence[str]) -> dict[Partition, tuple[int, int]]:
        settings = self._settings
        return bounds_of(settings.broker, topics, settings.kafka_config)

    def _read_verdicts(self) -> None:
        """Read pipelines, and what was said about each job, also if not published."""
        topics = (PipelineApplied.topic(), *VERDICT_TOPICS)
        for chunk in self._part(self._bounds_of(topics)):
            for message in chunk:
                self._note(message)
        for row in self._live.unsent if self._live else ():
            if row.record.topic in VERDICT_TOPICS:
                self._note(_message(row))
        self._recorded.complete.set()

    def _note(self, message: Message) -> None:
        if message.topic == PipelineApplied.topic():
            self._pipelines.apply(message, self._store)
        else:
            with suppress(Reject):  # not an event of ours; nothing was said by it
                self._recorded.add(decode(message, self._store))

    def _bounds(self) -> dict[Partition, tuple[int, int]]:
        bounds = self._bounds_of(self._topics)
        if self._live is None:
            return bounds
        return {  # writes of clients are in the database before they are in the log
            place: (start, end if place[0] == TRACKING else self._end_at(place, end))
            for place, (start, end) in bounds.items()
        }

    def _end_at(self, place: Partition, end: int) -> int:
        return min(self._live.ends.get(place, 0) if self._live else end, end)

    def _wanted(self, chunk: list[Message]) -> list[Message]:
        topic, place = chunk[0].topic, (chunk[0].topic, chunk[0].partition)
        if topic == TRACKING and self._live is not None:
            return self._written(chunk, self._live.revision)
        if topic == TRAINED and self._live is None:
            return self._judged(chunk, place)
        return chunk

    def _written(self, chunk: list[Message], most: int) -> list[Message]:
        """Return the changes before the first one that the live database lacks.

        Replicas publish side by side, so some that it has may come later: these are
        kept for the end. The position stays before the first one it lacks.
        """
        place = (chunk[0].topic, chunk[0].partition)
        has = [self._revision_of(message) <= most for message in chunk]
        count = 0 if place in self._closed else [*has, False].index(False)
        later = zip(chunk[count:], has[count:], strict=True)
        self._late += [message for message, is_there in later if is_there]
        if count < len(chunk):
            self._closed.add(place)
        return chunk[:count]

    def _judged(self, chunk: list[Message], place: Partition) -> list[Message]:
        """Return the models before the first one that the log does not judge."""
        for number, message in enumerate(chunk):
            if place in self._closed or not self._is_judged(message):
                self._closed.add(place)
                self.left_count += len(chunk) - number
                return chunk[:number]
        return chunk

    def _is_judged(self, message: Message) -> bool:
        try:
            found = decode(message, self._store)
        except Reject:
            return True  # its handling is to put it aside
        assert isinstance(found, ModelTrained)  # noqa: S101 - its topic says so
        return self._recorded.of_job(found.pipeline, found.job_id) is not None

    def _revision_of(self, message: Message) -> int:
        known = sequence_of(message)
        if known is not None:
            return known
        try:  # of before events said it in a header
            found = decode(message, self._store)
        except Reject:
            return 0
        return found.sequence or 0

    def finish(self) -> Snapshot:
        """Take over what the live database has and the log may lack; look at it all."""
        unsent = self._live.unsent if self._live else []
        missing = [_message(row) for row in unsent if row.record.topic == TRACKING]
        decoded = [decode(each, self._store) for each in (*self._late, *missing)]
        changes = [each for each in decoded if isinstance(each, TrackingChanged)]
        with self._engine.begin() as connection:
            apply.take(connection, changes)
            built = snapshot_of(connection)
            if unsent:
                store_unsent(connection, unsent)
        return built


def _message(row: Unsent) -> Message:
    record = row.record
    return Message(record.topic, 0, 0, record.key, record.value, record.headers)
