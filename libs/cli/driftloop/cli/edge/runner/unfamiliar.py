"""Which values of a request the model has not learned from."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from .columns import Array, Column, Feeds


@dataclass(frozen=True)
class Unfamiliar:
    """A column with values that the model has not learned from."""

    column: str
    row_count: int
    learned: str

    def __str__(self) -> str:
        rows = "1 row" if self.row_count == 1 else f"{self.row_count} rows"
        return f"{self.column}: {rows} not {self.learned}"


class Familiar:
    """What the model has learned from, ready for the test of each request."""

    def __init__(self, inputs: Sequence[Column]) -> None:
        ranged = [c for c in inputs if c.least is not None and c.greatest is not None]
        self._names = [column.name for column in ranged]
        self._least = np.array([c.least for c in ranged], dtype=np.float32)
        self._greatest = np.array([c.greatest for c in ranged], dtype=np.float32)
        self._known = {
            column.name: frozenset(column.categories)
            for column in inputs
            if column.type == "category" and column.categories
        }

    def unfamiliar(self, feeds: Feeds, row_count: int) -> tuple[list[Unfamiliar], int]:
        """Return columns with values outside, and how many rows have any.

        A missing value is none. Moments are left out: each new one is later than
        those of training.
        """
        rows = np.zeros(row_count, dtype=bool)
        found = self._outside(feeds, rows) if self._names and row_count else []
        for name, known in self._known.items():
            values = feeds[name].ravel().tolist()
            if known.issuperset(values):
                continue
            new = np.array([v not in known and v != "" for v in values], dtype=bool)
            if new.any():
                rows |= new
                count = int(new.sum())
                found.append(Unfamiliar(name, count, "a value seen in training"))
        return found, int(rows.sum())

    def _outside(self, feeds: Feeds, rows: Array) -> list[Unfamiliar]:
        values = np.concatenate([feeds[name] for name in self._names], axis=1)
        outside = (values < self._least) | (values > self._greatest)
        rows |= outside.any(axis=1)
        return [
            Unfamiliar(
                self._names[at],
                int(outside[:, at].sum()),
                f"within {self._least[at]:g} to {self._greatest[at]:g}, as in training",
            )
            for at in np.flatnonzero(outside.any(axis=0))
        ]


def in_words(found: Sequence[Unfamiliar]) -> str:
    """Return all of it as one text."""
    return "; ".join(map(str, found))


def header_of(found: Sequence[Unfamiliar]) -> str:
    """Return the names of the columns, percent-encoded."""
    return ", ".join(quote(one.column, safe="") for one in found)
