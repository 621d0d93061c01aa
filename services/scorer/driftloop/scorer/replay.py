"""Shadow by replay: recorded rows are put before a candidate, in the background.

Where ``serving-desired`` asks for it. What was read and found goes out once as
``shadow-replayed``: its id is derived from that wish, and a replay that a crash cut
off is done again from its beginning. Replicas with a database of their own each do
it; whoever handles the event counts the first.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
from driftloop.contracts.events import (
    BatchValidated,
    PipelineApplied,
    ServingDesired,
    ShadowReplayed,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogSilentError, bounds_between, read_part
from driftloop.runtime.outbox import Cause, OutboxRelay, Stopping
from driftloop.runtime.state import StateView
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message
from driftloop.scorer.background import ROWS_A_CALL, Breaks, give_way
from driftloop.scorer.metrics import count_call
from driftloop.scorer.replaying import Replay, Rules
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Shelf
from driftloop.scorer.tables import ScorerReplayed
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

POLL_S = 0.2
RETRY_S = 5.0
MESSAGES_AT_ONCE = 16
"""Of up to 1 MiB each; the client reads ahead as much again."""
READ_AHEAD = {"queued.max.messages.kbytes": "16384"}
REMEMBERED = 10_000
"""Newest batches that are known again, should one be on the log twice: that is when
its producer was killed between publishing it and noting that, so they are near."""
logger = log(__name__)


class Abandoned(Exception):  # noqa: N818 - says what happened
    """Something else is wanted by now, or the process is to stop."""


@dataclass(frozen=True)
class Task:
    """One replay: a wish, and what is in memory for it."""

    wish: ServingDesired
    spec: PipelineSpec
    champion: Loaded
    candidate: Loaded

    @property
    def until(self) -> datetime:
        return self.wish.meta.time

    @property
    def since(self) -> datetime:
        hours = self.wish.replay.hours if self.wish.replay else 0.0
        return self.until - timedelta(hours=hours)

    @property
    def learned_until(self) -> datetime:
        versions = (self.champion, self.candidate)
        return max(loaded.manifest.learned_until for loaded in versions)


class Replays:
    """Does the replays that are wanted, one after the other."""

    def __init__(
        self,
        shelf: Shelf,
        desired: StateView[ServingDesired],
        pipelines: Mapping[str, PipelineApplied],
        settings: ScorerSettings,
        store: ArtifactStore,
        engine: Engine,
        outbox: OutboxRelay,
        stopping: threading.Event,
    ) -> None:
        self._shelf = shelf
        self._desired = desired
        self._pipelines = pipelines
        self._settings = settings
        self._store = store
        self._engine = engine
        self._outbox = outbox
        self._stopping = stopping
        self._done: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}

    def run(self) -> None:
        """Look for what is to be replayed until the process is to stop."""
        give_way()
        while not self._stopping.wait(POLL_S):
            if self._desired.caught_up.is_set():
                for task in self._due():
                    self._try(task)

    def _due(self) -> list[Task]:
        now = time.monotonic()
        found = []
        for name, wish in list(self._desired.items()):
            if wish.environment != self._settings.environment:
                continue
            if wish.replay is None or self._done.get(name) == wish.generation:
                continue
            if self._retry_at.get(name, 0.0) > now:
                continue
            task = self._task(wish)
            if task is not None:
                found.append(task)
        return found

    def _task(self, wish: ServingDesired) -> Task | None:
        """Return what is to be done for a wish; None: not yet, or not any more."""
        served = self._shelf.get(wish.pipeline)
        applied = self._pipelines.get(wish.pipeline)
        if served is None or applied is None:
            return None
        champion, candidate = served.champion, served.candidate
        is_there = (
            served.generation == wish.generation
            and champion is not None
            and candidate is not None
            and wish.champion is not None
            and champion.version == wish.champion.version
        )
        if not is_there or champion is None or candidate is None:
            return None
        return Task(wish, applied.spec, champion, candidate)

    def _try(self, task: Task) -> None:
        name, generation = task.wish.pipeline, task.wish.generation
        try:
            if not self._was_done(task.wish):
                self._tell(task, self._replayed(task))
        except Abandoned:
            return
        except (LogSilentError, Retry, DBAPIError) as error:
            self._retry_at[name] = time.monotonic() + RETRY_S
            logger.warning("replaying again later", pipeline=name, error=str(error))
            return
        except Stopping:
            raise
        except Exception:
            logger.exception("cannot replay", pipeline=name)
        self._done[name] = generation

    def _was_done(self, wish: ServingDesired) -> bool:
        with Session(self._engine) as session:
            row = session.get(ScorerReplayed, wish.pipeline)
            return row is not None and row.wish_id == wish.meta.id

    def _replayed(self, task: Task) -> Replay:
        started = time.monotonic()
        replay = Replay(
            Rules(
                champion_version=task.champion.version,
                candidate_version=task.candidate.version,
                metric=task.spec.metric,
                target=task.spec.data.target,
                horizon=timedelta(days=task.spec.data.label_horizon_days),
                learned_until=task.learned_until,
                most_rows=self._settings.replay_max_rows,
                tolerance=task.spec.rollout.prediction_tolerance,
            )
        )
        for batch in self._batches(task):
            if batch.kind == "labels":
                replay.add_labels(batch.rows)
                continue
            rows = replay.to_score(batch.rows)
            for first in range(0, rows.num_rows, ROWS_A_CALL):
                self._score(task, replay, rows.slice(first, ROWS_A_CALL))
        logger.info(
            "replayed",
            pipeline=task.wish.pipeline,
            rows=replay.row_count,
            seconds=round(time.monotonic() - started, 3),
        )
        return replay

    def _score(self, task: Task, replay: Replay, rows: pa.RecordBatch) -> None:
        breaks = Breaks(self._stopping)
        champion, candidate = task.champion.answer(rows), task.candidate.answer(rows)
        for role, said in (("champion", champion), ("candidate", candidate)):
            count_call(
                task.wish.pipeline, role, "replay", rows.num_rows, said.error_count,
                said.seconds,
            )  # fmt: skip
        replay.add(rows, champion, candidate)
        breaks.rest()

    def _batches(self, task: Task) -> Iterator[BatchValidated]:
        """Yield the recorded batches, each once."""
        broker, config = self._settings.broker, self._settings.kafka_config
        topic = BatchValidated.topic()
        bounds = bounds_between(broker, topic, task.since, task.until, config)
        key = f"{task.wish.pipeline}/".encode()
        until_ms = task.until.timestamp() * 1000
        ids: set[str] = set()
        newest: deque[str] = deque()
        for chunk in read_part(
            broker, bounds, {**config, **READ_AHEAD}, chunk=MESSAGES_AT_ONCE
        ):
            self._check_wanted(task)
            for message in chunk:
                if message.timestamp_ms > until_ms or not _has_key(message, key):
                    continue
                batch = self._decoded(message)
                if batch is None or batch.meta.id in ids:
                    continue
                ids.add(batch.meta.id)
                newest.append(batch.meta.id)
                if len(newest) > REMEMBERED:
                    ids.remove(newest.popleft())
                yield batch

    def _check_wanted(self, task: Task) -> None:
        served = self._shelf.get(task.wish.pipeline)
        is_wanted = served and served.generation == task.wish.generation
        if self._stopping.is_set() or not is_wanted:
            raise Abandoned

    def _decoded(self, message: Message) -> BatchValidated | None:
        try:
            event = decode(message, self._store)
        except Reject as error:
            logger.warning("left out of the replay", error=str(error))
            return None
        return event if isinstance(event, BatchValidated) else None

    def _tell(self, task: Task, replay: Replay) -> None:
        wish, found = task.wish, replay.figures()
        wanted = wish.replay.labelled_rows if wish.replay else 1
        with self._outbox.unit(Cause(wish.meta.id, wish.meta.chain)) as (session, out):
            if self._is_told(session, wish):
                return
            out.append(
                ShadowReplayed(
                    pipeline=wish.pipeline,
                    generation=wish.generation,
                    replica=self._settings.replica,
                    environment=wish.environment,
                    champion_version=task.champion.version,
                    candidate_version=task.candidate.version,
                    since=task.since,
                    until=task.until,
                    learned_until=task.learned_until,
                    learned_count=replay.learned_count,
                    row_count=replay.row_count,
                    beyond_count=replay.beyond_count,
                    span=found.span,
                    labelled_count=found.labelled_count,
                    wanted_count=wanted,
                    is_enough=found.labelled_count >= wanted,
                    error_count=replay.error_count,
                    champion_error_count=replay.champion_error_count,
                    compared_count=replay.compared_count,
                    different_count=replay.different_count,
                    measurements=found.measurements,
                    comparison=found.comparison,
                ).following(wish.meta)
            )

    def _is_told(self, session: Session, wish: ServingDesired) -> bool:
        """Whether another replica was first; else note that this one is."""
        row = session.get(ScorerReplayed, wish.pipeline, with_for_update=True)
        if row is not None and row.wish_id == wish.meta.id:
            return True
        session.merge(ScorerReplayed(pipeline=wish.pipeline, wish_id=wish.meta.id))
        session.flush()
        return False


def _has_key(message: Message, key: bytes) -> bool:
    return message.key is not None and message.key.startswith(key)
