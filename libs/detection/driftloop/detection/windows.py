"""Which rows are compared: windows over a stream that comes in pieces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["tumbling", "hopping", "adaptive"]
HOPS = 4
"""Looks that a hopping window gives each row: later than a change by a quarter of the
window at most."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of so many rows, one after so many more.

    Attributes
    ----------
    hop_rows : from a window's end to the next one's.
    """

    rows: int
    hop_rows: int

    @classmethod
    def tumbling(cls, rows: int) -> "Windows":
        """Return windows that touch: each row is looked at once."""
        return cls(rows, rows)

    @classmethod
    def hopping(cls, rows: int, hops: int = HOPS) -> "Windows":
        """Return windows that overlap: a change is seen earlier, at more looks."""
        return cls(rows, max(1, rows // hops))

    def ends(self, before: int, after: int) -> Iterator[int]:
        """Yield the counts of rows at which windows end, while rows come in.

        >>> list(Windows.hopping(100).ends(0, 160))
        [100, 125, 150]
        >>> list(Windows.tumbling(100).ends(160, 310))
        [200, 300]
        """
        passed = max(0, math.floor((before - self.rows) / self.hop_rows) + 1)
        end = self.rows + passed * self.hop_rows
        while end <= after:
            yield end
            end += self.hop_rows

    def alpha_a_look(self, alpha: float) -> float:
        """Return the level of each look, so that a row's looks have ``alpha`` together.

        >>> Windows.hopping(100).alpha_a_look(0.004)
        0.001
        """
        return alpha * self.hop_rows / self.rows
