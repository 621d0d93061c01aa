"""Takes objects away that no file is made of any more, and parts of broken uploads.

An object goes while writes wait, and a file is written only if its object is there:
whichever comes first, no file is left without its bytes.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.journal import Journal
from driftloop.runtime import database
from driftloop.runtime.artifacts import ArtifactStore, Stored
from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

EVERY_S = 3600.0
GRACE = timedelta(days=2)
"""Longer than an upload in parts may take."""
_IS_USED = text("SELECT 1 FROM mlflow_file WHERE sha256 = :sha256 LIMIT 1")
logger = log(__name__)


class Sweep:
    """Runs in a thread of its own; several replicas do no harm.

    Parameters
    ----------
    store : the room of clients' files; nothing else lies in it.
    """

    def __init__(
        self,
        journal: Journal,
        store: ArtifactStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._journal = journal
        self._store = store
        self._now = now

    def run(self, stopping: threading.Event) -> None:
        """Sweep once an hour, until ``stopping`` is set."""
        while not stopping.wait(EVERY_S):
            try:
                count = self.once(stopping)
            except (Retry, Refusal) as error:
                logger.warning("the sweep waits", error=str(error))
                continue
            except DBAPIError as error:
                if not database.is_passing(error):
                    raise
                logger.warning("the database is away", error=str(error))
                continue
            if count:
                logger.info("took unused objects away", count=count)

    def once(self, stopping: threading.Event) -> int:
        """Look at every object; return how many went.

        Raises
        ------
        Retry
            When the store is away.
        Refusal
            While the log is still being read: nothing can be said of any object.
        """
        count = 0
        for stored in self._store.stored():
            if stopping.is_set():
                break
            if self._now() - stored.put_at > GRACE:
                count += self._take_away(stored)
        return count

    def _take_away(self, stored: Stored) -> bool:
        went: list[bool] = []

        def decide(connection: Connection) -> None:
            digest = {"sha256": stored.sha256}
            if connection.execute(_IS_USED, digest).first() is None:
                self._store.delete(stored.sha256)
                went.append(True)

        self._journal.write("registry", decide)
        return bool(went)
