"""What a column's values are like: statistics that travel in events and reports."""

from typing import Literal

from driftloop.contracts.base import Value
from pydantic import Field

ColumnKind = Literal["number", "integer", "category", "boolean", "time"]


class Frequency(Value):
    """How often one value of a category occurs."""

    value: str
    count: int = Field(ge=1)


class Spread(Value):
    """Where the finite values of a number column lie.

    ``histogram`` counts values in equal bins from ``min`` to ``max``.
    """

    min: float
    max: float
    mean: float
    deviation: float = Field(ge=0, description="standard deviation, n - 1")
    median: float
    quartiles: tuple[float, float]
    histogram: list[int]


class ColumnProfile(Value):
    """Statistics of one column over ``row_count`` rows."""

    type: ColumnKind
    row_count: int = Field(ge=0)
    null_count: int = Field(ge=0, description="null, or NaN")
    distinct_count: int = Field(ge=0)
    spread: Spread | None = Field(default=None, description="of numbers")
    frequent: list[Frequency] = Field(
        default_factory=list, description="of categories and booleans, most first"
    )

    @property
    def null_ratio(self) -> float:
        return self.null_count / self.row_count if self.row_count else 0.0

    @property
    def is_unique(self) -> bool:
        """Whether no value occurs twice (and there are at least two)."""
        known = self.row_count - self.null_count
        return known > 1 and self.distinct_count == known
