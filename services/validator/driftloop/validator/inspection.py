"""A pipeline's checks on the rows of a batch that keep the contract.

Pure: what the checks remember comes in as :class:`ShardState` and goes out as the
next one, and what they compare with is the :class:`~.reference.Reference`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from driftloop.contracts import checks as rules_of
from driftloop.contracts.base import UtcTime
from driftloop.contracts.pipeline import Feature
from driftloop.validator import distances, rules, sensors
from driftloop.validator.columns import Failure
from driftloop.validator.reference import Reference
from pydantic import BaseModel, ConfigDict

MAX_COUNTED_ROWS = 5_000
"""Of a batch, taken evenly, for distributions: they are then known to about 0.02."""


class ShardState(BaseModel):
    """What checks remember of the batches of one shard so far.

    Attributes
    ----------
    newest : event time of the newest row.
    clean, runs : see :mod:`~.sensors`.
    counts : rows gathered for a verdict on distributions, by column and bin.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    newest: UtcTime | None = None
    clean: dict[str, tuple[float, float]] = {}
    runs: dict[str, tuple[float, int]] = {}
    counts: dict[str, list[int]] = {}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What checks need besides the rows.

    Attributes
    ----------
    features : the contract's, by name; the target is none, for its changes are no
        fault of a sensor.
    came : rows of the whole batch, also those that broke the contract.
    arrived_at : when the batch was made.
    reference : None: not enough rows were accepted yet.
    known : which of these unique texts the dataset has.
    imported : runs a function or pandera check.
    """

    features: Mapping[str, Feature]
    came: int
    arrived_at: datetime
    reference: Reference | None
    known: Callable[[rules_of.Unique, Iterable[str]], set[str]]
    imported: Callable[[Any, pl.DataFrame], Iterable[Failure]]


@np.errstate(over="ignore", invalid="ignore")  # 1e308 is a value, too
def inspect(
    rows: pa.RecordBatch,
    checks: Sequence[Any],
    state: ShardState,
    around: Surroundings,
) -> tuple[list[Failure], ShardState]:
    """Run checks on rows.

    Parameters
    ----------
    rows : (n_rows, n_columns) typed as the contract says, at least one row.
    checks : those of the pipeline that are to run.

    Returns
    -------
    tuple
        What was found, with masks of (n_rows,), and the state for the next batch.
    """
    failures: list[Failure] = []
    numbers = cache(partial(_numbers, rows, around))  # several rules want the same
    frame = pl.DataFrame(pl.from_arrow(rows)) if _wants_frame(checks) else None
    for rule in checks:
        if frame is not None and rule.check in _ON_FRAME:
            found: Iterable[Failure] = _on_frame(rule, frame, around)
        elif rule.check in _WITHOUT_REFERENCE:
            found = _without_reference(rule, rows, state, around)
        else:
            names = tuple(rule.columns or around.features)
            if isinstance(rule, rules_of.Distribution):
                found, state = _distribution(rule, rows, names, state, around.reference)
            else:
                found, state = _on_numbers(rule, numbers(names), state)
        failures += [_with_severity(failure, rule) for failure in found]
    newest = max(_newest(rows), state.newest or _LONG_AGO)
    return failures, state.model_copy(update={"newest": newest})


_ON_FRAME = ("expression", *rules_of.IMPORTED)
_WITHOUT_REFERENCE = ("null_ratio", "unique", "row_count", "freshness", "monotonic")


def _wants_frame(checks: Sequence[Any]) -> bool:
    return any(rule.check in _ON_FRAME for rule in checks)


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _newest(rows: pa.RecordBatch) -> datetime:
    column = rows.column("event_time")
    times = column.cast(pa.int64()).to_numpy()
    newest: datetime = column[int(times.argmax())].as_py()
    return newest


def _with_severity(failure: Failure, rule: Any) -> Failure:
    if failure.verdict == "not_enough_data":
        return replace(failure, severity="warn")
    return replace(failure, severity=rule.severity)


def _on_frame(
    rule: Any, frame: pl.DataFrame, around: Surroundings
) -> Iterable[Failure]:
    if isinstance(rule, rules_of.Expression):
        return rules.expression(rule, frame)
    return around.imported(rule, frame)


def _without_reference(
    rule: Any, rows: pa.RecordBatch, state: ShardState, around: Surroundings
) -> Iterator[Failure]:
    match rule:
        case rules_of.NullRatio():
            names = rule.columns or list(around.features)
            yield from rules.null_ratios(rule, rows, names)
        case rules_of.RowCount():
            yield from rules.row_count(rule, rows, around.came)
        case rules_of.Freshness():
            yield from rules.freshness(rule, rows, around.arrived_at)
        case rules_of.Monotonic():
            yield from rules.monotonic(rows, state.newest)
        case rules_of.Unique():
            texts = rules.unique_texts(rule, rows)
            known = around.known(rule, (text for text in texts if text is not None))
            yield from rules.repeated(rule, rows, texts, known)


def _numbers(
    rows: pa.RecordBatch, around: Surroundings, names: tuple[str, ...]
) -> list[sensors.NumberColumn]:
    if around.reference is None:
        return []
    units = {name: feature.unit for name, feature in around.features.items()}
    return sensors.number_columns(rows, names, around.reference.numbers, units)


def _on_numbers(
    rule: Any, columns: Sequence[sensors.NumberColumn], state: ShardState
) -> tuple[list[Failure], ShardState]:
    if isinstance(rule, rules_of.UnitSlip):
        failures, clean = sensors.unit_slips(rule, columns, state.clean)
        return failures, state.model_copy(update={"clean": clean})
    if isinstance(rule, rules_of.Stuck):
        failures, runs = sensors.stuck(rule, columns, state.runs)
        return failures, state.model_copy(update={"runs": runs})
    return list(sensors.spikes(rule, columns)), state


def _distribution(
    rule: rules_of.Distribution,
    rows: pa.RecordBatch,
    names: Sequence[str],
    state: ShardState,
    reference: Reference | None,
) -> tuple[list[Failure], ShardState]:
    """Gather counts; a column with a verdict starts anew."""
    if reference is None:
        said = "the reference is not complete yet"
        return [_not_enough("rows", said, rows)], state
    profiles = distances.compared_columns(reference, names)
    counts = distances.counted(_thinned(rows), profiles, state.counts)
    judged = distances.distances(rule, profiles, counts)
    failures = []
    for distance in judged:
        if distance.p_value is None:
            continue
        del counts[distance.column]
        alpha = rule.alpha / len(profiles)
        if distance.p_value < alpha and distance.effect >= rule.min_effect:
            detail = (
                f"the newest {distance.row_count} rows are {distance.effect:.2f} away "
                f"from the reference (p {distance.p_value:.1g}), {rule.min_effect:g} "
                "matters; did the world change, or the source?"
            )
            every = np.ones(rows.num_rows, np.bool_)
            failures.append(Failure("distribution", distance.column, every, detail))
    waiting = [d for d in judged if d.p_value is None]
    if waiting:
        failures.append(_not_enough(*_said_of(waiting), rows))
    return failures, state.model_copy(update={"counts": counts})


def _said_of(waiting: Sequence[distances.Distance]) -> tuple[str, str]:
    names = ", ".join(distance.column for distance in waiting)
    wanted = [d.wanted_count for d in waiting if d.wanted_count is not None]
    if len(wanted) < len(waiting):
        return names, (
            "the reference is too small to find min_effect with this power; raise "
            "data.reference_rows, or min_effect"
        )
    fewest = min(distance.row_count for distance in waiting)
    return names, f"{fewest} of {max(wanted)} rows are there"


def _not_enough(column: str, said: str, rows: pa.RecordBatch) -> Failure:
    none = np.zeros(rows.num_rows, np.bool_)
    detail = f"not enough data for a verdict: {said}"
    return Failure("distribution", column, none, detail, verdict="not_enough_data")


def _thinned(rows: pa.RecordBatch) -> pa.RecordBatch:
    if rows.num_rows <= MAX_COUNTED_ROWS:
        return rows
    at = np.linspace(0, rows.num_rows - 1, MAX_COUNTED_ROWS).astype(np.int64)
    return rows.take(pa.array(at))
