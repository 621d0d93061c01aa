"""Scores a dataset version row by row into the table of its job.

Imported with the first job: a scorer starts without what only this needs.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from driftloop.contracts.scoring import DatasetScored, ScoringPlan
from driftloop.models.onnx_model import InputRefused
from driftloop.runtime.throttle import Fields, Throttle
from driftloop.scorer.background import ROWS_A_CALL, Breaks
from driftloop.scorer.jobs.answers import AnswersTable, answer_rows, answers_schema
from driftloop.scorer.jobs.facts import Abandoned, CannotScore
from driftloop.scorer.jobs.source import Source
from driftloop.scorer.metrics import count_call
from driftloop.scorer.shelf import Loaded

ROLE = "asked"
"""Of the version, in metrics: whether it is in service says nothing here."""
MIN_ELAPSED_S = 1.0
"""Of a job, before its pace says anything."""


@dataclass(frozen=True)
class Working:
    """What a job is done with.

    Attributes
    ----------
    options : for Delta tables.
    part_rows : of a part of the table.
    is_ours : whether to go on; asked every few milliseconds.
    tell : called with the fields of a ``scoring-progressed``, not too often.
    """

    options: Mapping[str, str] | None
    part_rows: int
    stopping: threading.Event
    is_ours: Callable[[], bool]
    tell: Callable[[Fields], None]


def opened(
    pipeline: str, plan: ScoringPlan, loaded: Loaded, working: Working
) -> Source:
    """Open what is to be scored; see :class:`Source`.

    Raises
    ------
    CannotScore
        Also when a column is not of the type that the model takes.
    """
    features = [column.name for column in loaded.manifest.inputs]
    source = Source(pipeline, plan.dataset.observations, features, working.options)
    try:
        loaded.model.feeds(source.schema.empty_table())
    except InputRefused as error:
        raise CannotScore(
            f"the dataset does not fit version {loaded.version}: {error}",
            "take a version of the dataset that does, or another one of the model",
        ) from error
    return source


def scored(
    job_id: str,
    plan: ScoringPlan,
    source: Source,
    loaded: Loaded,
    working: Working,
) -> DatasetScored:
    """Score what has no answer yet; return what came of it, without its cost.

    Raises
    ------
    Abandoned
        When it is not to go on.
    CannotScore
        When there is no answer to any row, or the dataset's files are gone.
    Retry
        When a store is away.
    """
    classes = loaded.manifest.classes
    table = AnswersTable(
        plan.answers_uri, job_id, answers_schema(classes), working.options
    )
    pipeline = loaded.manifest.pipeline
    detail = _fill(pipeline, source, loaded, table, working)
    table.tidy()
    counts = table.counts()
    if counts.row_count != source.row_count:
        raise RuntimeError(
            f"{counts.row_count} answers to {source.row_count} rows: {table.ref()}"
        )
    if counts.row_count and counts.error_count == counts.row_count:
        raise CannotScore(
            f"version {plan.version} answered none of {counts.row_count:,} rows"
            f"{': ' + detail if detail else ''}",
            "take another version of the model, or of the dataset",
        )
    return DatasetScored(
        pipeline=pipeline, job_id=job_id, dataset=plan.dataset, version=plan.version,
        package=plan.package, answers=table.ref(), row_count=counts.row_count,
        error_count=counts.error_count, unfamiliar_count=counts.unfamiliar_count,
        classes=list(classes), duration_seconds=0, cpu_seconds=0, requested_by="",
    )  # fmt: skip


def _fill(
    pipeline: str,
    source: Source,
    loaded: Loaded,
    table: AnswersTable,
    working: Working,
) -> str:
    """Add part after part; return what went wrong with a row, if anything did."""
    part: list[pa.RecordBatch] = []
    done, detail = table.done, ""
    progress = Progress(working.tell, loaded.version, source.row_count, done)
    breaks = Breaks(working.stopping)
    for rows in source.batches(done, ROWS_A_CALL):
        if not working.is_ours():
            raise Abandoned
        answers, error = _answered(pipeline, loaded, rows)
        part.append(answers)
        done += rows.num_rows
        detail = detail or error
        if done - table.done >= working.part_rows or done == source.row_count:
            table.append(part, done)
            part = []
            progress.reached(done)
        breaks.rest()
    return detail


def _answered(
    pipeline: str, loaded: Loaded, rows: pa.RecordBatch
) -> tuple[pa.RecordBatch, str]:
    feeds, count = loaded.model.feeds(rows), rows.num_rows
    said = loaded.answer_feeds(feeds, count)
    count_call(pipeline, ROLE, "dataset", count, said.error_count, said.seconds)
    unfamiliar = loaded.familiar.by_row(feeds, count)
    return answer_rows(rows, said, unfamiliar, loaded.version), said.detail


class Progress:
    """What people see of a job that runs.

    Parameters
    ----------
    first : rows that an earlier try had done; they took none of this one's time.
    """

    def __init__(
        self,
        tell: Callable[[Fields], None],
        version: int,
        row_count: int,
        first: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version, self._row_count, self._first = version, row_count, first
        self._clock, self._started = clock, clock()
        self._throttle = Throttle(tell, clock=clock)

    def reached(self, done: int) -> None:
        """Take note of rows that have their answer."""
        self._throttle.take(
            {
                "version": self._version,
                "done_count": done,
                "row_count": self._row_count,
                "done_ratio": done / self._row_count,
                "eta_seconds": self._eta(done),
                "resumed_from": self._first or None,
            }
        )

    def _eta(self, done: int) -> float | None:
        elapsed = self._clock() - self._started
        if elapsed < MIN_ELAPSED_S or done <= self._first:
            return None
        return round(elapsed / (done - self._first) * (self._row_count - done), 1)
