"""Checks of a pipeline file beyond each column's own rules.

A check has a severity: ``ignore`` it, ``warn`` (rows go on, the finding travels with
the batch), ``quarantine`` the rows it found, or ``reject`` the whole batch.
docs/checks.md says what each catches and what it costs.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from driftloop.contracts.base import Section
from pydantic import BeforeValidator, Field, StringConstraints, field_validator
from pydantic import TypeAdapter as _TypeAdapter
from pydantic_core import SchemaError

Severity = Literal["ignore", "warn", "quarantine", "reject"]
IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
ImportPath = Annotated[str, Field(pattern=IMPORT_PATH)]

SQL_FUNCTIONS = frozenset({
    "abs", "and", "avg", "between", "case", "cast", "ceil", "char_length",
    "coalesce", "cos", "count", "date_part", "date_trunc", "degrees", "else",
    "ends_with", "exp", "extract", "floor", "greatest", "if", "ifnull", "in",
    "initcap", "least", "left", "length", "ln", "log", "log10", "log2", "lower",
    "max", "median", "min", "mod", "not", "nullif", "or", "pow", "power", "radians",
    "regexp_like", "replace", "right", "round", "sign", "sin", "sqrt",
    "starts_with", "stddev", "strpos", "substr", "sum", "tan", "then", "trim",
    "try_cast", "upper", "variance", "when",
})  # fmt: skip
"""What an expression may call, and the words that may stand before a bracket."""
SQL_FORBIDDEN = re.compile(r";|--|/\*|\b(select|table|values|with)\b", re.IGNORECASE)
SQL_TEXTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
SQL_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")


def is_pattern(pattern: str) -> bool:
    r"""Whether a regular expression is one of those that take linear time.

    The engine is Rust's ``regex``, which has no look-around and no back-references.

    Examples
    --------
    >>> is_pattern(r"[A-Z]{2}-[0-9]+"), is_pattern(r"(a)\1"), is_pattern("(")
    (True, False, False)
    """
    try:
        _TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        return False
    return True


def unsafe_sql(sql: str) -> Iterator[str]:
    """Name what an expression has that it may not have: subqueries, other functions.

    Examples
    --------
    >>> list(unsafe_sql("casual + registered = cnt AND abs(temp) < 60"))
    []
    >>> list(unsafe_sql("temp > (SELECT 1)")), list(unsafe_sql("read_csv('x') = 1"))
    (['SELECT'], ['read_csv()'])
    >>> list(unsafe_sql("name <> 'select one; (all)'"))
    []
    """
    bare = SQL_TEXTS.sub("''", sql)
    yield from (found.group() for found in SQL_FORBIDDEN.finditer(bare))
    for name in SQL_CALL.findall(bare):
        if name.lower() not in SQL_FUNCTIONS:
            yield f"{name}()"


class Check(Section):
    """What all checks have."""

    severity: Severity = Field(
        default="warn",
        description="what happens on a finding; ignore: the check does not run",
    )


class UnitSlip(Check):
    """Values jumped by a factor, or from one scale of temperature to another."""

    check: Literal["unit_slip"]
    columns: list[str] = Field(default=[], description="empty: all numbers")
    min_factor: float = Field(
        default=3.0,
        ge=1.5,
        description="smallest factor, against the reference's extremes and the last "
        "good values",
    )


class Stuck(Check):
    """One value came over and over from a sensor that used to vary."""

    check: Literal["stuck"]
    columns: list[str] = Field(default=[], description="empty: all numbers")
    rows: int = Field(
        default=24, ge=3, description="equal values in a row; at least three times the "
        "longest such run of the reference"
    )  # fmt: skip


class Spikes(Check):
    """Single values far from the reference and from their neighbours."""

    check: Literal["spikes"]
    columns: list[str] = Field(default=[], description="empty: all numbers")
    threshold: float = Field(
        default=12.0, ge=3, description="robust z-score, and more where the "
        "reference itself has larger ones"
    )  # fmt: skip


class Distribution(Check):
    """The newest rows are distributed otherwise than the reference."""

    check: Literal["distribution"]
    columns: list[str] = Field(default=[], description="empty: all features")
    min_effect: float = Field(
        default=0.3, gt=0, lt=1, description="distance from 0 (equal) to 1 (nothing in "
        "common) below which a difference does not matter"
    )  # fmt: skip
    alpha: float = Field(
        default=0.001, gt=0, le=0.1, description="false alarms, over all columns"
    )
    power: float = Field(
        default=0.8, ge=0.5, lt=1, description="chance to find min_effect; rows are "
        "gathered until there are enough for it"
    )  # fmt: skip


class NullRatio(Check):
    """Too many rows of a batch lack a value that a row may lack."""

    check: Literal["null_ratio"]
    columns: list[str] = Field(default=[], description="empty: all features")
    max_ratio: float = Field(ge=0, lt=1, description="of a batch's rows")


class Unique(Check):
    """Values, alone or together, that come once in the whole dataset."""

    check: Literal["unique"]
    severity: Severity = "quarantine"
    columns: list[str] = Field(
        min_length=1, description="together unique; a row that lacks one is left out"
    )


class RowCount(Check):
    """How many rows a batch has."""

    check: Literal["row_count"]
    severity: Severity = "reject"
    min: int = Field(default=1, ge=1, description="fewest rows of a batch")
    max: int | None = Field(default=None, ge=1, description="most rows of a batch")


class Freshness(Check):
    """How old the newest row of a batch is when the batch is made."""

    check: Literal["freshness"]
    max_age_hours: float = Field(gt=0, description="from event time to arrival")


class Monotonic(Check):
    """Event time does not run backwards within a source."""

    check: Literal["monotonic"]


class Expression(Check):
    """What holds between the columns of a row."""

    check: Literal["expression"]
    severity: Severity = "quarantine"
    sql: str = Field(
        description="SQL that is true for a right row, such as "
        "`casual + registered = cnt`; unknown (null) passes",
    )
    name: str | None = Field(default=None, description="how findings call it")

    @field_validator("sql")
    @classmethod
    def _is_restricted(cls, value: str) -> str:
        if found := ", ".join(dict.fromkeys(unsafe_sql(value))):
            raise ValueError(
                f"{found} is not allowed in an expression; use columns, operators "
                "and plain functions such as abs, round, coalesce, lower"
            )
        return value


class FunctionCheck(Check):
    """A function of your own package."""

    check: Literal["function"]
    severity: Severity = "quarantine"
    function: ImportPath = Field(description="`package.module:name`")


class PanderaCheck(Check):
    """A pandera schema (for Polars) of your own package."""

    check: Literal["pandera"]
    severity: Severity = "quarantine"
    pandera: ImportPath = Field(description="`package.module:name`")


CHECKS: tuple[type[Check], ...] = (
    UnitSlip, Stuck, Spikes, Distribution, NullRatio, Unique, RowCount, Freshness,
    Monotonic, Expression, FunctionCheck, PanderaCheck,
)  # fmt: skip
IMPORTED = ("function", "pandera")


def kind_of(check: type[Check]) -> str:
    """Return what ``check:`` says for a kind of check.

    >>> kind_of(UnitSlip)
    'unit_slip'
    """
    (name,) = check.model_fields["check"].annotation.__args__  # type: ignore[union-attr]
    return str(name)


def _named(value: Any) -> Any:
    """Let ``{function: a.b:c}`` say which check it is without ``check``."""
    if isinstance(value, dict) and "check" not in value:
        for name in IMPORTED:
            if name in value:
                return {"check": name, **value}
    return value


def _without_discriminator(schema: dict[str, Any]) -> None:
    """Leave out what OpenAPI knows and AsyncAPI does not: the names suffice."""
    schema.pop("discriminator", None)


AnyCheck = Annotated[
    Annotated[
        UnitSlip
        | Stuck
        | Spikes
        | Distribution
        | NullRatio
        | Unique
        | RowCount
        | Freshness
        | Monotonic
        | Expression
        | FunctionCheck
        | PanderaCheck,
        Field(discriminator="check", json_schema_extra=_without_discriminator),
    ],
    BeforeValidator(_named),
]

DEFAULT_CHECKS: tuple[Check, ...] = (
    UnitSlip(check="unit_slip"),
    Stuck(check="stuck"),
)
"""Run for every pipeline whose file does not list a check of their kind."""


def active_checks(listed: list[Any]) -> list[Any]:
    """Return the checks to run: the listed ones, then the defaults of other kinds.

    >>> [c.check for c in active_checks([Stuck(check="stuck", severity="ignore")])]
    ['unit_slip']
    """
    kinds = {check.check for check in listed}
    others = [check for check in DEFAULT_CHECKS if check.check not in kinds]  # type: ignore[attr-defined]
    return [check for check in [*listed, *others] if check.severity != "ignore"]
