"""The same 30 columns checked by others: pandera on Polars, pydantic, bare Polars.

Each checks what ours does: types, nulls, ranges, allowed values, unique ids. None of
them keeps what ours hands on: the rows that fail, each with its reasons.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pandera.polars as pandera
import polars as pl
from pandera.errors import SchemaErrors
from pydantic import Field, TypeAdapter, ValidationError, create_model

LOW, HIGH = -8, 8
MOST = 99


def bare_polars(frame: pl.DataFrame, seasons: Sequence[str]) -> pl.DataFrame:
    """Return the rows that pass, by nothing but expressions: the limit."""
    bad = []
    for name in frame.columns:
        column = pl.col(name)
        match _kind(name):
            case "n":
                in_range = column.is_between(LOW, HIGH) & column.is_finite()
                bad.append(column.is_null() | ~in_range)
            case "i":
                bad.append(column.is_null() | ~column.is_between(0, MOST))
            case "c":
                bad.append(column.is_null() | ~column.is_in(seasons))
    bad.append(pl.col("id").is_duplicated())
    return frame.filter(~pl.any_horizontal(bad))


def by_pandera(
    frame: pl.DataFrame, seasons: Sequence[str]
) -> Callable[[], pl.DataFrame | None]:
    """Return a validation that collects all errors, as ours does."""
    columns: dict[str, Any] = {"id": pandera.Column(pl.String, unique=True)}
    for name in frame.columns:
        match _kind(name):
            case "n":
                in_range = pandera.Check.in_range(LOW, HIGH)
                columns[name] = pandera.Column(pl.Float64, in_range)
            case "i":
                in_range = pandera.Check.in_range(0, MOST)
                columns[name] = pandera.Column(pl.Int64, in_range)
            case "c":
                allowed = pandera.Check.isin(list(seasons))
                columns[name] = pandera.Column(pl.String, allowed)
    schema = pandera.DataFrameSchema(columns)

    def validate() -> pl.DataFrame | None:
        try:
            return schema.validate(frame, lazy=True)
        except SchemaErrors as errors:
            return errors.failure_cases

    return validate


def by_pydantic(
    rows: list[dict[str, Any]], seasons: Sequence[str]
) -> Callable[[], int]:
    """Return a validation of rows as models, the usual way for rows that are dicts."""
    number = Annotated[float, Field(ge=LOW, le=HIGH, allow_inf_nan=False)]
    integer = Annotated[int, Field(ge=0, le=MOST)]
    kinds = {"n": number, "i": integer, "c": Literal[tuple(seasons)]}
    fields = {
        name: (kinds[kind], ...)
        for name in rows[0]
        if (kind := _kind(name)) is not None
    }
    one = TypeAdapter(create_model("Row", **fields))  # type: ignore[call-overload]

    def validate() -> int:
        good = 0
        for row in rows:
            try:
                one.validate_python(row)
            except ValidationError:
                continue
            good += 1
        return good

    return validate


def _kind(name: str) -> str | None:
    """Return n, i or c for a column such as n12; None for others."""
    return name[0] if name[0] in "nic" and name[1:].isdigit() else None
