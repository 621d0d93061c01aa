"""A row is read alike on every way to a model: the stream, both doors, training.

From upstream's JSON through ingest's typing and the validator's checks to a trained
graph, and the same rows through the doors' own reading.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.core import batches, typed_rows
from driftloop.ingest.formats import parse
from driftloop.scorer.feeds import feeds_of
from driftloop.scorer.invocations import columns_of_csv, columns_of_json
from driftloop.scorer.open_inference.tensors import Tensor, columns_of
from driftloop.trainer import fitting
from driftloop.validator.core import check, contract_of

SPEC = PipelineSpec.model_validate(
    {
        "name": "bikes",
        "task": "regression",
        "data": {
            "target": "y",
            "features": {
                "temp": {"nullable": True},
                "hour": {"type": "integer"},
                "wet": {"type": "boolean", "nullable": True},
                "sky": {"type": "category", "nullable": True},
                "note": {"type": "text", "nullable": True},
                "opened": {"type": "datetime", "nullable": True},
            },
            "timezone": "Europe/Berlin",
        },
        "train": {
            "preprocessing": {
                "defaults": {"missing": "median", "indicator": True},
                "columns": {"note": {"words": "tfidf"}, "sky": {"encoding": "target"}},
            }
        },
    }
)
OPENED = [
    "2010-03-28T03:30:00",  # in Berlin, an hour after its clocks went forward
    "2010-10-31 02:30",  # twice in Berlin: the earlier
    "2010-10-31T02:30:00+01:00",  # the later of the two
    "2008-02-29",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
]
NAMES = list(SPEC.data.features)
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{at}",
        "event_time": f"2011-01-{1 + at // 24:02d}T{at % 24:02d}:00:00Z",
        "temp": None if at % 9 == 0 else at / 7,
        "hour": at % 24,
        "wet": None if at % 11 == 0 else at % 3 == 0,
        "sky": None if at % 13 == 0 else ["clear", "mist", 3][at % 3],
        "note": None if at % 8 == 0 else ["Chain broken!", "all fine", 17][at % 3],
        "opened": None if at % 10 == 0 else OPENED[at % len(OPENED)],
        "y": float(at % 24),
    }
    for at in range(240)
]


@pytest.fixture(scope="module")
def validated() -> pa.RecordBatch:
    parsed = parse(orjson.dumps(ROWS), "application/json")
    (batch,) = batches(typed_rows(parsed, SPEC, "observations", "till").table)
    contract = contract_of(SPEC, "observations", SPEC.data.features, None)
    checked = check(batch, contract)
    assert checked.bad is None, checked.reasons
    assert checked.good is not None
    return checked.good


@pytest.fixture(scope="module")
def fitted(validated: pa.RecordBatch) -> fitting.Fitted:
    return fitting.fit("linear", pa.Table.from_batches([validated]), SPEC, 1)


def invoked(rows: list[dict[str, Any]], fitted: fitting.Fitted) -> Any:
    return columns_of_json({"dataframe_records": rows}, fitted.inputs)


def inferred(rows: list[dict[str, Any]], fitted: fitting.Fitted) -> Any:
    texts = dict.fromkeys(("sky", "note", "opened"), "BYTES")
    kinds = {**texts, "wet": "BOOL", "hour": "INT64"}
    tensors = [
        Tensor(name, kinds.get(name, "FP64"), [row[name] for row in rows])
        for name in NAMES
    ]
    columns, fits = columns_of(tensors)
    fits(fitted.inputs)
    return columns


def as_csv(rows: list[dict[str, Any]], fitted: fitting.Fitted) -> Any:
    lines = [",".join(NAMES)]
    for row in rows:
        fields = ["" if row[n] is None else str(row[n]) for n in NAMES]
        lines.append(",".join(fields))
    return columns_of_csv("\n".join(lines).encode(), fitted.inputs)


def counted(rows: list[dict[str, Any]], fitted: fitting.Fitted) -> Any:
    """Moments as the protocol's whole numbers."""
    columns = [c for c in fitted.inputs if c.name == "opened"]
    moments, _ = feeds_of({"opened": [row["opened"] for row in rows]}, columns)
    given = [None if row["opened"] is None else moment for row, (moment,) in zip(
        rows, moments["opened"].tolist(), strict=True)]  # fmt: skip
    asked, fits = columns_of([Tensor("opened", "INT64", given)])
    fits(fitted.inputs)
    return invoked(rows, fitted) | asked


@pytest.mark.parametrize("door", [invoked, inferred, as_csv, counted])
def test_a_door_answers_as_the_stream(
    door: Any, validated: pa.RecordBatch, fitted: fitting.Fitted
) -> None:
    model = fitted.loaded()
    feeds, count = feeds_of(door(ROWS, fitted), fitted.inputs)
    asked = model.predict_arrays(feeds, count).prediction
    streamed = model.predict(validated).prediction
    assert np.std(streamed) > 0.1
    np.testing.assert_array_equal(asked, streamed)


def test_a_row_that_is_read_otherwise_has_another_answer(
    validated: pa.RecordBatch, fitted: fitting.Fitted
) -> None:
    """Negative control: what is compared above does depend on the columns."""
    model = fitted.loaded()
    others = {"note": "broken", "sky": "fog", "wet": None, "opened": "2009-07-05"}
    for name, value in others.items():
        changed = [row | {name: value} for row in ROWS]
        feeds, count = feeds_of(invoked(changed, fitted), fitted.inputs)
        asked = model.predict_arrays(feeds, count).prediction
        assert not np.array_equal(asked, model.predict(validated).prediction), name
