"""Rows of one version of a Delta table, a few at a time and always in one order.

The order is that of the files' names and of the rows in each. A file is read piece by
piece, so that what is in memory does not grow with the table; of a file only the
columns that are wanted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from driftloop.contracts.events import TableRef
from driftloop.runtime.data.vacuum import vacuumed
from driftloop.runtime.errors import Retry
from driftloop.scorer.jobs.facts import CannotScore

if TYPE_CHECKING:
    import pyarrow.dataset as ds

ROW_COLUMNS = ("id", "event_time")
BUFFER_BYTES = 1024 * 1024
"""Of a column of a file that is read ahead."""
OTHER_VERSION = "take a version that is kept: driftloop datasets show {} --all"


@dataclass(frozen=True)
class _File:
    fragment: "ds.Fragment"
    row_count: int


class Source:
    """One version of a table, opened for the columns that a model takes.

    Attributes
    ----------
    row_count : of the version.
    schema : of what :meth:`batches` yields: ``id``, ``event_time``, the features.
    """

    def __init__(
        self,
        pipeline: str,
        ref: TableRef,
        features: Sequence[str],
        options: Mapping[str, str] | None,
    ) -> None:
        """Open it.

        Raises
        ------
        CannotScore
            When the version is gone, or has not all the columns.
        Retry
            When the store is away.
        """
        self._pipeline, self._ref, self._options = pipeline, ref, options
        try:
            table = DeltaTable(
                ref.uri,
                version=ref.version,
                storage_options=dict(options) if options else None,
            )
            rows = table.to_pyarrow_dataset()
            counts = _counts(table)
            fragments = sorted(rows.get_fragments(), key=lambda found: found.path)
            self._files = [_File(f, self._count(f, counts)) for f in fragments]
        except (TableNotFoundError, FileNotFoundError) as error:
            raise self._gone(error) from error
        except (DeltaError, OSError) as error:
            raise self._away(error) from error
        missing = [name for name in features if name not in rows.schema.names]
        if missing:
            raise CannotScore(
                f"version {ref.version} of {ref.uri} has no column "
                f"{', '.join(missing)}, which the model takes",
                "take a version of the dataset that has it, or of the model that does "
                "not need it",
            )
        self.schema = pa.schema(
            [rows.schema.field(name) for name in (*ROW_COLUMNS, *features)]
        )
        self.row_count = sum(file.row_count for file in self._files)

    def _count(self, fragment: "ds.Fragment", counts: Mapping[str, int | None]) -> int:
        known = counts.get(fragment.path.lstrip("/"))
        return fragment.count_rows() if known is None else known

    def batches(self, start: int, size: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows from the ``start``-th on, ``size`` at a time.

        Raises
        ------
        CannotScore
            When files of this version were removed meanwhile.
        Retry
            When the store is away.
        """
        try:
            yield from rechunked(self._from(start, size), size)
        except FileNotFoundError as error:
            raise self._gone(error) from error
        except (DeltaError, OSError) as error:
            raise self._away(error) from error

    def _from(self, start: int, size: int) -> Iterator[pa.RecordBatch]:
        for file in self._files:
            if start >= file.row_count:
                start -= file.row_count
                continue
            for batch in self._read(file, size):
                if start >= batch.num_rows:
                    start -= batch.num_rows
                else:
                    yield batch.slice(start)
                    start = 0

    def _read(self, file: _File, size: int) -> Iterator[pa.RecordBatch]:
        place = file.fragment
        with (
            place.filesystem.open_input_file(place.path) as content,
            pq.ParquetFile(content, buffer_size=BUFFER_BYTES, pre_buffer=False) as rows,
        ):
            have = set(rows.schema_arrow.names)
            columns = [name for name in self.schema.names if name in have]
            yield from (
                aligned(batch, self.schema)
                for batch in rows.iter_batches(size, columns=columns, use_threads=False)
            )

    def _gone(self, error: Exception) -> CannotScore:
        ref, why = self._ref, " ".join(str(error).split())
        text = vacuumed(ref, self._options)
        return CannotScore(
            text or f"{ref.uri} cannot be read at version {ref.version}: {why:.300}",
            OTHER_VERSION.format(self._pipeline),
        )

    def _away(self, error: Exception) -> Retry:
        return Retry(f"dataset {self._ref.uri} version {self._ref.version}: {error}")


def _counts(table: DeltaTable) -> dict[str, int | None]:
    """Return the rows of each file, as far as the table's log says so."""
    actions: Any = table.get_add_actions(flatten=True)
    if "num_records" not in actions.schema.names:
        return {}
    found = zip(actions["path"], actions["num_records"], strict=True)
    return {path.as_py(): count.as_py() for path, count in found}


def aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows with the columns of ``schema``; one that a file lacks is null.

    >>> there = pa.RecordBatch.from_pydict({"a": pa.array([1], pa.int32())})
    >>> wanted = pa.schema([("b", pa.string()), ("a", pa.int64())])
    >>> aligned(there, wanted).to_pylist()
    [{'b': None, 'a': 1}]
    """
    arrays = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def rechunked(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of ``size``; only the last one may be smaller.

    >>> parts = [pa.RecordBatch.from_pydict({"a": [1] * n}) for n in (2, 3, 4)]
    >>> [batch.num_rows for batch in rechunked(iter(parts), 4)]
    [4, 4, 1]
    """
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= size:
            whole = _joined(held)
            yield whole.slice(0, size)
            count -= size
            held = [whole.slice(size)] if count else []
    if count:
        yield _joined(held)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.concat_batches(batches)
