"""Rows of a dataset version, with the labels that were known at a moment."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.contracts.events import DatasetRef, TableMaintained, TableRef
from driftloop.runtime.data.vacuum import plan_vacuum, vacuumed

MIB = 1024 * 1024
TIMES = pa.timestamp("us", "UTC")


class DatasetError(Exception):
    """A dataset cannot be read; the text names the table and the remedy."""


def open_table(ref: TableRef, options: Mapping[str, str] | None) -> DeltaTable:
    """Open a Delta table at one version.

    Raises
    ------
    DatasetError
        When it is not there (any more).
    """
    try:
        return DeltaTable(
            ref.uri,
            version=ref.version,
            storage_options=dict(options) if options else None,
        )
    except (DeltaError, OSError) as error:
        raise DatasetError(_gone(ref, error)) from error


def read_table(ref: TableRef, options: Mapping[str, str] | None) -> pl.DataFrame:
    """Return all rows of a table at one version.

    Raises
    ------
    DatasetError
        When the table, or a file of this version, is not there (any more).
    """
    table = open_table(ref, options)
    try:
        rows = pl.from_arrow(table.to_pyarrow_dataset().to_table())
    except FileNotFoundError as error:
        text = vacuumed(ref, options) or _gone(ref, error)
        raise DatasetError(text) from error
    except (DeltaError, OSError) as error:
        raise DatasetError(_gone(ref, error)) from error
    assert isinstance(rows, pl.DataFrame)  # noqa: S101 - from_arrow of a table
    return rows


def _gone(ref: TableRef, error: Exception) -> str:
    return (
        f"{ref.uri} cannot be read at version {ref.version}: {error}. A version that "
        "no model refers to may have been removed; take a newer one"
    )


def size_bytes(ref: TableRef, options: Mapping[str, str] | None) -> int:
    """Return the bytes of a version's files.

    Raises
    ------
    DatasetError
        When it is not there (any more).
    """
    actions: Any = open_table(ref, options).get_add_actions(flatten=True)
    return sum(int(size.as_py()) for size in actions["size_bytes"])


def previewed(
    ref: TableRef,
    options: Mapping[str, str] | None,
    versions: Collection[int],
    age: timedelta | None,
    cutoff: datetime | None,
) -> TableMaintained:
    """Return what maintenance would do with a table's newest version now.

    Parameters
    ----------
    versions : those that somebody refers to.
    age : how long a version is kept after a newer one has come; None: for ever.
    cutoff : rows before it would go (labels that are older than their row stay
        with it); None: none would.

    Raises
    ------
    DatasetError
        When it cannot be read.
    """
    try:
        table = DeltaTable(ref.uri, storage_options=dict(options) if options else None)
        plan = None
        if age is not None:
            plan = plan_vacuum(table, options, versions, age, datetime.now(UTC))
        dropped = 0
        if cutoff is not None:
            is_older = pc.field("event_time") < pa.scalar(cutoff, TIMES)
            dropped = table.to_pyarrow_dataset().count_rows(filter=is_older)
    except (DeltaError, OSError) as error:
        raise DatasetError(f"{ref.uri}: {error}") from error
    return TableMaintained(
        version=table.version(),
        dropped_count=dropped,
        file_count=len(table.file_uris()),
        vacuumed_count=len(plan.sizes) if plan else 0,
        freed_bytes=sum(plan.sizes.values()) if plan else 0,
        kept_from=plan.kept_from if plan else 0,
        kept=list(plan.kept) if plan else [],
    )


def read_version(
    dataset: DatasetRef,
    target: str,
    options: Mapping[str, str] | None,
    known_at: datetime | None = None,
) -> pl.DataFrame:
    """Return a version's observations with the labels known at a moment.

    Point-in-time correct: a row carries the target that whoever asked at
    ``known_at`` would have had, and never a later one.

    Parameters
    ----------
    known_at : horizon in event time, included. Labels with a later event time are
        left out, and so is a target that came with a later row; of the others the
        highest revision holds. None: whatever the version holds.

    Raises
    ------
    DatasetError
        When a table, or a file of this version, is not there (any more).
    """
    rows = read_table(dataset.observations, options)
    if target not in rows.columns:
        rows = rows.with_columns(pl.lit(None).alias(target))
    if known_at is not None:
        is_known = pl.col("event_time") <= known_at
        rows = rows.with_columns(pl.when(is_known).then(target).alias(target))
    if dataset.labels is None:
        return rows
    later = newest_labels(read_table(dataset.labels, options), target, known_at)
    return joined(rows, later, target)


def newest_labels(
    labels: pl.DataFrame, target: str, known_at: datetime | None = None
) -> pl.DataFrame:
    """Return ``id`` and the target in its highest revision, each id once.

    Parameters
    ----------
    known_at : horizon in event time, included; None: all.
    """
    if known_at is not None:
        labels = labels.filter(pl.col("event_time") <= known_at)
    newest = labels.sort("revision", maintain_order=True).unique("id", keep="last")
    return newest.select("id", target)


def joined(rows: pl.DataFrame, labels: pl.DataFrame, target: str) -> pl.DataFrame:
    """Return the rows with a label before the target that came with the row.

    >>> rows = pl.DataFrame({"id": ["a", "b"], "y": [1.0, None]})
    >>> labels = pl.DataFrame({"id": ["b", "z"], "y": [2.0, 3.0]})
    >>> joined(rows, labels, "y")["y"].to_list()
    [1.0, 2.0]
    """
    later = labels.rename({target: _LATER})
    found = rows.join(later, on="id", how="left", maintain_order="left")
    return found.with_columns(pl.coalesce(_LATER, target).alias(target)).drop(_LATER)


_LATER = "driftloop label"
"""Column of a join; a pipeline has no column of this name."""
