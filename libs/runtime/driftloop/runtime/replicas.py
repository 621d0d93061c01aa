"""Which replicas of a service live, and who publishes the events of those that do not.

Replicas share a database on PostgreSQL. One that dies between its commit and its
publish leaves events behind; if it never returns under its name, nobody would publish
them, as the message that caused them counts as handled. So each replica holds a lock
on its name for as long as its process lives, and whoever takes over a partition first
takes over the events of the names that nobody holds.
"""

from driftloop.runtime.database import LOCK_OF_NAME, Outbox, Unsent
from driftloop.runtime.telemetry import log
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, select

_HOLD = text(f"SELECT pg_try_advisory_lock({LOCK_OF_NAME})")
_IS_GONE = text(f"SELECT pg_try_advisory_xact_lock({LOCK_OF_NAME})")
_PROBE = text("SELECT 1")
logger = log(__name__)


class SessionLock:
    """A lock on a name that this process keeps as long as its connection lives.

    A process that is killed loses its connection, and another one gets the lock. An
    SQLite database has one process only: there everybody has it.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._held: Connection | None = None

    def take(self) -> bool:
        """Whether the lock is ours.

        Raises
        ------
        sqlalchemy.exc.DBAPIError
            When the database is away, or has lost the connection that held it: then it
            is not, before it is asked for again.
        """
        if self._engine.dialect.name == "sqlite":
            return True
        if self._held is not None:
            try:
                self._held.execute(_PROBE)
            except DBAPIError:
                self.release()
                raise
            return True
        connection = self._engine.connect()
        try:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            has_it = bool(connection.execute(_HOLD, {"name": self._name}).scalar())
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        if has_it:
            self._held = connection
        else:
            connection.close()
        return has_it

    def release(self) -> None:
        """Let another process have it."""
        if self._held is not None:
            self._held.invalidate()  # closes it: the pool must not keep the lock
            self._held.close()
            self._held = None


class Replica:
    """The own process among a service's replicas; its owner keeps threads apart.

    An SQLite database has one replica only: then nothing here does anything.
    """

    def __init__(self, engine: Engine, service: str, name: str) -> None:
        self._engine = engine
        self._service = service
        self.name = name
        self._lock = SessionLock(engine, self._lock_name(name))

    def hold(self) -> None:
        """Take the lock on the name; again, if the database has lost it."""
        try:
            has_it = self._lock.take()
        except DBAPIError:
            has_it = self._lock.take()
        if not has_it:
            # Our own last run, which the server has not missed yet; or a mistake.
            logger.warning("another process has this replica's name", name=self.name)

    def release(self) -> None:
        """Give the name back; the process is about to end."""
        self._lock.release()

    def take_over(self) -> list[Unsent]:
        """Make the unpublished events of replicas that are gone ours; return them."""
        if self._engine.dialect.name == "sqlite":
            return []
        mine: list[Outbox] = []
        with Session(self._engine, expire_on_commit=False) as session:
            others = select(Outbox.replica).where(col(Outbox.replica) != self.name)
            for other in session.exec(others.distinct()).all():
                if self._is_gone(session, other):
                    theirs = select(Outbox).where(Outbox.replica == other)
                    mine += session.exec(theirs.order_by(col(Outbox.position)))
            for row in mine:
                row.replica = self.name
            taken = [Unsent.of(row) for row in mine]
            session.commit()
        if taken:
            logger.info("took over events of replicas that are gone", count=len(taken))
        return taken

    def _is_gone(self, session: Session, other: str) -> bool:
        """Whether nobody holds a name; then it is ours until the transaction ends."""
        name = {"name": self._lock_name(other)}
        return bool(session.connection().execute(_IS_GONE, name).scalar())

    def _lock_name(self, name: str) -> str:
        return f"driftloop/{self._service}/{name}"
