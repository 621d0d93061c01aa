"""Validated rows in Delta Lake: each append once, every version readable.

An append carries the batch's Kafka position as a Delta application transaction
(application: topic and partition; version: offset), and Delta stores both in one
commit. So a batch that comes again after a kill finds its position there and adds
nothing. Two processes that append at once are told apart by Delta's own conflict
check on the same entry.

Small appends make many small files, and the price of an append grows with them:
about 10 ms at 25 files, 40 ms at 300 (deltalake 1.6.6, 24 rows of 13 columns).
Compaction merges them: at :data:`COMPACT_APPENDS` appends, files below the least
size of :data:`TARGET_BYTES` that leaves at most :data:`MAX_FILES`. Rising sizes
keep a row from being written over and over. Files that were merged stay, so that
old versions can be read, until ``maintenance.py`` vacuums them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    SchemaMismatchError,
    TableNotFoundError,
)
from driftloop.contracts.events import DatasetRef, RowKind, TableRef
from driftloop.runtime.data.reading import DatasetError, read_table
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.telemetry import log

COMPACT_APPENDS = 25
MAX_FILES = 25
KIB, MIB = 1024, 1024 * 1024
TARGET_BYTES = (64 * KIB, 1 * MIB, 16 * MIB, 256 * MIB)
CONFIGURATION = {
    "delta.checkpointInterval": "100",
    # Old versions are promised to whoever has a DatasetRef.
    "delta.enableExpiredLogCleanup": "false",
}
PARQUET = WriterProperties(dictionary_page_size_limit=16 * KIB)
"""A column of more than some 2,000 different numbers is written as it is: files of
50,000 rows of 24 random numbers get 15 % smaller and take a quarter of the time
(deltalake 1.6.6)."""
KINDS: tuple[RowKind, ...] = ("observations", "labels")
logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """Where in Kafka a batch is: what makes its append unique."""

    topic: str
    partition: int
    offset: int

    @property
    def application(self) -> str:
        return f"driftloop-validator/{self.topic}/{self.partition}"


@dataclass(slots=True)
class _Open:
    """An open table, and how many appends it takes before the next compaction.

    Attributes
    ----------
    newest : offset appended last, by application, as far as this process knows;
        Delta would look it up in the log each time.
    """

    table: DeltaTable
    appends_left: int
    newest: dict[str, int | None] = field(default_factory=dict)

    def has(self, position: Position) -> bool:
        """Whether the batch of this position is in the table."""
        name = position.application
        if name not in self.newest:
            self.newest[name] = self.table.transaction_version(name)
        newest = self.newest[name]
        return newest is not None and newest >= position.offset

    def refresh(self) -> None:
        """Look at the table anew: another process has written to it."""
        self.table.update_incremental()
        self.newest.clear()


class Datasets:
    """The Delta tables of all pipelines; for one thread.

    Parameters
    ----------
    uri_of : where the table of a pipeline and kind is.
    storage_options : what ``deltalake`` needs to reach it.
    """

    def __init__(
        self,
        uri_of: Callable[[str, RowKind], str],
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self._uri_of = uri_of
        self.options = storage_options
        self._open: dict[tuple[str, RowKind], _Open] = {}

    def append(
        self,
        pipeline: str,
        kind: RowKind,
        rows: pa.RecordBatch,
        position: Position,
        schemas: Mapping[RowKind, pa.Schema],
    ) -> DatasetRef:
        """Add rows, unless the batch of this position is there; return the version.

        Parameters
        ----------
        schemas : of both tables; a label may come before any observation.

        Raises
        ------
        Retry
            When the store is away or full.
        Reject
            When a column has another type than in the table.
        """
        try:
            self._append(pipeline, kind, rows, position, schemas[kind])
            observations = self._table(
                pipeline, "observations", schemas["observations"]
            )
            labels = self._open.get((pipeline, "labels")) or self._existing(
                pipeline, "labels"
            )
            other = observations if kind == "labels" else labels
            if other is not None:  # another process may have written to it
                other.table.update_incremental()
            return DatasetRef(
                observations=_ref(observations.table),
                labels=_ref(labels.table) if labels else None,
            )
        except SchemaMismatchError as error:
            raise Reject(f"the rows do not fit the dataset: {error}") from error
        except (DeltaError, OSError) as error:
            self._open.clear()  # whatever it was, look at the tables anew
            raise Retry(f"datasets: {error}") from error

    def table(self, pipeline: str, kind: RowKind) -> DeltaTable | None:
        """Return a table at its newest version; None: there is none yet.

        For the thread that appends; what it commits is seen by the next append.

        Raises
        ------
        DeltaError, OSError
            When the store is away.
        """
        opened = self._open.get((pipeline, kind)) or self._existing(pipeline, kind)
        if opened is None:
            return None
        opened.refresh()
        return opened.table

    def forget(self) -> None:
        """Look at every table anew: something went wrong with one."""
        self._open.clear()

    def compact(self, pipeline: str) -> None:
        """Merge small files now; a failure costs speed only."""
        for kind in KINDS:
            opened = self._open.get((pipeline, kind)) or self._existing(pipeline, kind)
            if opened is not None:
                opened.refresh()
                self._compact(opened)

    def read(self, ref: TableRef) -> pl.DataFrame:
        """Return all rows of a table at one version.

        Raises
        ------
        Retry
            When the store is away.
        """
        try:
            return read_table(ref, self.options)
        except DatasetError as error:
            raise Retry(f"datasets: {error}") from error

    def _append(
        self,
        pipeline: str,
        kind: RowKind,
        rows: pa.RecordBatch,
        position: Position,
        schema: pa.Schema,
    ) -> None:
        opened = self._table(pipeline, kind, schema)
        for name in widened(rows.schema, opened.table):
            self._widen(opened, name)
        if opened.has(position):
            logger.info("appended before a kill", pipeline=pipeline, at=str(position))
            return
        if opened.appends_left <= 0:
            self._compact(opened)
        aligned, is_wider = _aligned(rows, opened.table)
        try:
            write_deltalake(
                opened.table,
                aligned,
                mode="append",
                schema_mode="merge" if is_wider else None,
                writer_properties=PARQUET,
                commit_properties=CommitProperties(
                    app_transactions=[
                        Transaction(position.application, position.offset)
                    ]
                ),
            )
        except CommitFailedError:
            # Another process wrote this partition's batches, or dropped rows, since
            # we looked.
            opened.refresh()
            if not opened.has(position):
                raise
        else:
            opened.newest[position.application] = position.offset
            opened.appends_left -= 1

    def _table(self, pipeline: str, kind: RowKind, schema: pa.Schema) -> _Open:
        opened = self._open.get((pipeline, kind)) or self._existing(pipeline, kind)
        if opened is None:
            table = DeltaTable.create(
                self._uri_of(pipeline, kind),
                _nullable(schema),
                mode="ignore",  # another process may be first
                configuration=CONFIGURATION,
                storage_options=self.options,
            )
            opened = self._open[pipeline, kind] = _Open(table, COMPACT_APPENDS)
        return opened

    def _existing(self, pipeline: str, kind: RowKind) -> _Open | None:
        try:
            table = DeltaTable(
                self._uri_of(pipeline, kind), storage_options=self.options
            )
        except TableNotFoundError:
            return None
        left = max(0, MAX_FILES + COMPACT_APPENDS - len(table.file_uris()))
        opened = self._open[pipeline, kind] = _Open(table, left)
        return opened

    def _widen(self, opened: _Open, name: str) -> None:
        """Write a column of whole numbers anew as one of numbers, in a new version."""
        rows = opened.table.to_pyarrow_dataset()
        at = rows.schema.get_field_index(name)
        wider = rows.schema.set(at, pa.field(name, pa.float64()))
        batches = (
            batch.set_column(at, wider.field(at), batch.column(at).cast(pa.float64()))
            for batch in rows.to_batches()
        )
        write_deltalake(
            opened.table,
            pa.RecordBatchReader.from_batches(wider, batches),
            mode="overwrite",
            schema_mode="overwrite",
            writer_properties=PARQUET,
        )
        logger.info("column widened", column=name, version=opened.table.version())

    def _compact(self, opened: _Open) -> None:
        """Merge small files; a failure costs speed only."""
        try:
            for size in TARGET_BYTES:
                if len(opened.table.file_uris()) <= MAX_FILES:
                    break
                opened.table.optimize.compact(
                    target_size=size, writer_properties=PARQUET
                )
        except DeltaError as error:
            logger.warning("compaction failed", error=str(error))
            opened.refresh()
        opened.appends_left = COMPACT_APPENDS


def _ref(table: DeltaTable) -> TableRef:
    return TableRef(uri=table.table_uri.rstrip("/"), version=table.version())


def _nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with nullable columns only: what a table can grow from."""
    return pa.schema([pa.field(column.name, column.type) for column in schema])


