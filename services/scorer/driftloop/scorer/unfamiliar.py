"""Which values of a request a version has not learned from.

A model answers whatever it is asked. Outside of what it has seen, trees go on with
their last leaf and lines go on for ever: the answer is worth less, and the caller is
told. Moments are left out: each new one lies after those of training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from driftloop.models.package import InputColumn
from driftloop.scorer.feeds import Feeds
from driftloop.scorer.metrics import UNFAMILIAR

UNFAMILIAR_HEADER = "x-driftloop-unfamiliar"


@dataclass(frozen=True, slots=True)
class Unfamiliar:
    """A column with values that the version has not learned from.

    Attributes
    ----------
    row_count : rows of the request with such a value.
    learned : what it has learned from, in words.
    """

    column: str
    row_count: int
    learned: str

    def __str__(self) -> str:
        rows = "1 row" if self.row_count == 1 else f"{self.row_count} rows"
        return f"{self.column}: {rows} not {self.learned}"


class Familiar:
    """What a version has learned from, ready for the test of each request."""

    def __init__(self, inputs: Sequence[InputColumn]) -> None:
        ranged = [c for c in inputs if c.least is not None and c.greatest is not None]
        self._names = [column.name for column in ranged]
        self._least = np.array([c.least for c in ranged], dtype=np.float32)
        self._greatest = np.array([c.greatest for c in ranged], dtype=np.float32)
        self._known = {
            column.name: frozenset(column.categories)
            for column in inputs
            if column.type == "category" and column.categories
        }

    def unfamiliar(self, feeds: Feeds) -> list[Unfamiliar]:
        """Return columns with values outside; a missing value is none.

        Parameters
        ----------
        feeds : each feature as (n_rows, 1).
        """
        found = list(self._outside(feeds)) if self._names else []
        for name, known in self._known.items():
            values = feeds[name].ravel().tolist()
            if not known.issuperset(values):
                count = sum(value not in known and value != "" for value in values)
                if count:
                    found.append(Unfamiliar(name, count, "a value seen in training"))
        return found

    def by_row(self, feeds: Feeds, row_count: int) -> list[list[str] | None]:
        """Return the columns with such a value for each row; None: there is none."""
        found: list[list[str] | None] = [None] * row_count

        def note(column: str, rows: Iterable[int]) -> None:
            for row in rows:
                names = found[row]
                if names is None:
                    names = found[row] = []
                names.append(column)

        if self._names:
            is_outside = self._is_outside(feeds)
            for position in np.flatnonzero(is_outside.any(axis=0)):
                rows = np.flatnonzero(is_outside[:, position])
                note(self._names[position], rows.tolist())
        for name, known in self._known.items():
            values = feeds[name].ravel().tolist()
            if not known.issuperset(values):
                is_new = (value not in known and value != "" for value in values)
                note(name, (row for row, new in enumerate(is_new) if new))
        return found

    def _is_outside(self, feeds: Feeds) -> npt.NDArray[np.bool_]:
        values = np.concatenate([feeds[name] for name in self._names], axis=1)
        outside: npt.NDArray[np.bool_] = values < self._least
        outside |= values > self._greatest
        return outside

    def _outside(self, feeds: Feeds) -> list[Unfamiliar]:
        is_outside = self._is_outside(feeds)
        if not is_outside.any():
            return []
        return [
            Unfamiliar(
                self._names[position],
                int(is_outside[:, position].sum()),
                f"within {self._least[position]:g} to "
                f"{self._greatest[position]:g}, as in training",
            )
            for position in np.flatnonzero(is_outside.any(axis=0))
        ]


def headers_of(found: Sequence[Unfamiliar]) -> dict[str, str]:
    """Return the header of an answer: the columns' names, percent-encoded."""
    if not found:
        return {}
    names = ", ".join(quote(one.column, safe="") for one in found)
    return {UNFAMILIAR_HEADER: names}


def count_unfamiliar(pipeline: str, found: Sequence[Unfamiliar]) -> None:
    if found:
        UNFAMILIAR.labels(pipeline).inc()
