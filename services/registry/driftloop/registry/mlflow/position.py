"""How far the log is read: what it held at the start against the watermarks."""

from collections.abc import Mapping

from driftloop.contracts.events import TrackingChanged
from driftloop.runtime import database
from driftloop.runtime.follower import LogSilentError, bounds_of
from sqlalchemy import Engine


class Position:
    """Asks the broker once where the topic ended; then looks at the database."""

    def __init__(
        self, engine: Engine, bootstrap: str, config: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._bootstrap = bootstrap
        self._config = config
        self._ends: dict[int, int] | None = None

    def is_behind(self) -> bool:
        """Whether something that was in the log at the start is not in the tables."""
        if self._ends is None:
            self._ends = self._read_ends()
        if self._ends is None:
            return True
        topic = TrackingChanged.topic()
        with self._engine.begin() as connection:
            return any(
                (database.next_offset(connection, topic, partition) or 0) < end
                for partition, end in self._ends.items()
            )

    def _read_ends(self) -> dict[int, int] | None:
        """Return the end of each partition; None: the broker does not say."""
        topics = [TrackingChanged.topic()]
        try:
            bounds = bounds_of(self._bootstrap, topics, self._config)
        except LogSilentError:
            return None
        return {number: end for (_, number), (_, end) in bounds.items()}
