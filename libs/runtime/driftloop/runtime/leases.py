"""Who may work on a job: one owner at a time, and a late result is refused.

An owner holds a job for some seconds and renews that. Each taking has a new epoch;
whoever has an older one (it was frozen, say, and woke later) can change nothing.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from driftloop.runtime.telemetry import log
from sqlalchemy import Engine, or_
from sqlmodel import Field, Session, SQLModel, col, select

OPEN_STATES = ("waiting", "running")
logger = log(__name__)


class LeasedJob(SQLModel):
    """What a service's table of jobs has, for :class:`Leases`.

    Attributes
    ----------
    lease_epoch : grows with each owner; a result of an older one is refused.
    lease_expires_at : wall clock, seconds since 1970; of a waiting job: not before.
    take_count : how often an owner took it.
    failure_count : how often the work itself went wrong.
    fault_count : how often a store or a table was away.
    cpu_seconds : that all its tries took.
    reached : the greatest done share of any try.
    """

    id: str = Field(primary_key=True)
    state: str = "waiting"
    lease_owner: str | None = None
    lease_epoch: int = 0
    lease_expires_at: float = 0
    take_count: int = 0
    failure_count: int = 0
    fault_count: int = 0
    cpu_seconds: float = 0
    reached: float = 0
    error: str | None = None


J = TypeVar("J", bound=LeasedJob)


@dataclass(frozen=True)
class Cost:
    """What one try took, and the greatest done share that it told of."""

    cpu_seconds: float = 0.0
    reached: float = 0.0

    def add_to(self, row: LeasedJob) -> None:
        row.cpu_seconds += self.cpu_seconds
        row.reached = max(row.reached, self.reached)


def got_further(job: LeasedJob, cost: Cost) -> bool:
    """Whether a try went on where those before it ended.

    Then it was no failure of the same kind: say a machine that is taken away each
    quarter of an hour. How much further says nothing, as a fit that stops early may
    use a hundredth of the steps that its done share is counted in.
    """
    return 0 < job.reached < cost.reached


class Leases(Generic[J]):
    """Takes, renews and gives back jobs for one owner.

    Parameters
    ----------
    jobs : the service's table.
    order : its columns by which waiting jobs are taken.
    owner : stable name of this instance; after a restart it goes on with its job at
        once, without waiting for the lease to end.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: type[J],
        order: Sequence[Any],
        owner: str,
        seconds: float,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._order = tuple(order)
        self._owner = owner
        self._seconds = seconds
        self._renewed = 0.0
        self.recheck = threading.Event()
        """Set by who knows that a job may not be ours any more."""

    def take(self) -> J | None:
        """Take a waiting job, our own of an earlier run, or one whose lease is over."""
        jobs = self._jobs
        with Session(self._engine, expire_on_commit=False) as session:
            free = or_(
                (col(jobs.state) == "running") & (col(jobs.lease_owner) == self._owner),
                col(jobs.lease_expires_at) < time.time(),
            )
            query = (
                select(jobs)
                .where(col(jobs.state).in_(OPEN_STATES), free)
                .order_by(*self._order)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            job = session.exec(query).first()
            if job is not None:
                job.state, job.lease_owner = "running", self._owner
                job.lease_epoch += 1
                job.take_count += 1
                job.lease_expires_at = time.time() + self._seconds
            session.commit()
        self._renewed = time.monotonic()
        return job

    def renew(self, job: J) -> bool:
        """Return whether the job is still ours; renews when a third is over."""
        is_recent = time.monotonic() - self._renewed < self._seconds / 3
        if is_recent and not self.recheck.is_set():
            return True
        self.recheck.clear()
        with Session(self._engine) as session:
            row = self.held(session, job)
            if row is not None:
                row.lease_expires_at = time.time() + self._seconds
            is_ours = row is not None
            session.commit()
        self._renewed = time.monotonic()
        return is_ours

    def put_back(
        self, job: J, error: str, cost: Cost, *, wait_s: float, is_fault: bool
    ) -> None:
        """Let the job be taken again, not before ``wait_s`` from now.

        Parameters
        ----------
        is_fault : something else was away, so this try does not count.
        """
        with Session(self._engine) as session:
            row = self.held(session, job)
            if row is not None:
                row.state, row.error = "waiting", error
                row.lease_expires_at = time.time() + wait_s
                if got_further(row, cost):
                    row.failure_count = 0
                cost.add_to(row)
                if is_fault:
                    row.fault_count += 1
                    row.take_count -= 1
                else:
                    row.failure_count += 1
            session.commit()

    def held(self, session: Session, job: J) -> J | None:
        """Return the job's row, locked; None when it is open no more or not ours."""
        row = session.get(self._jobs, job.id, with_for_update=True)
        if (
            row is None
            or row.lease_epoch != job.lease_epoch
            or row.state not in OPEN_STATES
        ):
            logger.warning("the job is not ours any more", job=job.id)
            return None
        return row
