"""Duplicates: training rows that say the same twice; a serving row is never one."""

from collections.abc import Sequence

import pyarrow as pa


def without_duplicates(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the first of rows that are equal in all ``columns``, in their order."""
    numbered = rows.select(columns).append_column(
        "driftloop row", pa.array(range(rows.num_rows))
    )
    first = numbered.group_by(columns).aggregate([("driftloop row", "min")])
    kept = first.column("driftloop row_min").sort()
    return rows.take(kept)
