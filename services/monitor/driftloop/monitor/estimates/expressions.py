"""Metrics that a pipeline file gives as expressions, over the rows of a window.

Polars' SQL for one row, as in the validator's ``expression`` check and under the same
rule (:func:`driftloop.contracts.checks.unsafe_sql`): columns, operators, plain
functions. It reads nothing but the table at hand and cannot loop, so its cost is that
of the rows, which are few.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.estimates import BusinessMetric
from driftloop.contracts.monitoring import BusinessMetricRule
from driftloop.monitor.estimates.kept import (
    BY,
    LABEL,
    RIVAL_SAID,
    RIVAL_VERSION,
    SAID,
    classes_of,
    shares_of,
)

NEEDS_LABEL = re.compile(r"\blabel\b", re.IGNORECASE)
MAX_DETAIL = 200


def needs_label(rule: BusinessMetricRule) -> bool:
    """Whether a metric waits for labels.

    >>> of = lambda text: BusinessMetricRule(name="x", expression=text)
    >>> needs_label(of("abs(prediction - label)")), needs_label(of("prediction * 2"))
    (True, False)
    """
    return NEEDS_LABEL.search(rule.expression) is not None


def evaluated(
    rules: Sequence[BusinessMetricRule], rows: pa.Table, row_count: int
) -> list[BusinessMetric]:
    """Return each metric over a window.

    Parameters
    ----------
    rows : kept rows, with labels where a rule needs them.
    row_count : of the whole window; a sum over rows evenly drawn from it is raised to
        it.
    """
    if not rules:
        return []
    frame = _frame(rows)
    return [_one(rule, frame, rows.num_rows, row_count) for rule in rules]


def _frame(rows: pa.Table) -> Any:
    import polars as pl  # not above: only pipelines with such metrics pay for it

    classes = classes_of(rows)
    own = [SAID, LABEL, BY, RIVAL_SAID, RIVAL_VERSION]
    features = rows.drop_columns([n for n in own if n in rows.schema.names])
    said = shares_of(rows, classes)
    columns: dict[str, Any] = {"label": rows[LABEL]}
    if classes:
        columns["prediction"] = pa.array(np.array(classes)[said.argmax(axis=1)])
        best = said[:, 1] if len(classes) == 2 else said.max(axis=1)
        columns["score"] = pa.array(best)
    else:
        columns["prediction"] = pa.array(said)
    frame = pl.DataFrame(pl.from_arrow(features.replace_schema_metadata(None)))
    return frame.with_columns(
        **{
            name: pl.Series(name, pl.from_arrow(column))
            for name, column in columns.items()
        }
    )


def _one(
    rule: BusinessMetricRule, frame: Any, count: int, row_count: int
) -> BusinessMetric:
    import polars as pl

    try:
        found = frame.select(
            pl.sql_expr(rule.expression).alias("value").cast(pl.Float64)
        )
    except pl.exceptions.PolarsError as error:
        text = str(error).splitlines()[0][:MAX_DETAIL]
        return BusinessMetric(
            name=rule.name, value=None, row_count=0,
            detail=f"{rule.expression!r} cannot be computed: {text}",
        )  # fmt: skip
    series = found["value"]
    values = series.filter(series.is_finite()).to_numpy()
    if len(values) == 0:
        detail = "no row has a finite value"
        return BusinessMetric(name=rule.name, value=None, row_count=0, detail=detail)
    if len(series) == 1 and count > 1:  # an aggregate of the whole window
        value = float(values[0])
    elif rule.aggregate == "sum":
        value = float(values.mean()) * len(values) / count * row_count
    elif rule.aggregate == "quantile":
        value = float(np.quantile(values, rule.quantile))
    else:
        value = float(values.mean())
    is_low = rule.min is not None and value < rule.min
    is_high = rule.max is not None and value > rule.max
    limit = ""
    if is_low or is_high:
        limit = f"below {rule.min:g}" if is_low else f"above {rule.max:g}"
    return BusinessMetric(
        name=rule.name, value=value, row_count=len(values),
        is_within=not limit, detail=limit,
    )  # fmt: skip
