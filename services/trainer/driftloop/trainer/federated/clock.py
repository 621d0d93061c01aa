"""Closes rounds whose deadline is over, by the wall clock.

A deadline is a time-out, so the wall clock may tell it; whether an update is late is
told by the update's own time, which a replay of the log has too. A round is not closed
while updates of it still come in: after a rebuild they are read anew, the deadline long
over.
"""

import threading
import time
from datetime import UTC, datetime

from driftloop.contracts.base import derived_id
from driftloop.runtime.outbox import Cause
from driftloop.runtime.service import Runtime
from driftloop.runtime.telemetry import log
from driftloop.trainer.federated.rounds import Rounds
from driftloop.trainer.federated.tables import Federation, kept_count
from driftloop.trainer.settings import TrainerSettings
from sqlmodel import Session, select

POLL_S = 1.0
SETTLE_S = 15.0
"""For updates that were sent in time and have not been read yet."""
logger = log(__name__)


class RoundClock:
    """Looks after the deadlines of open rounds; one loop uses it.

    Parameters
    ----------
    wake : set when a job has been stored.
    """

    def __init__(
        self, runtime: Runtime[TrainerSettings], wake: threading.Event
    ) -> None:
        self._runtime = runtime
        self._wake = wake
        self._quiet: dict[str, tuple[int, int, float]] = {}

    def run(self) -> None:
        """Loop until the process stops."""
        while not self._runtime.stopping.wait(POLL_S):
            if self._runtime.recorded.complete.is_set():
                self.look(datetime.now(UTC), time.monotonic())

    def look(self, now: datetime, moment: float) -> None:
        """Close what is over.

        Parameters
        ----------
        now, moment : wall clock, and seconds that only grow.
        """
        with Session(self._runtime.engine) as session:
            query = select(Federation).where(Federation.state == "open")
            over = [
                (row.id, row.number, kept_count(session, row.id))
                for row in session.exec(query)
                if row.now().deadline < now
            ]
        before, self._quiet = self._quiet, {}
        for federation_id, number, count in over:
            known = before.get(federation_id)
            if known is None or known[:2] != (number, count):
                known = (number, count, moment)
            self._quiet[federation_id] = known
            if moment - known[2] >= SETTLE_S:
                self._close(federation_id, number, now)

    def _close(self, federation_id: str, number: int, now: datetime) -> None:
        with Session(self._runtime.engine) as session:
            row = session.get(Federation, federation_id)
            if row is None:
                return
            origin = row.meta()
            applied = self._runtime.pipelines.get(row.pipeline)
        if applied is None:
            return
        cause = Cause(derived_id(federation_id, f"deadline/{number}", 0), origin.chain)
        with self._runtime.outbox.unit(cause) as (session, events):
            row = session.get(Federation, federation_id, with_for_update=True)
            if row is None or row.state != "open" or row.number != number:
                return  # the last update came after all
            if row.now().deadline < now:
                rounds = Rounds(session, self._wake, self._runtime.recorded)
                events.extend(rounds.close(row, applied.spec, now))
                logger.info("round over", federation=federation_id, round=number)
