"""Answers requests and counts them: what HTTP and the command line have in common."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .columns import Array, Columns, feeds_of, flat
from .errors import BadRequest, ModelFailed
from .figures import Figures, now_text
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
        home, now = self.package.home, now_text()
        wanted = [column.name for column in self.package.inputs]
        if home.time_column in columns and home.time_column not in wanted:
            wanted.append(home.time_column)
        values = {name: flat(columns[name], name) for name in wanted}
        ids = _ids(columns, home.id_column, rows)
        named = request_id if rows == 1 else None
        drawn = []
        for lot, at in places:
            row: dict[str, Any] = {home.time_column: now}
            row |= {n: _plain(v[at]) for n, v in values.items() if at < len(v)}
            given = ids[at] if ids else named
            row[home.id_column] = given or (
                f"{self._edge}/{self._figures.report_id}/{lot:.17f}"
            )
            drawn.append((lot, row))
        self._figures.keep(drawn)


def _plain(value: Any) -> Any:
    return int(value) if type(value) is not bool and isinstance(value, int) else value


def _ids(columns: Columns, id_column: str, rows: int) -> list[str | None] | None:
    """Return which rows a request asks about; None where it does not say so."""
    given = columns.get(id_column, columns.get(ROW_ID))
    if not isinstance(given, list | tuple) or len(given) != rows:
        return None
    try:
        values = flat(given, id_column)
    except BadRequest:
        return None
    return [str(v) if isinstance(v, str | int) and v != "" else None for v in values]
