"""What the runner needs of a message transport, and nothing more.

Three drivers implement it: confluent-kafka, Faust and memory. One conformance
suite (``tests/component/test_driver_conformance.py``) holds them to this text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One consumed Kafka record, undecoded.

    Decoding is the runner's work: a driver that decodes would have to decide
    what happens to a record that cannot be decoded.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record to be produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class PublishError(Exception):
    """Some records were not acknowledged; all of them may be sent again."""


class Publisher(Protocol):
    """Sends records; a return means every one is acknowledged by the broker."""

    def publish(self, records: Sequence[Record], timeout_s: float = 30.0) -> None:
        """Send all records and wait for their acknowledgements.

        Raises
        ------
        PublishError
            When any record is not acknowledged in time. Records may then have
            been written or not: the caller sends all of them again.
        """
        ...

    def close(self) -> None: ...


Process = Callable[[Sequence[Message]], None]
"""Handles messages durably.

Called with one or more messages, in offset order within each partition. Its
return means: effects are stored and outputs acknowledged, so the driver may
commit past these messages. It raises only to stop the driver for good: nothing
of the chunk is committed, and :meth:`Driver.run` raises the same exception.
"""

StartOffset = Callable[[str, int], int | None]
"""``(topic, partition) -> first offset not yet in the own database``, or None.

On assignment a driver begins at the lower of this and the group's committed
offset, so that a commit that ran ahead of the work loses nothing.
"""


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """A snapshot for readiness and the watchdog.

    Attributes
    ----------
    connected : the broker answered lately.
    assigned : partitions held now, as ``(topic, partition)``.
    lag : messages not yet processed over the assigned partitions; None: unknown.
    processed : messages processed since start; the watchdog sees progress in it.
    stranded : unread messages that nobody reads: of assigned partitions that this
        member has not begun to read, or, where it has none, of partitions that no
        member of the group has.
    """

    connected: bool
    assigned: frozenset[tuple[str, int]]
    lag: int | None
    processed: int
    stranded: int = 0


class Driver(Protocol):
    """Consumes topics as a member of a group, at least once, in order."""

    def run(self, process: Process, start_offset: StartOffset) -> None:
        """Consume until :meth:`stop`; block meanwhile.

        Waits, with back-off, until the broker answers and all topics exist.
        A chunk in work at :meth:`stop` is finished and committed.
        """
        ...

    def stop(self) -> None:
        """Ask :meth:`run` to return soon; callable from any thread."""
        ...

    def status(self) -> DriverStatus: ...
