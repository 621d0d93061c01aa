"""A pipeline's schema as it lives: what columns are like, and what changed in them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from driftloop.contracts.base import UtcTime, Value
from driftloop.contracts.pipeline import Feature, limit_text
from pydantic import Field

ColumnKind = Literal["number", "integer", "category", "boolean", "time", "payload"]


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
    spread: Spread | None = Field(
        default=None, description="of numbers, and of payloads' sizes"
    )
    frequent: list[Frequency] = Field(
        default_factory=list,
        description="of categories, booleans and payloads' media types, most first",
    )
    first: UtcTime | None = Field(default=None, description="earliest of moments")
    last: UtcTime | None = Field(default=None, description="latest of moments")

    @property
    def null_ratio(self) -> float:
        return self.null_count / self.row_count if self.row_count else 0.0

    @property
    def is_unique(self) -> bool:
        """Whether no value occurs twice (and there are at least two)."""
        known = self.row_count - self.null_count
        return known > 1 and self.distinct_count == known


ChangeKind = Literal["new_column", "missing_column", "type_widened", "values_added"]


class SchemaChange(Value):
    """What in a batch is not as the schema says, and what becomes of its rows."""

    column: str
    kind: ChangeKind
    detail: str


class SchemaColumn(Value):
    """One column of a schema; ``profile`` says what it was inferred from."""

    feature: Feature
    profile: ColumnProfile | None = None


def features_of(columns: Mapping[str, SchemaColumn]) -> dict[str, Feature]:
    """Return the rules of a schema alone, as in a pipeline file."""
    return {name: column.feature for name, column in columns.items()}


def differences(old: Mapping[str, Feature], new: Mapping[str, Feature]) -> list[str]:
    """Return what is different, a line each.

    >>> differences({"a": Feature(max=1)}, {"a": Feature(max=2), "b": Feature()})
    ['a: max 1 → 2', 'b: new']
    """
    return list(_differences(old, new))


def _differences(
    old: Mapping[str, Feature], new: Mapping[str, Feature]
) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            yield f"{name}: gone"
        elif name not in old:
            yield f"{name}: new"
        else:
            yield from _changed(name, old[name], new[name])


def _changed(name: str, old: Feature, new: Feature) -> Iterator[str]:
    for key in Feature.model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        if key == "values" and before is not None and after is not None:
            more = [f"+{v}" for v in after if v not in before]
            less = [f"-{v}" for v in before if v not in after]
            yield f"{name}: values {' '.join([*more, *less]) or 'in another order'}"
        else:
            yield f"{name}: {key} {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    if isinstance(value, float | datetime):
        return limit_text(value)
    return "none" if value is None else str(value)
