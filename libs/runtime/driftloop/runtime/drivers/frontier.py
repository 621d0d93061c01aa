"""Where each partition stands: what is done, what comes next, what was left out."""

from collections.abc import Mapping
from enum import Enum, auto

from driftloop.runtime.drivers.probe import Partition
from driftloop.runtime.transport import Message


class Place(Enum):
    """A message's place relative to what was processed before."""

    NEXT = auto()
    REPEAT = auto()
    """Processed before, by this process, in this assignment."""
    AHEAD = auto()
    """Something between is missing: a gap in the log, or a loss."""
    UNKNOWN = auto()
    """Delivered before it was settled where to begin; it will come again."""


class Frontier:
    """Next offset of each partition, from the start of reading on.

    Whenever reading starts anew (an assignment, a seek) the epoch changes: work that
    was begun before may then be repeated, so it moves nothing and is not committed.

    >>> frontier = Frontier()
    >>> message = Message("t", 0, offset=5, key=None, value=b"")
    >>> frontier.place(message)
    <Place.UNKNOWN: 4>
    >>> frontier.begin({("t", 0): 4})
    >>> frontier.place(message)
    <Place.AHEAD: 3>
    """

    def __init__(self) -> None:
        self.positions: Mapping[Partition, int] = {}
        self.epoch = 0

    def forget(self) -> None:
        """Know nothing any more: partitions were assigned or revoked."""
        self.begin({})

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        """Note that reading starts at these offsets."""
        self.epoch += 1
        self.positions = dict(offsets)

    def place(self, message: Message) -> Place:
        expected = self.positions.get((message.topic, message.partition))
        if expected is None:
            return Place.UNKNOWN
        if message.offset < expected:
            return Place.REPEAT
        return Place.NEXT if message.offset == expected else Place.AHEAD

    def advance(self, message: Message, epoch: int) -> bool:
        """Note a processed message; False when reading has started anew since."""
        if epoch != self.epoch:
            return False
        at = (message.topic, message.partition)
        self.positions = {**self.positions, at: message.offset + 1}
        return True
