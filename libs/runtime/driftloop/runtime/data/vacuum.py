"""Which files of a Delta table no kept version needs, and how they go.

Kept are the newest version, all that were the newest at some moment within an age,
and older ones that somebody refers to. Delta's own vacuum knows ages and, by
``keep_versions``, single versions; it is asked for both, and its list is held
against the files of every kept version before anything is deleted.

Files that no commit names, of an append that was killed, go as well. Those of an
append that is under way are young: nothing goes that was written within the age and
:data:`SPARE`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from driftloop.contracts.events import TableRef

KEPT = "driftloop.kept"
"""In the commit of a vacuum: what it has kept, for whoever misses a version."""
SPARE = timedelta(days=1)
"""A file is written before its commit; by how much at most."""
HOUR = timedelta(hours=1)
MAX_HISTORY = 10_000
"""Commits to look back for the last vacuum; some days of a busy pipeline."""


class VacuumError(Exception):
    """What Delta would delete is needed by a version that is to be kept."""


@dataclass(frozen=True, slots=True)
class Vacuum:
    """What a vacuum deletes, or has deleted.

    Attributes
    ----------
    kept_from : this version and all later ones can be read afterwards.
    kept : older ones that can be read, rising.
    sizes : bytes of the files that go, by path.
    """

    kept_from: int
    kept: tuple[int, ...]
    sizes: Mapping[str, int]

    @property
    def versions(self) -> list[int]:
        """The oldest versions whose files stay, rising."""
        return [*self.kept, self.kept_from]


def cutoff_of(newest: datetime, keep_days: float) -> datetime:
    """Return the moment before which rows go: the begin of a UTC day.

    >>> cutoff_of(datetime(2024, 3, 9, 17, tzinfo=UTC), 7).isoformat()
    '2024-03-02T00:00:00+00:00'
    """
    moment = newest.astimezone(UTC) - timedelta(days=keep_days)
    return datetime.combine(moment.date(), time(), UTC)


def plan_vacuum(
    table: DeltaTable,
    options: Mapping[str, str] | None,
    referred: Collection[int],
    age: timedelta,
    now: datetime,
) -> Vacuum:
    """Return what would go; nothing goes yet.

    Parameters
    ----------
    table : at its newest version.
    referred : versions that somebody refers to.
    age : how long a version is kept after a newer one has come.

    Raises
    ------
    VacuumError
        When a kept version would lose a file.
    DeltaError, OSError
        When the table cannot be reached, or a version of ``referred`` is not in it.
    """
    kept_from = _version_at(table, options, now - age)
    kept = tuple(sorted(version for version in set(referred) if version < kept_from))
    found = table.vacuum(
        retention_hours=_hours(age),
        dry_run=True,
        enforce_retention_duration=False,
        full=True,
        keep_versions=[*kept, kept_from],  # in this order: Delta reads them forward
    )
    there = _sizes(table, options)
    plan = Vacuum(kept_from, kept, {p: there[p] for p in found if p in there})
    for version in plan.versions:
        lost = plan.sizes.keys() & _paths(_open(table, options, version))
        if lost:
            raise VacuumError(f"version {version} would lose {len(lost)} files")
    return plan


def vacuum(table: DeltaTable, plan: Vacuum, age: timedelta) -> None:
    """Delete the files of a plan; killed in the middle, the next one does the rest.

    Raises
    ------
    DeltaError, OSError
        When the table cannot be reached.
    """
    if not plan.sizes:
        return
    note = json.dumps({"from": plan.kept_from, "kept": plan.kept})
    table.vacuum(
        retention_hours=_hours(age),
        dry_run=False,
        enforce_retention_duration=False,
        full=True,
        keep_versions=plan.versions,
        commit_properties=CommitProperties(custom_metadata={KEPT: note}),
    )


def vacuumed(ref: TableRef, options: Mapping[str, str] | None) -> str | None:
    """Say that a version was vacuumed and which ones are kept; None: it was not."""
    try:
        table = DeltaTable(ref.uri, storage_options=dict(options) if options else None)
        commits = table.history(MAX_HISTORY)
    except (DeltaError, OSError):
        return None
    note = next((commit[KEPT] for commit in commits if KEPT in commit), None)
    if note is None:
        return None
    found = json.loads(note)
    if ref.version >= found["from"] or ref.version in found["kept"]:
        return None
    kept = [*map(str, found["kept"]), f"all from {found['from']} on"]
    return (
        f"{ref.uri}: version {ref.version} was vacuumed; kept are {', '.join(kept)}. "
        "Take one of these; data.retention.keep_versions_days says how long a version "
        "is kept that no training refers to"
    )


def _version_at(
    table: DeltaTable, options: Mapping[str, str] | None, moment: datetime
) -> int:
    """Return the version that was the newest at a moment; the first if none was."""
    past = _open(table, options, None)
    past.load_as_version(moment)
    found: int = min(past.version(), table.version())
    return found


def _open(
    table: DeltaTable, options: Mapping[str, str] | None, version: int | None
) -> DeltaTable:
    stored = dict(options) if options else None
    return DeltaTable(table.table_uri, version=version, storage_options=stored)


def _paths(table: DeltaTable) -> set[str]:
    actions: Any = table.get_add_actions(flatten=True)
    return {path.as_py() for path in actions["path"]}


def _sizes(table: DeltaTable, options: Mapping[str, str] | None) -> dict[str, int]:
    """Return the bytes of each data file that is there, needed or not."""
    handler = DeltaStorageHandler(table.table_uri, dict(options) if options else None)
    files = pafs.PyFileSystem(handler).get_file_info(pafs.FileSelector(""))
    return {
        info.path.lstrip("/"): info.size
        for info in files
        if info.type == pafs.FileType.File
    }


def _hours(age: timedelta) -> int:
    return -(-(age + SPARE) // HOUR)
