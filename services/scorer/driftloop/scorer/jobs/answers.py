"""The table of a job's answers: it grows part by part, each part once.

A part is one commit of a Delta table. The same commit says how many rows of the
dataset have their answer now (as a Delta application transaction), so that a job that
was killed goes on after the last whole part. Two scorers that append the same part, as
one that was frozen and woke too late may, are told apart by Delta's own check on that
entry: one of the commits fails.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from driftloop.contracts.events import TableRef
from driftloop.runtime.errors import Retry
from driftloop.scorer.core import Answers

TIMES = pa.timestamp("us", "UTC")
NAMES = pa.list_(pa.string())
PREDICTION, SCORE, UNFAMILIAR = "prediction", "score", "unfamiliar"


class Counts(NamedTuple):
    """Rows of the table: all, those without an answer, those with unfamiliar values."""

    row_count: int
    error_count: int
    unfamiliar_count: int


def answers_schema(classes: Sequence[str]) -> pa.Schema:
    """Return the columns; see ``dataset-scored``.

    >>> answers_schema(()).names
    ['id', 'event_time', 'prediction', 'unfamiliar', 'version']
    >>> answers_schema(("no", "yes")).field("score").type
    DataType(double)
    """
    prediction = [(PREDICTION, pa.string() if classes else pa.float64())]
    if classes:
        is_binary = len(classes) == 2
        prediction.append(
            (SCORE, pa.float64() if is_binary else pa.list_(pa.float64()))
        )
    return pa.schema(
        [
            ("id", pa.string()), ("event_time", TIMES), *prediction,
            (UNFAMILIAR, NAMES), ("version", pa.int64()),
        ]
    )  # fmt: skip


def answer_rows(
    rows: pa.RecordBatch,
    said: Answers,
    unfamiliar: Sequence[Sequence[str] | None],
    version: int,
) -> pa.RecordBatch:
    """Return the answers to rows as the table has them.

    Parameters
    ----------
    unfamiliar : (n_rows,) features with a value that was not learned from, or None.
    """
    schema = answers_schema(said.classes)
    columns = {
        "id": rows.column("id"),
        "event_time": rows.column("event_time"),
        PREDICTION: said.prediction,
        SCORE: said.score,
        UNFAMILIAR: pa.array(unfamiliar, NAMES),
        "version": pa.repeat(pa.scalar(version, pa.int64()), rows.num_rows),
    }
    arrays = [columns[field.name].cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class AnswersTable:
    """One job's table; for one thread.

    Attributes
    ----------
    done : rows of the dataset that have their answer.
    """

    def __init__(
        self,
        uri: str,
        job_id: str,
        schema: pa.Schema,
        options: Mapping[str, str] | None,
    ) -> None:
        """Open it, or make it where it is not there yet.

        Raises
        ------
        Retry
            When the store is away.
        """
        self._uri, self._schema = uri, schema
        self._options = dict(options) if options else None
        self._application = f"driftloop-scorer/{job_id}"
        with self._reached():
            try:
                self._table = DeltaTable(uri, storage_options=self._options)
            except TableNotFoundError:
                self._table = DeltaTable.create(
                    uri,
                    schema,
                    mode="ignore",  # another scorer may be first
                    name=job_id,
                    description="answers of a model to a version of a dataset",
                    storage_options=self._options,
                )
            self.done = self._table.transaction_version(self._application) or 0

    def append(self, batches: Sequence[pa.RecordBatch], done: int) -> None:
        """Add a part, with which ``done`` rows of the dataset have their answer.

        Raises
        ------
        Retry
            When the store is away or full, or somebody else has added it.
        """
        part = pa.Table.from_batches(batches, self._schema)
        with self._reached():
            write_deltalake(
                self._table,
                part,
                mode="append",
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(self._application, done)]
                ),
            )
        self.done = done

    def tidy(self) -> None:
        """Remove files of parts that were never committed, as of a kill.

        Whoever reads the folder and not the Delta table would take them for rows.

        Raises
        ------
        Retry
            When the store is away.
        """
        with self._reached():
            self._table.vacuum(
                retention_hours=0,
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )

    def counts(self) -> Counts:
        """Count what is in it.

        Raises
        ------
        Retry
            When the store is away.
        """
        with self._reached():
            rows = self._table.to_pyarrow_dataset()
            return Counts(
                rows.count_rows(),
                rows.count_rows(filter=pc.field(PREDICTION).is_null()),
                rows.count_rows(filter=pc.field(UNFAMILIAR).is_valid()),
            )

    def ref(self) -> TableRef:
        """Return the table at its newest version."""
        return TableRef(uri=self._uri, version=self._table.version())

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            raise Retry(f"{self._uri}: another scorer was first: {error}") from error
        except (DeltaError, OSError) as error:
            raise Retry(f"{self._uri}: {error}") from error
