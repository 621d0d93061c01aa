"""What the trainer packs is what the scorer explains: every type of column and task."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.scorer.explaining.explainer import Explainer, explainer_of
from driftloop.scorer.explaining.pool import Explaining, Explanation
from driftloop.scorer.explaining.wish import Times, Wish
from driftloop.trainer import package_files, training

from tests.unit.trainer.cases import START, job, quiet, rows, spec

FEATURES = {
    "a": {"type": "number", "nullable": True},
    "kind": {"type": "category", "nullable": True},
    "note": {"type": "text", "nullable": True},
    "opened": {"type": "datetime", "nullable": True},
    "is_new": {"type": "boolean", "nullable": True},
    "noise": {"type": "integer"},
}
SECONDS_ENOUGH = 600


def mixed_rows(task: str) -> pa.Table:
    """The usual rows, with a column of each other type; only the text matters."""
    table = rows(400, task=task)
    draw = np.random.default_rng(1)
    count = table.num_rows
    words = draw.choice(["urgent please", "when you can"], count)
    opened = [START - timedelta(days=int(days)) for days in draw.integers(1, 99, count)]
    more: dict[str, Any] = {
        "note": pa.array(words.tolist()),
        "opened": pa.array([None, *opened[1:]], pa.timestamp("us", "UTC")),
        "is_new": pa.array([None, *(draw.random(count - 1) < 0.5).tolist()]),
        "noise": pa.array(draw.integers(0, 9, count)),
    }
    for name, values in more.items():
        table = table.append_column(name, values)
    if task == "regression":
        y = np.array(table["y"].to_pylist()) + 20 * np.char.startswith(words, "urgent")
        table = table.set_column(table.schema.get_field_index("y"), "y", pa.array(y))
    return table


def explained(
    folder: Path, task: str, candidate: str
) -> tuple[Explanation, OnnxModel, pa.Table]:
    table = mixed_rows(task)
    write_deltalake(str(folder / "rows"), table)
    how = spec(
        task=task, data={"features": FEATURES}, train={"candidates": [candidate]}
    )
    store = FolderStore(folder / "artifacts")
    using = training.Environment(store, TrustedKeys([]), None, 1, folder)
    trained = training.train(job(folder / "rows", table, how), using, quiet)
    files = package_files.files_of(trained)
    manifest = package_files.manifest_of(trained)
    model = trained.chosen.loaded()
    explainer = explainer_of(model, manifest, files["reference.arrow"])
    assert isinstance(explainer, Explainer), explainer
    asked = table.slice(390)
    feeds = model.feeds(asked)
    pool = Explaining(1, 0, Times(1, 1))
    said = model.predict(asked)
    wish = Wish(SECONDS_ENOUGH * 1000)
    found = asyncio.run(pool.explain("bikes", explainer, feeds, said, wish))
    pool.close()
    assert isinstance(found, Explanation), found
    return found, model, asked


@pytest.mark.parametrize("candidate", ["linear", "gradient_boosting"])
def test_contributions_are_of_the_columns_that_were_trained_on(
    tmp_path: Path, candidate: str
) -> None:
    found, model, asked = explained(tmp_path, "regression", candidate)
    assert found.columns == tuple(FEATURES)
    assert (found.method, found.timed_out, found.unit) == ("exact", False, "y")
    values = found.found.values
    assert found.answers == pytest.approx(model.predict(asked).prediction)
    assert found.found.base + values.sum(axis=1) == pytest.approx(found.answers)
    size = dict(zip(found.columns, np.abs(values).mean(axis=0), strict=True))
    assert min(size["note"], size["kind"], size["a"]) > 5 * size["noise"]
    urgent = np.array([note.startswith("urgent") for note in asked["note"].to_pylist()])
    place = found.columns.index("note")
    assert (values[urgent, place] > 0).all()
    assert (values[~urgent, place] < 0).all()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_is_explained_by_its_probability(tmp_path: Path, task: str) -> None:
    found, model, asked = explained(tmp_path, task, "gradient_boosting")
    score = model.predict(asked).score
    assert score is not None
    wide = np.column_stack([1 - score, score]) if score.ndim == 1 else score
    assert found.answers == pytest.approx(wide.max(axis=1))
    total = found.found.base + found.found.values.sum(axis=1)
    assert total == pytest.approx(found.answers)
    assert found.unit == "probability of the predicted class"
