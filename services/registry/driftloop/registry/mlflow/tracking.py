"""The parts of the tracking store that live as long as the process."""

import threading

from driftloop.registry.mlflow import experiments
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.position import Position
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.service import Runtime

POLL_S = 0.1


class Tracking:
    """The journal, and whether it may write yet."""

    def __init__(self, runtime: Runtime[RegistrySettings]) -> None:
        settings = runtime.settings
        self._stopping = runtime.stopping
        self._current = threading.Event()
        self._started = threading.Event()
        self._position = Position(
            runtime.engine, settings.broker, settings.kafka_config
        )
        self.journal = Journal(
            runtime.engine,
            runtime.publisher,
            runtime.store,
            settings.replica,
            self._current.is_set,
        )

    def is_current(self) -> bool:
        """Whether the tables hold what the log held at the start."""
        return self._started.is_set()

    def begin(self) -> None:
        """Wait for the reader of the log; then open the door for writers."""
        self.journal.recover()
        while self._position.is_behind():
            if self._stopping.wait(POLL_S):
                return
        self._current.set()
        experiments.start(self.journal)
        self._started.set()

    def publish(self) -> None:
        """Publish what was written, until the process stops."""
        self.journal.run(self._stopping)
