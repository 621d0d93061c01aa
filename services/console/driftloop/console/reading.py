"""Reads every topic from its beginning onto the board, and single events again."""

import threading
from collections.abc import Mapping
from typing import Any

from driftloop.console.core import Board, DeadLetter
from driftloop.console.metrics import Families
from driftloop.console.story import DECISIONS
from driftloop.contracts.base import Event
from driftloop.contracts.topics import (
    BESIDE_THE_CHAIN,
    BY_NAME,
    DOOR_TOPICS,
    SERVICES,
    dead_letter_topic,
    produced_by,
)
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import attributes_of, decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower, message_at
from driftloop.runtime.transport import Message

LETTER_TOPICS = {dead_letter_topic(s): s for s in SERVICES if produced_by(s)}
FOLLOWED_TOPICS = [t for t in (*BY_NAME, *LETTER_TOPICS) if t not in BESIDE_THE_CHAIN]
FETCHED_TOPICS = frozenset({"batch-rejected"})
"""Of rows that are in the artifact store only these are fetched: what was found in them
is told in the object, and they are few. Of others the record is counted."""
STORY_TOPICS = frozenset(event.topic() for event in DECISIONS)
STOP_POLL_S = 0.1


class Reader:
    """The board and the thread that fills it.

    Readers of the board take :attr:`lock`.
    """

    def __init__(
        self, bootstrap: str, config: Mapping[str, str], store: ArtifactStore
    ) -> None:
        self.board = Board()
        self.lock = threading.Lock()
        self._store = store
        self._bootstrap, self._config = bootstrap, config
        self._follower = LogFollower(bootstrap, FOLLOWED_TOPICS, self._take, config)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was in the log at the start has been read."""
        return self._follower.caught_up.is_set()

    def run(self, stopping: threading.Event) -> None:
        """Follow until ``stopping`` is set."""
        thread = threading.Thread(target=self._follower.run, daemon=True)
        thread.start()
        while not stopping.wait(STOP_POLL_S):
            if not thread.is_alive():
                raise RuntimeError("the follower of the log has ended")
        self._follower.stop()
        thread.join()

    def since(self, revision: int) -> dict[str, Any]:
        """Return what the board has beyond a revision."""
        with self.lock:
            return self.board.since(revision)

    def tell(self, families: Families) -> None:
        """Add what is counted of each pipeline."""
        with self.lock:
            for name, found in sorted(self.board.pipelines.items()):
                story = {t: n for t, n in found.counts.items() if t in STORY_TOPICS}
                families.tell(name, found.tally, story)

    def read_at(self, topic: str, partition: int, offset: int) -> Event | None:
        """Return the event at a position; None when the log does not hold it."""
        message = message_at(self._bootstrap, topic, partition, offset, self._config)
        if message is None:
            return None
        try:
            return decode(message, self._store)
        except (Reject, Retry):
            return None

    def _take(self, message: Message) -> None:
        service = LETTER_TOPICS.get(message.topic)
        if service is not None:
            with self.lock:
                self.board.take_dead_letter(_letter(service, message))
        elif message.topic in DOOR_TOPICS or _is_elsewhere(message):
            with self.lock:
                self.board.count(_pipeline_of(message), message.topic)
        else:
            try:
                event = decode(message, self._store)
            except (Reject, Retry):
                return  # its consumer puts it among the dead letters
            with self.lock:
                self.board.take(event)


def _is_elsewhere(message: Message) -> bool:
    """Whether the rows are in the artifact store, and not fetched for a count."""
    return message.topic not in FETCHED_TOPICS and any(
        name == "ce_dataref" for name, _ in message.headers
    )


def _pipeline_of(message: Message) -> str:
    try:
        subject = attributes_of(message).get("subject")
    except Reject:
        subject = None
    key = (message.key or b"").decode(errors="replace").partition("/")[0]
    return subject or key or "unknown"


def _letter(service: str, message: Message) -> DeadLetter:
    headers = {name: value.decode(errors="replace") for name, value in message.headers}

    def of(name: str) -> str:
        return headers.get(f"dead-letter-{name}", "")

    return DeadLetter(
        service=service,
        topic=of("topic"),
        reason=of("reason") or of("error"),
        at=of("time"),
        position=f"{of('topic')}/{of('partition')}/{of('offset')}",
    )
