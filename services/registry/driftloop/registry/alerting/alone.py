"""One replica tells people: it holds a lock of the database's session."""

from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

NAME = "driftloop/registry/alerts"
_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_ALIVE = text("SELECT 1")


@dataclass
class Alone:
    """Asks for the lock, and keeps it as long as its connection lives.

    A process that is killed loses its connection, and another one gets the lock. Of
    SQLite only one process has the database.
    """

    engine: Engine
    _held: Connection | None = field(default=None, init=False)

    def is_alone(self) -> bool:
        """Whether this replica is the one.

        Raises
        ------
        sqlalchemy.exc.DBAPIError
            When the database is away; then it is not.
        """
        if self.engine.dialect.name == "sqlite":
            return True
        if self._held is not None:
            try:
                self._held.execute(_ALIVE)
                self._held.commit()
            except DBAPIError:
                self.release()
                raise
            return True
        connection = self.engine.connect()
        try:
            has_it = bool(connection.execute(_LOCK, {"name": NAME}).scalar())
            connection.commit()
        except BaseException:
            connection.invalidate()
            raise
        if has_it:
            self._held = connection
        else:
            connection.close()
        return has_it

    def release(self) -> None:
        """Let another replica be the one."""
        if self._held is not None:
            self._held.invalidate()  # ends the session, and the lock with it
            self._held.close()
            self._held = None
