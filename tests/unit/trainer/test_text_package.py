"""A model of words, cleaned columns and named slices becomes a whole package."""

import json

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.models.samples import check_samples
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import package_files, training

from tests.unit.trainer.cases import job, quiet, rows, spec

FEATURES = {
    "a": {"type": "number", "nullable": True},
    "kind": {"type": "category", "nullable": True},
    "note": {"type": "text", "nullable": True},
}


def test_text_is_measured_explained_and_packed(tmp_path) -> None:
    table = rows(500)
    draw = np.random.default_rng(1)
    words = draw.choice(["urgent please", "when you can", ""], table.num_rows)
    y = np.array(table["y"].to_pylist()) + 20 * np.char.startswith(words, "urgent")
    table = table.set_column(table.schema.get_field_index("y"), "y", pa.array(y))
    table = table.append_column("note", pa.array([w or None for w in words.tolist()]))
    uri = tmp_path / "observations"
    write_deltalake(str(uri), table)
    store = FolderStore(tmp_path / "artifacts")
    how = spec(
        data={"features": FEATURES},
        train={
            "candidates": ["gradient_boosting", "linear"],
            "preprocessing": {"columns": {"a": {"outliers": "clip"}}},
        },
        gate={"slices": ["note", "kind"]},
    )
    using = training.Environment(store, TrustedKeys([]), None, 1, tmp_path)
    trained = training.train(job(uri, table, how), using, quiet)

    assert trained.evaluation.candidate < 0.2 * trained.evaluation.baseline
    files = package_files.files_of(trained)
    manifest = package_files.manifest_of(trained)
    assert {step.step for step in manifest.preprocessing} >= {"clip", "tfidf"}
    model = trained.chosen.loaded()
    check_samples(model, list(trained.chosen.inputs), files["samples.json"])
    card = json.loads(files["card.json"])
    assert "note" in json.dumps(card["explanation"])
    assert files == package_files.files_of(trained)
