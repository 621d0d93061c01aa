"""Answers and labels of each task as losses."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.models.losses import no_skill_loss, paired
from driftloop.models.pairing import (
    Label,
    labelled,
    labels_of,
    predictions_of,
    within,
)

MICROSECOND = timedelta(microseconds=1)
TIMES = pa.array(
    [datetime(2024, 1, 1, h, tzinfo=UTC) for h in range(3)], pa.timestamp("us", "UTC")
)


def batch(score: Any = None, classes: list[str] | None = None, **columns: Any) -> Any:
    found: dict[str, Any] = {"id": ["a", "b", "c"], "event_time": TIMES, **columns}
    rows = pa.RecordBatch.from_pydict(found)
    if score is None:
        return rows
    field = pa.field(
        "champion_score",
        score.type,
        metadata={b"classes": json.dumps(classes).encode()},
    )
    return pa.RecordBatch.from_arrays(
        [*rows.columns, score], schema=rows.schema.append(field)
    )


def losses(rows: Any, target: list[Any], metric: str) -> list[float]:
    said = predictions_of(rows, 1, None)
    known = labels_of(
        batch(cnt=pa.array(target)), "cnt", is_number=metric != "log_loss"
    )
    by_id = {label.row_id: label for label in known}
    pairs = [(row, by_id[row.row_id]) for row in said if row.row_id in by_id]
    (found,) = labelled(pairs, metric)
    result: list[float] = found.champion.tolist()
    return result


def test_a_label_of_a_time_beyond_the_horizon_is_not_used() -> None:
    said = predictions_of(batch(champion_prediction=[1.0, 2.0, 3.0]), 1, None)
    late = [Label(row.row_id, row.time_us, 1.0, None) for row in said]
    hour = timedelta(hours=1)
    late[1] = late[1]._replace(time_us=late[1].time_us + hour // MICROSECOND)
    late[2] = late[2]._replace(time_us=late[2].time_us + hour // MICROSECOND + 1)
    late[0] = late[0]._replace(time_us=0)  # of a time before its row
    pairs = list(zip(said, late, strict=True))
    assert within(pairs, hour) == pairs[:2]
    assert within(pairs, 2 * hour) == pairs


@pytest.mark.parametrize(
    ("metric", "expected"), [("mae", [1.0, 2.0]), ("rmse", [1.0, 4.0])]
)
def test_regression(metric: str, expected: list[float]) -> None:
    """A failed answer (null) and a missing label are left out."""
    rows = batch(champion_prediction=[2.0, 4.0, None])
    assert losses(rows, [1, 2, 3], metric) == expected
    assert losses(batch(champion_prediction=[2.0, 4.0, 9.0]), [1, 2, None], metric) == (
        expected
    )


@pytest.mark.parametrize("target", [[1, 0, 1], [1.0, 0.0, 1.0], ["1", "0", "1"]])
def test_binary(target: list[Any]) -> None:
    """However the label is stored."""
    rows = batch(
        pa.array([0.8, 0.4, 0.5]), ["0", "1"], champion_prediction=["1", "0", "1"]
    )
    expected = [-math.log(0.8), -math.log(0.6), -math.log(0.5)]
    assert losses(rows, target, "log_loss") == pytest.approx(expected)


def test_multiclass_with_a_label_never_seen() -> None:
    """It has no probability at all, and costs what a sure mistake costs."""
    score = pa.array([[0.2, 0.3, 0.5]] * 3)
    rows = batch(score, ["a", "b", "c"], champion_prediction=["c"] * 3)
    found = losses(rows, ["a", "c", "z"], "log_loss")
    assert found[:2] == pytest.approx([-math.log(0.2), -math.log(0.5)])
    assert found[2] > 30


def test_guess_without_skill() -> None:
    assert no_skill_loss("rmse", [1.0, 3.0]) == 1.0
    assert no_skill_loss("log_loss", ["a"] * 5) == 0.0


def test_one_row_has_no_spread_of_its_own() -> None:
    found = paired(np.array([3.0]), np.array([1.0]))
    assert (found.mean_difference, found.standard_error) == (2.0, 2.0)
