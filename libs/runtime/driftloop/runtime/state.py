"""The last event of each key of a compacted topic, followed by its own consumer."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from driftloop.contracts.base import Event
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message

E = TypeVar("E", bound=Event)
logger = log(__name__)


class StateView(Mapping[str, E], Generic[E]):
    """Key to last event; read by handlers, written by one follower thread.

    A reader that needs a key that is not there yet raises ``Retry``: the
    follower goes on meanwhile, so the message is handled once the key arrives.
    """

    def __init__(self, event: type[E], initial: Mapping[str, E] | None = None) -> None:
        self.event = event
        self.caught_up = threading.Event()
        self._values: dict[str, E] = dict(initial or {})
        self._listeners: list[Callable[[E], None]] = []
        self._lock = threading.Lock()

    @property
    def is_current(self) -> bool:
        """Whether it holds all that the topic held at the start."""
        return self.caught_up.is_set()

    def __getitem__(self, key: str) -> E:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def on_change(self, listener: Callable[[E], None]) -> None:
        """Call ``listener`` with each value there is and each that comes."""
        with self._lock:
            self._listeners.append(listener)
            for value in self._values.values():
                listener(value)

    def put(self, event: E) -> None:
        with self._lock:
            self._values[event.key] = event
            for listener in self._listeners:
                listener(event)

    def remove(self, key: str) -> None:
        with self._lock:
            self._values.pop(key, None)

    def apply(self, message: Message, store: ArtifactStore) -> None:
        """Take one record of the topic; a bad one is logged and left out."""
        if not message.value and message.key is not None:
            self.remove(message.key.decode())  # a tombstone
            return
        try:
            event = decode(message, store)
        except (Reject, Retry) as error:
            logger.error("bad state record", topic=message.topic, error=str(error))
            return
        if isinstance(event, self.event):
            self.put(event)
