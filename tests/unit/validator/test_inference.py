"""A contract from the first data."""

import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.validator.inference import FIRST_ROWS, Learned, learn, type_of

SPEC = parse_pipeline("{name: a, task: binary, data: {target: left}}")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], "number"),
        ([1.5, None], "number"),
        (["1", "2.5", None], "number"),
        (["1", "red"], "category"),
        (["true", "false"], "boolean"),
        ([True], "boolean"),
        ([None], None),
    ],
)
def test_a_type_is_what_the_values_have(values: list[object], expected: str) -> None:
    assert type_of(pa.array(values)) == expected


def rows(**columns: object) -> pa.RecordBatch:
    count = len(next(iter(columns.values())))
    given = {"id": ["r"] * count, "source": ["s"] * count, "extra": ["{}"] * count}
    return pa.RecordBatch.from_pydict(given | columns)


def test_features_are_taken_up_from_the_first_rows() -> None:
    one = learn(Learned(), rows(x=[1], y=[None], left=["no"]), SPEC, "observations")
    two = learn(one, rows(x=["a"], y=["b"]), SPEC, "observations")
    assert {name: f.type for name, f in two.features.items()} == {
        "x": "number",
        "y": "category",
    }
    assert all(
        f.nullable and f.min is None and not f.values for f in two.features.values()
    )
    assert two.row_count == 2


def test_later_columns_are_no_features() -> None:
    late = learn(Learned(row_count=FIRST_ROWS), rows(x=[1]), SPEC, "observations")
    assert late.features == {}


def test_declared_features_and_labels_teach_no_features() -> None:
    declared = parse_pipeline(
        "{name: a, task: regression, data: {target: y, features: {x: {}}}}"
    )
    assert learn(Learned(), rows(z=[1]), declared, "observations") == Learned()
    assert learn(Learned(), rows(left=["a"]), SPEC, "labels").features == {}


def test_a_binary_target_has_the_first_two_classes() -> None:
    one = learn(Learned(), rows(left=["no", None]), SPEC, "labels")
    two = learn(one, rows(left=["no", "yes", "maybe"]), SPEC, "labels")
    three = learn(two, rows(left=["other"]), SPEC, "labels")
    assert (one.classes, two.classes) == (("no",), ("no", "yes"))
    assert three == two


def test_the_same_data_teach_the_same() -> None:
    batch = rows(b=[1], a=["x"], left=["no"])
    assert learn(Learned(), batch, SPEC, "observations") == learn(
        Learned(), batch, SPEC, "observations"
    )
