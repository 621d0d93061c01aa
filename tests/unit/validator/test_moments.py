"""Columns of moments: their contract, what is inferred, how they are compared."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.checks import Distribution
from driftloop.contracts.moments import MOMENT_TYPE
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.validator.core import check, contract_of
from driftloop.validator.distances import compared_columns, counted, distances
from driftloop.validator.evolution import changes_of
from driftloop.validator.inference import Learned, learn
from driftloop.validator.reference import reference_of

START = datetime(2011, 1, 1, tzinfo=UTC)


def spec(**feature: object) -> PipelineSpec:
    features = {"opened": {"type": "datetime", **feature}} if feature else {}
    return PipelineSpec.model_validate(
        {
            "name": "bikes",
            "task": "regression",
            "data": {"target": "y", "features": features, "timezone": "Europe/Berlin"},
        }
    )


def batch(opened: object, days: float = 0) -> pa.RecordBatch:
    count = len(opened)  # type: ignore[arg-type]
    times = [START + timedelta(days=days, minutes=at) for at in range(count)]
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"r{at}" for at in range(count)],
            "event_time": pa.array(times, MOMENT_TYPE),
            "source": ["s"] * count,
            "opened": opened,
            "y": [1.0] * count,
        }
    )


def test_each_row_that_is_wrong_has_its_reason_and_the_remedy() -> None:
    how = spec(min="2001-01-01T00:00:00Z", max="2011-01-01T00:00:00Z")
    contract = contract_of(how, "observations", how.data.features, None)
    given = ["2005-07-01T12:00:00", "soon", "1999-01-01T00:00:00Z", None, "2012-01-01"]
    checked = check(batch(pa.array(given)), contract)
    assert checked.good is not None
    assert checked.good.column("opened").to_pylist() == [
        datetime(2005, 7, 1, 10, tzinfo=UTC)
    ]
    told = {(r.check, r.field): (r.row_count, r.detail) for r in checked.reasons}
    assert {key: count for key, (count, _) in told.items()} == {
        ("type", "opened"): 1, ("null", "opened"): 1, ("range", "opened"): 2,
    }  # fmt: skip
    assert "ISO 8601 text such as 2011-01-01T00:00:00Z" in told["type", "opened"][1]
    assert "at least 2001-01-01T00:00:00Z and" in told["range", "opened"][1]
    assert checked.bad is not None
    reasons = checked.bad.column("reason").to_pylist()
    assert reasons[0] == "opened: type (soon)"


def test_moments_as_timestamps_go_on_as_they_are() -> None:
    how = spec(nullable=True)
    contract = contract_of(how, "observations", how.data.features, None)
    opened = pa.array([START, None], MOMENT_TYPE)
    checked = check(batch(opened), contract)
    assert checked.bad is None
    assert checked.good is not None
    assert checked.good.column("opened").equals(opened)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2011-01-01", None, "2011-01-02T00:00:00Z"], "datetime"),
        (["2011-01-01", "soon"], "category"),
        (["20110101"], "number"),
    ],
)
def test_a_type_is_learned_and_a_new_column_proposed(
    values: list[str | None], kind: str
) -> None:
    rows = batch(pa.array(values))
    found = learn(Learned(), rows, spec(), "observations")
    assert found.features["opened"].type == kind
    (change,) = changes_of(rows, {}, ["y"])
    assert change.feature == Feature.model_validate({"type": kind, "nullable": True})


def test_time_that_passes_is_no_other_distribution() -> None:
    draw = np.random.default_rng(0)

    def opened(days: float, count: int, older: float = 0) -> pa.RecordBatch:
        back = draw.exponential(100, count) + older
        when = [START + timedelta(days=days - one) for one in back.tolist()]
        return batch(pa.array(when, MOMENT_TYPE), days)

    reference = reference_of(opened(0, 1000))
    profiles = compared_columns(reference, ["opened"])
    rule = Distribution(check="distribution")

    def effect(rows: pa.RecordBatch) -> float:
        (found,) = distances(rule, profiles, counted(rows, profiles, {}))
        assert found.p_value is not None
        return found.effect

    assert effect(opened(365, 500)) < 0.1
    assert effect(opened(365, 500, older=200)) > 0.5