def widened(schema: pa.Schema, table: DeltaTable) -> list[str]:
    """Return columns that are whole numbers in the table and numbers in the rows."""
    there = pa.schema(table.schema().to_arrow())
    return [
        column.name
        for column in schema
        if column.type == pa.float64()
        and column.name in there.names
        and there.field(column.name).type == pa.int64()
    ]


def _aligned(rows: pa.RecordBatch, table: DeltaTable) -> tuple[pa.RecordBatch, bool]:
    """Return rows with the table's columns, then new ones, and whether there are any.

    Raises
    ------
    Reject
        When a column's type differs, unless its whole numbers fit as numbers.
    """
    given = {column.name: column.type for column in rows.schema}
    fields, arrays = [], []
    for column in pa.schema(table.schema().to_arrow()):
        name, kind = column.name, column.type
        found = given.pop(name, kind)
        if (found, kind) == (pa.int64(), pa.float64()):
            at = rows.schema.get_field_index(name)
            numbers = rows.column(at).cast(kind)
            rows = rows.set_column(at, pa.field(name, kind), numbers)
        elif found != kind:
            raise Reject(
                f"is {kind} in the dataset and {found} in the pipeline file; a column "
                "cannot change its type: give it another name, or begin a new "
                "pipeline",
                field=name,
            )
        is_there = name in rows.schema.names
        fields.append(pa.field(name, kind))
        arrays.append(rows.column(name) if is_there else pa.nulls(rows.num_rows, kind))
    for name, kind in given.items():
        fields.append(pa.field(name, kind))
        arrays.append(rows.column(name))
    aligned = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return aligned, bool(given)
