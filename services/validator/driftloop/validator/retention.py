"""Rows that are older than a pipeline keeps them go from the newest version.

A deletion is one commit of Delta that carries its cut-off as an application
transaction, like an append its position: whoever is killed after it finds it there,
and finds out from the log which rows went. Whole files go without being read; one on
the edge is written anew with the rows that stay. Older versions keep the rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from driftloop.runtime.telemetry import log

APPLICATION = "driftloop-validator/retention"
CUTOFF = "driftloop.cutoff"
"""In the commit of a deletion: the moment before which rows went."""
RECENT = 100
"""Commits among which a deletion is looked for first."""
TIMES = pa.timestamp("us", "UTC")
logger = log(__name__)


def drop_rows(table: DeltaTable, cutoff: datetime, until: datetime | None) -> bool:
    """Delete rows of before a cut-off, once; return whether any went, now or before.

    Parameters
    ----------
    table : at its newest version.
    cutoff : begin of a UTC day; names the deletion.
    until : an earlier moment, where rows from it on have to stay.

    Raises
    ------
    DeltaError, OSError
        When the store is away, or another process was quicker.
    """
    stamp = cutoff.toordinal()
    done = table.transaction_version(APPLICATION)
    if done is not None and done >= stamp:
        return True
    before = table.version()
    table.delete(
        f"event_time < '{(until or cutoff).isoformat()}'",
        commit_properties=CommitProperties(
            app_transactions=[Transaction(APPLICATION, stamp)],
            custom_metadata={CUTOFF: cutoff.isoformat()},
        ),
    )
    is_new: bool = table.version() > before  # Delta makes no version of nothing
    return is_new


def dropped_ids(
    table: DeltaTable, options: Mapping[str, str] | None, cutoff: datetime
) -> list[str]:
    """Return the id of each row that the deletion of a cut-off took, from the log.

    Raises
    ------
    DeltaError, OSError
        When the store is away.
    """
    found = _commit_of(table.history(RECENT), cutoff)
    if found is None:
        found = _commit_of(table.history(), cutoff)
    if found is None:
        return []
    try:
        stay = Counter(_old_ids(table, options, found, cutoff))
        gone = Counter(_old_ids(table, options, found - 1, cutoff)) - stay
    except FileNotFoundError:
        # Long ago, and vacuumed; our database is being built anew from the log.
        logger.info("dropped rows are not known any more", table=table.table_uri)
        return []
    return list(gone.elements())


def first_wanted_label(
    observations: DeltaTable, labels: DeltaTable, cutoff: datetime
) -> datetime | None:
    """Return the event time of the first label before a cut-off whose row stays.

    A label may bear an earlier time than its row. None: no row needs one.
    """
    edge = pa.scalar(cutoff, TIMES)
    time = pc.field("event_time")
    columns = ["id", "event_time"]
    old = labels.to_pyarrow_dataset().to_table(columns, filter=time < edge)
    if not old.num_rows:
        return None
    rows = observations.to_pyarrow_dataset()
    first: datetime | None = None
    for batch in rows.to_batches(columns=["id"], filter=time >= edge):
        wanted = old.filter(pc.is_in(old["id"], batch["id"]))["event_time"]
        if len(wanted):
            found = pc.min(wanted).as_py()
            first = found if first is None else min(first, found)
    return first


def _commit_of(commits: Iterable[Mapping[str, object]], cutoff: datetime) -> int | None:
    for commit in commits:
        if commit.get(CUTOFF) == cutoff.isoformat():
            version = commit["version"]
            assert isinstance(version, int)  # noqa: S101 - the library counts them
            return version
    return None


def _old_ids(
    table: DeltaTable,
    options: Mapping[str, str] | None,
    version: int,
    cutoff: datetime,
) -> list[str]:
    stored = dict(options) if options else None
    past = DeltaTable(table.table_uri, version=version, storage_options=stored)
    old = pc.field("event_time") < pa.scalar(cutoff, TIMES)
    rows = past.to_pyarrow_dataset().to_table(["id"], filter=old)
    ids: list[str] = rows["id"].to_pylist()
    return ids
