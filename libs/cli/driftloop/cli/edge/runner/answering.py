"""Answers requests and counts them: what HTTP and the command line have in common."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .columns import (
    Array,
    Columns,
    Moment,
    feeds_of,
    flat,
    microseconds,
    moment_text,
)
from .errors import BadRequest, ModelFailed
from .figures import Figures, text_of
from .inference import ROW_ID
from .metrics import Metrics
from .model import Model, Predictions, non_finite
from .package import Package
from .unfamiliar import Familiar, Unfamiliar


@dataclass(frozen=True)
class Answer:
    """What the model says, and what it has not learned from.

    Attributes
    ----------
    bad : (n_rows,) rows without a finite answer.
    """

    said: Predictions
    unfamiliar: Sequence[Unfamiliar]
    bad: Array


class Desk:
    """Answers with one model.

    Parameters
    ----------
    edge : name of this runner, in the ids of rows that have none.
    """

    def __init__(
        self, package: Package, model: Model, figures: Figures, edge: str
    ) -> None:
        self.package = package
        self.metrics = Metrics(package)
        self._model = model
        self._figures = figures
        self._familiar = Familiar(package.inputs)
        self._edge = edge

    def answer(
        self, columns: Columns, request_id: str | None = None, first: int | None = None
    ) -> Answer:
        """Answer each row of a request.

        Parameters
        ----------
        columns : feature to values.
        request_id : the caller's; of a single row it is the row's id too.
        first : number of the first row in its file, for what errors say; then a row
            without a finite answer fails alone. None: it is a request, which fails.

        Raises
        ------
        BadRequest
            Names the column that is not right.
        ModelFailed
            When the model cannot answer.
        """
        feeds, rows = feeds_of(columns, self.package.inputs, first or 0)
        started = time.perf_counter()
        try:
            said = self._model.predict(feeds, rows)
            bad = non_finite(said)
            bad_count = int(bad.sum())
            if bad_count and first is None:
                raise ModelFailed(f"no finite answer for {bad_count} of {rows} rows")
        except ModelFailed:
            seconds = time.perf_counter() - started
            self._figures.failed(rows, seconds)
            self.metrics.called(rows, rows, seconds)
            raise
        seconds = time.perf_counter() - started
        found, unfamiliar_rows = self._familiar.unfamiliar(feeds, rows)
        self._figures.answered(rows, seconds, found, unfamiliar_rows, bad_count)
        self.metrics.called(rows, bad_count, seconds)
        self.metrics.unfamiliar(unfamiliar_rows)
        self._sample(columns, rows, request_id)
        return Answer(said, found, bad)

    def refused(self) -> None:
        """Count a request that was not right."""
        self._figures.refused()

    def _sample(self, columns: Columns, rows: int, request_id: str | None) -> None:
        places = self._figures.places(rows)
        if not places:
            return
        home, now = self.package.home, text_of(datetime.now(UTC))
        names = [column.name for column in self.package.inputs]
        values = {name: flat(columns[name], name) for name in names}
        times = _listed(columns.get(home.time_column), rows)
        ids = _listed(columns.get(home.id_column, columns.get(ROW_ID)), rows)
        named = request_id if rows == 1 else None
        drawn = []
        for lot, at in places:
            row = {home.time_column: _time(times[at] if times else None) or now}
            row |= {name: _plain(values[name][at]) for name in names}
            row[home.id_column] = _id(ids[at] if ids else named) or (
                f"{self._edge}/{self._figures.report_id}/{lot:.17f}"
            )
            drawn.append((lot, row))
        self._figures.keep(drawn)


def _plain(value: Any) -> Any:
    """Return a value as home's door reads it: a moment as text."""
    return moment_text(value) if isinstance(value, Moment) else value


def _listed(given: Any, rows: int) -> list[Any] | None:
    """Return a column that came beside the inputs; None where it fits no rows."""
    if not isinstance(given, list | tuple) or len(given) != rows:
        return None
    try:
        return flat(given, ROW_ID)
    except BadRequest:
        return None


def _time(value: Any) -> str | None:
    """Return the time that a row brings, if it is one."""
    try:
        microseconds(value, UTC)
    except ValueError:
        return None
    return str(_plain(value))


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None
