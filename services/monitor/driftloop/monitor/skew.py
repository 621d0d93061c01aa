"""Training/serving skew: whether a door gives a model what training learns from.

Two checks. The same row, by its id: what a door made of it, and what was validated and
will be learned from (feature skew), and what a door and the stream said about equal
values (answer skew). And all rows together: their distribution at a door against that
of training, where the stream's rows of the same time have not moved (distribution
skew). Pure: tables in, differences out.

Source: the two kinds of skew are those of Breck et al. (2019), Data Validation for
Machine Learning, section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.columns import Column, numbers, texts
from driftloop.monitor.faults import Conclusion
from driftloop.monitor.feature_drift import Kind, movements
from driftloop.monitor.state import Watch

ID, PREDICTION, VERSION = "id", "prediction", "version"
MIN_DIFFERENT_ROWS = 5
MIN_DIFFERENT_RATIO = 0.05
"""Of the rows that both have; fewer may be corrections that came after the request."""
VALUE_TOLERANCE = 1e-6
"""Relative: a door's numbers are single precision."""
ANSWER_TOLERANCE = 1e-4
"""Relative: a model may add up in another order on another machine."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A column that is not the same at a door.

    Attributes
    ----------
    size : share of rows for values, distance 0 to 1 for distributions.
    detail : what a person needs to find the cause.
    """

    column: str
    check: str
    size: float
    detail: str


def value_differences(
    asked: pa.Table,
    validated: pa.Table,
    scored: pa.Table | None,
    kinds: Mapping[str, Kind],
) -> list[Difference]:
    """Compare rows that were asked at a door with the same rows in the stream.

    Parameters
    ----------
    asked : ``id``, features, ``prediction``, ``version``.
    validated : ``id`` and features; scored : ``id``, ``prediction``, ``version``.
    """
    left, right = _same_rows(asked, validated, [ID])
    ids = left.column(ID).to_pylist()
    found, is_equal = [], np.ones(len(ids), dtype=bool)
    for name, kind in kinds.items():
        if name not in left.schema.names or name not in right.schema.names:
            continue
        same = _same(left.column(name), right.column(name), kind, VALUE_TOLERANCE)
        is_equal &= same
        difference = _difference(
            name, "values", same, ids, left.column(name), right.column(name)
        )
        found.append(difference)
    if scored is not None:
        left = left.filter(pa.array(is_equal))
        left, right = _same_rows(left, scored, [ID, VERSION])
        answers = left.column(PREDICTION), right.column(PREDICTION)
        is_text = pa.types.is_string(answers[0].type)
        kind = "category" if is_text else "number"
        same = _same(*answers, kind, ANSWER_TOLERANCE)
        ids = left.column(ID).to_pylist()
        found.append(_difference(PREDICTION, "answers", same, ids, *answers))
    return [difference for difference in found if difference is not None]


def _same_rows(
    one: pa.Table, other: pa.Table, keys: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Return the rows that both have, in one order; the newest of each key counts."""
    places = _places(one, keys), _places(other, keys)
    shared = [key for key in places[0] if key in places[1] and None not in key]
    taken = [pa.array([p[key] for key in shared], pa.int64()) for p in places]
    return one.take(taken[0]), other.take(taken[1])


def _places(rows: pa.Table, keys: Sequence[str]) -> dict[tuple[object, ...], int]:
    columns = [rows.column(name).to_pylist() for name in keys]
    return {key: at for at, key in enumerate(zip(*columns, strict=True))}


def _same(
    one: Column, other: Column, kind: Kind, tolerance: float
) -> npt.NDArray[np.bool_]:
    if kind == "category":
        pair = [np.array(pc.fill_null(texts(c), "").to_pylist(), dtype=object)
                for c in (one, other)]  # fmt: skip
        return np.asarray(pair[0] == pair[1], dtype=bool).reshape(-1)
    if kind == "datetime":
        return np.asarray(_moments(one) == _moments(other), dtype=bool)
    left, right = numbers(one), numbers(other)
    return np.isclose(left, right, rtol=tolerance, atol=1e-12, equal_nan=True)


def _moments(column: Column) -> npt.NDArray[np.int64]:
    """Return (n_rows,) microseconds since 1970; the least int64 for a missing one."""
    found = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    missing = np.iinfo(np.int64).min
    result: npt.NDArray[np.int64] = found.fill_null(missing).to_numpy(
        **({} if isinstance(found, pa.ChunkedArray) else {"zero_copy_only": False})
    )
    return result


def _difference(
    name: str, check: str, same: npt.NDArray[np.bool_], ids: Sequence[str],
    asked: Column, learned: Column,
) -> Difference | None:  # fmt: skip
    wrong = np.flatnonzero(~same)
    if len(wrong) < max(MIN_DIFFERENT_ROWS, MIN_DIFFERENT_RATIO * len(same)):
        return None
    first = int(wrong[0])
    return Difference(
        name,
        check,
        len(wrong) / len(same),
        f"{len(wrong)} of {len(same)} rows that were asked and came in the stream, for "
        f"example row {ids[first]}: {asked[first]} at the door, {learned[first]} in "
        "the stream",
    )


def distribution_differences(
    sample: pa.Table, asked: pa.Table, stream: pa.Table | None,
    kinds: Mapping[str, Kind], alpha: float,
) -> list[Difference]:  # fmt: skip
    """Compare what was asked with what the version learned from.

    Parameters
    ----------
    stream : validated rows of the same time; where asked rows are like these, the
        world has moved and no door is wrong. None: there are none.
    kinds : a datetime is left out, as a request has no event time to be older than.
    """
    kinds = {name: kind for name, kind in kinds.items() if kind != "datetime"}
    found = [m for m in movements(sample, asked, kinds, alpha) if m.is_moved]
    if stream is not None:
        apart = {m.column for m in movements(stream, asked, kinds, alpha) if m.is_moved}
        found = [m for m in found if m.column in apart]
    return [
        Difference(
            m.column,
            "distribution",
            m.effect,
            f"{m.row_count} asked rows are {m.effect:.2f} ({m.detector}) away from "
            "what the model learned from",
        )
        for m in found
    ]


def judge_skew(
    watch: Watch, found: Sequence[Difference], spec: PipelineSpec
) -> Conclusion:
    """Tell of each column once per version in service."""
    if watch.reference is None:
        return watch, []
    version = watch.reference.version
    new = {f"{d.check}:{d.column}": d for d in found}
    new = {key: d for key, d in new.items() if key not in watch.told_skew}
    if not new:
        return watch, []
    alerts: list[Event] = [
        AlertRaised(
            pipeline=watch.pipeline,
            condition=f"serving_skew:v{version}:{key}",
            severity="warning",
            title=_title(difference),
            detail=f"{difference.detail}. Size {difference.size:.2f}. Training cannot "
            "cure it: make the callers send, or the door read, what is learned from.",
            owner=spec.owner,
            can_end=True,
        )
        for key, difference in sorted(new.items())
    ]
    told = tuple(sorted({*watch.told_skew, *new}))
    return watch.model_copy(update={"told_skew": told}), alerts


def _title(difference: Difference) -> str:
    if difference.check == "answers":
        return "Equal rows get other answers at a door than in the stream"
    what = "other values" if difference.check == "values" else "another distribution"
    return f"{difference.column} has {what} at a door than in training"
