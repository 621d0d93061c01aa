"""The contract parts good rows from bad ones, each with its reasons."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.validator.columns import FEW_VALUES
from driftloop.validator.core import Checked, Contract, check, contract_of

SPEC = parse_pipeline(
    """
name: bikes
task: regression
data:
  target: cnt
  features:
    temp: {min: 0, max: 1}
    hour: {type: integer, min: 0, max: 23}
    sky: {type: category, values: [clear, mist, 3]}
    wet: {type: boolean, nullable: true}
    wind: {nullable: true, max: 1}
"""
)
OBSERVATIONS = contract_of(SPEC, "observations", SPEC.data.features, None)
LABELS = contract_of(SPEC, "labels", SPEC.data.features, None)
GOOD = {"temp": 0.5, "hour": 3, "sky": "clear", "wet": True, "wind": 0.1, "cnt": 4.0}


def batch(**columns: object) -> pa.RecordBatch:
    count = max([len(v) for v in columns.values() if v is not None], default=2)
    given: dict[str, object] = {
        "id": pa.array([f"r{n}" for n in range(count)]),
        "event_time": pa.array(
            [datetime(2011, 1, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")
        ),
        "source": pa.array(["s"] * count),
    }
    given |= {name: pa.array([value] * count) for name, value in GOOD.items()}
    given |= columns
    return pa.RecordBatch.from_pydict({k: v for k, v in given.items() if v is not None})


def reasons(checked: Checked) -> dict[tuple[str, str], tuple[int, str | None]]:
    return {(r.check, r.field): (r.row_count, r.example) for r in checked.reasons}


def good_ids(checked: Checked) -> list[str]:
    return [] if checked.good is None else checked.good.column("id").to_pylist()


def test_a_good_batch_goes_on_in_the_contracts_types_and_order() -> None:
    checked = check(
        batch(sky=pa.array(["mist", "3"]), hour=pa.array([1.0, 2.0])), OBSERVATIONS
    )
    assert checked.bad is None
    assert checked.reasons == []
    assert checked.good is not None
    assert checked.good.schema == OBSERVATIONS.schema
    assert [f.name for f in checked.good.schema] == [
        "id", "event_time", "source", "temp", "hour", "sky", "wet", "wind", "cnt",
        "extra",
    ]  # fmt: skip
    assert checked.good.column("hour").to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("column", "values", "check_name", "example"),
    [
        ("temp", ["0.5", "warm"], "type", "warm"),
        ("temp", [0.5, None], "null", "null"),
        ("temp", [0.5, float("nan")], "null", "nan"),
        ("temp", ["0.5", "NaN"], "null", "NaN"),
        ("temp", [0.5, float("inf")], "non_finite", "inf"),
        ("temp", [0.5, 1.01], "range", "1.01"),
        ("temp", [0.5, -40.0], "range", "-40"),
        ("temp", [0, 2], "range", "2"),
        ("hour", ["3", "3.5"], "type", "3.5"),
        ("hour", ["3", "noon"], "type", "noon"),
        ("hour", [3, 24], "range", "24"),
        ("hour", [3, None], "null", "null"),
        ("sky", ["clear", "octarine"], "values", "octarine"),
        ("sky", ["clear", None], "null", "null"),
        ("wet", ["true", "perhaps"], "type", "perhaps"),
        ("wind", [0.1, 7.0], "range", "7"),
        ("cnt", ["4", "many"], "type", "many"),
        ("cnt", [4.0, float("-inf")], "non_finite", "-inf"),
    ],
)
def test_a_bad_value_is_quarantined_with_check_field_and_example(
    column: str, values: list[object], check_name: str, example: str
) -> None:
    checked = check(batch(**{column: pa.array(values)}), OBSERVATIONS)
    assert good_ids(checked) == ["r0"]
    assert reasons(checked) == {(check_name, column): (1, example)}
    assert checked.bad is not None
    assert checked.bad.column("id").to_pylist() == ["r1"]
    (reason,) = checked.bad.column("reason").to_pylist()
    assert reason.startswith(f"{column}: {check_name}")
    assert checked.bad.column(column).to_pylist() == [
        pytest.approx(values[1], nan_ok=True)
    ]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("temp", [" 0.25 ", "1e-1"], [0.25, 0.1]),
        ("temp", [1, 0], [1.0, 0.0]),
        ("hour", ["3", "4.0"], [3, 4]),
        ("wet", ["True", "0"], [True, False]),
        ("wet", [None, None], [None, None]),
        ("wind", [None, float("nan")], [None, None]),
        ("wind", ["nan", "0.5"], [None, 0.5]),
        ("cnt", [None, 3.0], [None, 3.0]),
        ("cnt", None, [None, None]),
        ("wind", None, [None, None]),
    ],
)
def test_what_can_be_read_is_read(
    column: str, values: list[object] | None, expected: list[object]
) -> None:
    given = None if values is None else pa.array(values)
    checked = check(batch(**{column: given}), OBSERVATIONS)
    assert checked.reasons == []
    assert checked.good is not None
    assert checked.good.column(column).to_pylist() == expected


def test_a_missing_column_fails_every_row_and_names_the_remedy() -> None:
    checked = check(batch(temp=None), OBSERVATIONS)
    assert checked.good is None
    assert reasons(checked) == {("missing", "temp"): (2, None)}
    assert "data.features.temp.nullable: true" in checked.reasons[0].detail


def test_a_row_has_all_its_reasons() -> None:
    checked = check(
        batch(temp=pa.array([0.5, 9.0, 8.0]), sky=pa.array(["x", "y", "mist"])),
        OBSERVATIONS,
    )
    assert checked.good is None
    assert checked.bad is not None
    assert checked.bad.column("reason").to_pylist() == [
        "sky: values (x)",
        "temp: range (9); sky: values (y)",
        "temp: range (8)",
    ]
    assert reasons(checked)["range", "temp"] == (2, "9")


def test_only_the_first_good_row_of_an_id_goes_on() -> None:
    """A bad row does not stand in the way of its correction."""
    ids = pa.array(["a", "a", "a", "b", "c"])
    temps = pa.array([7.0, 0.2, 0.3, 0.4, 0.5])
    known = np.array([False, False, False, False, True])
    checked = check(batch(id=ids, temp=temps), OBSERVATIONS, known)
    assert checked.good is not None
    assert checked.good.column("temp").to_pylist() == [0.2, 0.4]
    assert reasons(checked) == {
        ("range", "temp"): (1, "7"),
        ("duplicate", "id"): (2, "a"),
    }


def test_labels_may_be_corrected_and_need_a_value() -> None:
    rows = batch(
        id=pa.array(["a", "a", "b"]),
        cnt=pa.array([1.0, 2.0, None]),
        revision=pa.array([0, 1, 0]),
    ).select(["id", "event_time", "source", "cnt", "revision"])
    checked = check(rows, LABELS, np.array([True, True, True]))
    assert checked.good is not None
    assert checked.good.schema == LABELS.schema
    assert checked.good.column("revision").to_pylist() == [0, 1]
    assert reasons(checked) == {("null", "cnt"): (1, "null")}


def test_an_unknown_class_is_no_label() -> None:
    spec = SPEC.model_copy(update={"task": "binary"})
    contract = contract_of(spec, "labels", {}, [0, 1])
    rows = batch(cnt=pa.array(["0", "1", "2"])).select(
        ["id", "event_time", "source", "cnt"]
    )
    checked = check(rows, contract)
    assert good_ids(checked) == ["r0", "r1"]
    assert reasons(checked) == {("values", "cnt"): (1, "2")}
    assert "data.classes" in checked.reasons[0].detail


def test_columns_that_the_contract_does_not_name_are_kept() -> None:
    rows = batch(lamp=pa.array([7, None]), extra=pa.array(['{"a":1}', None]))
    checked = check(rows, OBSERVATIONS)
    assert checked.good is not None
    assert checked.good.column("extra").to_pylist() == ['{"a": 1, "lamp": 7}', None]


@pytest.mark.parametrize("contract", [OBSERVATIONS, LABELS])
def test_nothing_is_lost(contract: Contract) -> None:
    rows = batch(temp=pa.array(["0.1", "x", "0.3"]), cnt=pa.array(["1", "2", "y"]))
    checked = check(rows, contract)
    bad = [] if checked.bad is None else checked.bad.column("id").to_pylist()
    assert sorted(good_ids(checked) + bad) == ["r0", "r1", "r2"]


def test_values_of_a_wrong_type_in_the_file_allow_nothing() -> None:
    spec = parse_pipeline(
        "{name: a, task: regression, data: {target: y, features: "
        "{hour: {type: integer, values: [1, 2, noon]}}}}"
    )
    contract = contract_of(spec, "observations", spec.data.features, None)
    checked = check(batch(hour=pa.array([2, 3])), contract)
    assert good_ids(checked) == ["r0"]


@pytest.mark.parametrize("count", [1, FEW_VALUES, FEW_VALUES + 1])
def test_few_and_many_values_allow_the_same(count: int) -> None:
    names = [f"v{n}" for n in range(count)]
    spec = parse_pipeline(
        "{name: a, task: regression, data: {target: y, features: "
        f"{{sky: {{type: category, nullable: true, values: {names}}}}}}}}}"
    )
    contract = contract_of(spec, "observations", spec.data.features, None)
    checked = check(batch(sky=pa.array([names[-1], "no", None])), contract)
    assert good_ids(checked) == ["r0", "r2"]
    assert reasons(checked) == {("values", "sky"): (1, "no")}
