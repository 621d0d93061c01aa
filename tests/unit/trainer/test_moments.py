"""Moments in the graph: parts that numpy, Python's calendar and ONNX agree on."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.contracts.moments import FIRST_US, LAST_US, MOMENT_TYPE, moment_of
from driftloop.contracts.preprocessing import Part
from driftloop.models.onnx_model import MISSING_MOMENT
from driftloop.models.samples import check_samples
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import fitting, package_files, training
from driftloop.trainer.encoding import learn_encoding
from driftloop.trainer.graph import IR_VERSION, OPSETS
from driftloop.trainer.preprocessing import moments
from driftloop.trainer.preprocessing.wiring import Drawing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.unit.support import examples
from tests.unit.trainer.cases import START, job, quiet, rows, spec

ALL: list[Part] = ["days", "hour", "weekday", "year_day", "weekend"]
DATETIME = {"type": "datetime", "nullable": True}
NUMBER = {"type": "number", "nullable": True}
KINDS = {"a": NUMBER, "kind": {"type": "category", "nullable": True}}


def column(*values: int) -> Any:
    return np.array(values, dtype=np.int64).reshape(-1, 1)


def us(*args: int) -> int:
    return (datetime(*args, tzinfo=UTC) - moments.EPOCH) // timedelta(microseconds=1)


def in_graph(draw: Any, *columns: Any) -> Any:
    """What nodes make of columns of int64."""
    drawing = Drawing("test")
    names = [f"x{at}" for at in range(len(columns))]
    output = draw(drawing, *names)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, [None, 1]) for n in names
    ]
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])
    graph = helper.make_graph(drawing.nodes, "t", inputs, [made], drawing.constants)
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(zip(names, columns, strict=True)))[0]


def same_bits(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype == np.float32 and one.tobytes() == other.tobytes()


every_moment = st.integers(FIRST_US, LAST_US)
lists = st.lists(every_moment | st.just(MISSING_MOMENT), min_size=1, max_size=30)


@given(lists, lists)
@example([FIRST_US, LAST_US, 0, -1, MISSING_MOMENT], [0])
@example([us(2000, 2, 29), us(1900, 3, 1), us(2004, 12, 31)], [us(2011, 3, 27, 1)])
@settings(max_examples=examples(25))
def test_graph_and_numpy_give_the_same_bits(seen: list[int], asked: list[int]) -> None:
    fitted = moments.fit_parts(column(*seen), ALL)
    whole = moments.Parts(tuple(ALL), fitted.centre, fitted.width)
    both = column(*seen, *asked)
    assert same_bits(whole.apply(both), in_graph(whole.wire, both))
    only = moments.Parts(("days",), 0, 1.0)
    fills = {"median": None, "mean": None, "most_frequent": None,
             "constant": "2011-01-01T00:00:00Z"}  # fmt: skip
    for how, constant in fills.items():
        fill = moments.fit_fill_moments(column(*seen), how, constant)

        def drawn(drawing: Drawing, source: str, fill: Any = fill) -> str:
            return only.wire(drawing, fill.wire(drawing, source))

        assert same_bits(only.apply(fill.apply(both)), in_graph(drawn, both))
    said = moments.MomentIndicator()
    assert same_bits(said.apply(both), in_graph(said.wire, both))


@given(every_moment, every_moment | st.just(MISSING_MOMENT))
@settings(max_examples=examples(25))
def test_days_between_two_moments(one: int, other: int) -> None:
    pair = column(one), column(other)
    found = moments.between(pair)

    def drawn(drawing: Drawing, *sources: str) -> str:
        return moments.wire_between(drawing, sources)

    assert same_bits(found, in_graph(drawn, *pair))
    if other == MISSING_MOMENT:
        assert np.isnan(found[0, 0])
    else:
        expected = (moment_of(one) - moment_of(other)) / timedelta(days=1)
        assert found[0, 0] == pytest.approx(expected, rel=1e-6)


@given(every_moment)
@example(FIRST_US)
@example(LAST_US)
@example(us(1970, 1, 1) - 1)
@example(us(2000, 2, 29))
@settings(max_examples=examples(200))
def test_places_are_those_of_pythons_calendar(moment: int) -> None:
    found = {name: int(v[0, 0]) for name, v in moments._places(column(moment)).items()}
    when = moment_of(moment)
    of_year = (date(2000, when.month, when.day) - date(2000, 3, 1)).days % 366
    assert found == {
        "hour": when.hour * 60 + when.minute,
        "weekday": when.weekday(),
        "weekend": when.weekday(),
        "year_day": of_year,
    }


def test_parts_mean_what_they_say() -> None:
    parts = moments.Parts(tuple(ALL), us(2011, 1, 1), float(moments.DAY_US))
    found = parts.apply(column(us(2011, 1, 1, 6), us(2012, 2, 29, 0), MISSING_MOMENT))
    days, hour, hour2, *_, january, january2, weekend = found[0]
    assert (days, hour, weekend) == (0.25, 1.0, 1.0)  # a Saturday, a quarter of its day
    assert hour2 == pytest.approx(0, abs=1e-6)
    assert (january, january2) == (0.0, 1.0)
    assert np.isnan(found[2]).all()
    assert parts.record(["opened"]).fitted["opened"]["centre"] == "2011-01-01T00:00:00Z"


def test_a_part_that_never_changes_has_no_column() -> None:
    midnights = column(*(us(2011, 1, day) for day in range(1, 20)))
    assert moments.fit_parts(midnights, ALL).parts == (
        "days", "weekday", "year_day", "weekend",
    )  # fmt: skip
    assert moments.fit_parts(column(MISSING_MOMENT), ALL).parts == ()
    assert moments.fit_parts(column(5, 5), ALL).parts == ()


def dated(count: int, **more: Any) -> pa.Table:
    """Rows whose target also follows the hour at which something was opened."""
    table = rows(count)
    draw = np.random.default_rng(3)
    opened = [
        None if at % 19 == 0 else START - timedelta(minutes=int(back))
        for at, back in enumerate(draw.integers(0, 500_000, count))
    ]
    hours = np.array([0 if one is None else one.hour for one in opened])
    y = np.array(table["y"].to_pylist()) + 20 * (hours >= 12)
    table = table.set_column(table.schema.get_field_index("y"), "y", pa.array(y))
    return table.append_column("opened", pa.array(opened, MOMENT_TYPE))


@pytest.mark.parametrize(
    "name",
    ["gradient_boosting", "linear", "random_forest", "hoeffding_adaptive_tree",
     "online_linear"],
)  # fmt: skip
def test_every_candidate_learns_from_moments(name: str) -> None:
    table, how = dated(400), spec(data={"features": {**KINDS, "opened": DATETIME}})
    fitted = fitting.fit(name, table, how, 1)
    said = fitted.loaded().predict(table.slice(300))
    assert said.non_finite_count() == 0
    without = fitting.fit(name, table, spec(), 1)
    less = without.loaded().predict(table.slice(300))
    truth = np.array(table["y"].to_pylist()[300:])
    errors = [np.mean(np.abs(one.prediction - truth)) for one in (said, less)]
    assert errors[0] < errors[1]


def test_steps_and_crosses_of_moments() -> None:
    table = dated(200)
    later = pa.array(
        [None if t is None else t + timedelta(days=2) for t in
         table["opened"].to_pylist()], MOMENT_TYPE,
    )  # fmt: skip
    table = table.append_column("served", later)
    how = spec(
        data={"features": {"opened": DATETIME, "served": DATETIME}},
        train={
            "preprocessing": {
                "defaults": {"scaling": "standard", "indicator": True},
                "columns": {"opened": {"parts": ["hour"], "missing": "median"}},
                "crosses": [{"columns": ["served", "opened"], "scaling": "none"}],
            }
        },
    )
    encoding, matrix = learn_encoding(table, how, np.zeros((200, 1)))
    assert matrix.shape[1] == (2 + 1) + (8 + 1) + (1 + 1)
    assert not np.isnan(matrix[:, :3]).any()
    assert np.nanmax(np.abs(matrix[:, 12] - 2)) == 0
    steps = [record.step for record in encoding.records()]
    assert {"fill_median", "moment_parts", "days_between"} <= set(steps)
    assert {c.name: c.timezone for c in encoding.inputs} == {
        "opened": "UTC", "served": "UTC",
    }  # fmt: skip


def test_moments_are_measured_explained_and_packed(tmp_path: Any) -> None:
    table = dated(800)
    uri = tmp_path / "observations"
    write_deltalake(str(uri), table)
    how = spec(
        data={"features": {**KINDS, "opened": DATETIME}},
        train={"candidates": ["gradient_boosting", "linear"]},
        gate={"slices": ["opened", "kind"]},
    )
    store = FolderStore(tmp_path / "artifacts")
    using = training.Environment(store, TrustedKeys([]), None, 1, tmp_path)
    trained = training.train(job(uri, table, how), using, quiet)

    assert trained.evaluation.candidate < 0.5 * trained.evaluation.baseline
    files = package_files.files_of(trained)
    model = trained.chosen.loaded()
    check_samples(model, list(trained.chosen.inputs), files["samples.json"])
    card = json.dumps(json.loads(files["card.json"]))
    explained = json.loads(files["explanation.json"])
    assert explained["importance"]["opened"] > explained["importance"]["kind"]
    assert "opened" in card
    report = files["evaluation.json"].decode()
    assert '"column":"opened"' in report
    assert " to 2010-" in report  # slices are stretches of days
    assert files == package_files.files_of(trained)
