"""The form of a service's tables: which one a database has, and today's.

A database is made in today's form at once, and marked with it. One that an earlier
release made is brought there step by step; a test compares both ways. Steps are Alembic
revisions in ``migrations``, a row of them for the tables that every service has (folder
of the runtime) and one for each service's own. What is marked is the last of each row.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

RUNTIME = "runtime"
STEP_NAME = "{row}_{number:04}"
FORM = Table(  # Alembic's own form of it
    "runtime_schema", MetaData(), Column("version_num", String(32), primary_key=True)
)


class NewerDatabaseError(ValueError):
    """A database was written by a later release than this one."""


def folder_of(row: str) -> Path:
    """Return where a row's steps are, if it has any."""
    spec = find_spec(f"driftloop.{row}")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise ModuleNotFoundError(f"driftloop.{row} is not installed")
    return Path(next(iter(places)), "migrations")


def steps_of(row: str) -> list[Path]:
    """Return the files of a row's steps in order; empty: it has none."""
    return sorted(folder_of(row).glob(f"{row}_*.py"))


def step_id(step: Path) -> str:
    """Return a step's revision, which its file's name begins with.

    >>> step_id(Path("registry_0002_why_an_alias_moved.py"))
    'registry_0002'
    """
    row, number, *_ = step.stem.split("_")
    return f"{row}_{number}"


def todays_form(service: str) -> set[str]:
    """Return the last step of each row."""
    rows = [steps_of(RUNTIME), steps_of(service)]
    return {step_id(steps[-1]) for steps in rows if steps}


def marked_form(connection: Connection) -> set[str] | None:
    """Return the steps that a database is marked with; None: it has no mark."""
    if not inspect(connection).has_table(FORM.name):
        return None
    return set(connection.execute(select(FORM.c.version_num)).scalars())


def mark(connection: Connection, steps: Iterable[str]) -> None:
    """Note the form of a database that has no mark yet."""
    FORM.create(connection)
    rows = [{"version_num": step} for step in sorted(steps)]
    if rows:
        connection.execute(FORM.insert(), rows)


def bring_up_to_date(connection: Connection, service: str) -> None:
    """Bring an existing database to today's form, within the caller's transaction.

    One without a mark is of the time before the first step of each row.

    Raises
    ------
    NewerDatabaseError
        When its mark is of a step that this release does not know.
    """
    rows = [steps_of(RUNTIME), steps_of(service)]
    found = marked_form(connection)
    if found is None:
        found = {step_id(steps[0]) for steps in rows if steps}
        mark(connection, found)
    today = todays_form(service)
    unknown = found - {step_id(step) for steps in rows for step in steps}
    if unknown:
        raise NewerDatabaseError(
            f"the database of {service} is in the form {', '.join(sorted(unknown))} of "
            f"a later release; this one knows {', '.join(sorted(today))}. Start the "
            "later release, or an empty database, which the log fills again"
        )
    if found != today:
        # Imported when it is needed, once an upgrade: it takes as long as a start.
        from driftloop.runtime.migrating import upgrade

        upgrade(connection, service)
