"""One process at a time on a database file, held from its start to its end."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

POLL_S = 0.1


class DatabaseInUseError(Exception):
    """Another process works on a database that only one may use."""


def file_of(url: str) -> Path | None:
    """Return the file of an SQLite database; None: it is another kind, or in memory.

    >>> file_of("sqlite:////var/registry-0.db")
    PosixPath('/var/registry-0.db')
    >>> file_of("postgresql://db/registry") is None
    True
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, ":memory:"}:
        return None
    return Path(str(parsed.database))


@contextmanager
def alone_on(url: str, patience_s: float = 0) -> Iterator[None]:
    """Be the only process on an SQLite database; on others there may be replicas.

    The lock is that of the file ``<database>.lock``, which stays. The system gives it
    back when a process ends, however it ends.

    Parameters
    ----------
    patience_s : how long to wait for one that is just about to end.

    Raises
    ------
    DatabaseInUseError
        When another process has it.
    """
    file = file_of(url)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise DatabaseInUseError(
                        f"another process works on {file}: stop it first, or give each "
                        "replica a name of its own (DRIFTLOOP_REPLICA) or PostgreSQL"
                    ) from None
                time.sleep(POLL_S)
        yield
