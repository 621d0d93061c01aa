"""A model that somebody registered: it waits, becomes a job, is a candidate or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.events import BlobRef
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.judging import Split
from driftloop.trainer.request import SubmittedModel
from driftloop.trainer.submitted import candidate

from tests.unit.scorer.packages import onnx_bytes


def spec(task: str = "regression", **data: Any) -> PipelineSpec:
    features = {"size": {"type": "number"}, "colour": {"type": "category"}}
    content = {"target": "y", "features": features, **data}
    return PipelineSpec.model_validate({"name": "p", "task": task, "data": content})


def split(labels: list[Any]) -> Split:
    """Return rows of red and blue things; as many as there are labels."""
    count = len(labels)
    draw = np.random.default_rng(1)
    rows = pa.table(
        {
            "size": draw.normal(size=count),
            "colour": draw.choice(["red", "blue"], count),
            "y": labels,
        }
    )
    return Split(rows, rows, rows, rows)


def submitted(store: FolderStore, data: bytes) -> SubmittedModel:
    ref: BlobRef = store.put(data)
    return SubmittedModel(version=3, model=ref, source="runs:/1/model")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_it_is_the_one_candidate(store: FolderStore) -> None:
    """Its validation loss is of its own answers; nothing was fitted."""
    rows = split([0.0] * 50)
    red = np.array(rows.training["colour"].to_pylist()) == "red"
    expected = np.array(rows.training["size"].to_pylist()) + 10 * red + 2
    fitted, found = candidate.candidate_of(
        submitted(store, onnx_bytes(2.0)), rows, spec(), store
    )
    assert fitted.name == "registered_onnx"
    assert [c.name for c in fitted.inputs] == ["size", "colour"]
    [tried] = found.tried
    assert tried.validation_loss == pytest.approx(np.abs(expected).mean(), rel=1e-5)
    assert fitted.parameters["source"] == "runs:/1/model"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80\x04pickle", "no ONNX model"),
        (onnx_bytes(0.0, inputs=("other", "colour")), "are no features"),
        (onnx_bytes(float("nan")), "not all finite"),
        (onnx_bytes(0.0, is_binary=True)[:-20], "no ONNX model|does not answer"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    store: FolderStore, data: bytes, words: str
) -> None:
    with pytest.raises(CandidateRefused, match=words):
        candidate.candidate_of(submitted(store, data), split([0.0] * 50), spec(), store)


def test_a_classifier_answers_with_the_pipelines_classes(store: FolderStore) -> None:
    """Negative control: other labels than the target has are refused."""
    graph = submitted(store, onnx_bytes(0.0, is_binary=True))
    fitted, _ = candidate.candidate_of(
        graph, split(["no", "yes"] * 25), spec("binary"), store
    )
    assert fitted.classes == ("no", "yes")
    with pytest.raises(CandidateRefused, match="the classes are 'left', 'stayed'"):
        candidate.candidate_of(
            graph, split(["left", "stayed"] * 25), spec("binary"), store
        )
