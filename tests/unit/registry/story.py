"""Trained models as the trainer tells of them, with real signed packages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    Evaluation,
    ModelTrained,
    PairedComparison,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import write_package
from driftloop.models.samples import samples_json

from tests.unit.scorer import packages
from tests.unit.scorer.packages import INPUTS, MONTH, NAME, SAMPLES, Factory

START = datetime(2012, 1, 1, tzinfo=UTC)


def spec(
    automation: str = "full", people: int = 1, *, name: str = NAME, **more: Any
) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": name,
            "task": "regression",
            "data": {"target": "cnt"},
            "automation": automation,
            "rollout": {"approval": {"people": people}},
            **more,
        }
    )


def evaluation(**more: Any) -> Evaluation:
    """Return one that passes the default gate."""
    return Evaluation.model_validate(
        {
            "metric": "mae",
            "holdout_span": MONTH.model_dump(),
            "holdout_row_count": 400,
            "candidate": 40.0,
            "champion": 80.0,
            "champion_version": 1,
            "baseline": 140.0,
            "comparison": PairedComparison(
                mean_difference=-40.0, standard_error=3.0, row_count=400
            ).model_dump(),
            **more,
        }
    )


def worse() -> Evaluation:
    """Return one that is not significantly better."""
    return evaluation(
        candidate=79.0,
        comparison={"mean_difference": -1.0, "standard_error": 3.0, "row_count": 400},
    )


def worse_on_a_slice() -> Evaluation:
    """Return one that is better on the whole, and not where it rains."""
    rain = {"column": "sky", "value": "rain", "row_count": 80, "candidate": 95.0,
            "other": 60.0, "p_value": 0.002}  # fmt: skip
    return evaluation(measures={"slices": [rain], "slice_count": 4})


def meta(event_id: str, day: int = 0) -> Meta:
    at = START + timedelta(days=day)
    return Meta(event_id, at, "/driftloop/test", Chain(f"chain-{event_id}"))


def named(event: Event, event_id: str, day: int = 0) -> Any:
    return event.with_meta(meta(event_id, day))


def trained(
    factory: Factory,
    job: str,
    worth: Evaluation | None = None,
    *,
    requested_by: str | None = None,
    expected: float | None = None,
    pipeline: str = NAME,
) -> ModelTrained:
    """Write a package and return the event about it.

    ``expected`` falsifies the first sample's answer.
    """
    worth = worth or evaluation()
    said = Predictions(np.array([11.0 if expected is None else expected, 2.0]))
    manifest = packages.manifest(pipeline, INPUTS, is_binary=False).model_copy(
        update={"job_id": job, "evaluation": worth}
    )
    files = {
        "model.onnx": packages.onnx_bytes(0.0),
        "samples.json": samples_json(SAMPLES, INPUTS, said),
        "bom.json": b'{"bomFormat": "CycloneDX"}',
        "card.json": b'{"a": "card"}',
        "card.html": b"<!doctype html><title>A card</title>",
    }
    event = ModelTrained(
        pipeline=pipeline,
        job_id=job,
        trigger=Trigger(
            event_id=f"drift-{job}",
            event_type="io.driftloop.drift-detected.v1",
            reason="concept_drift",
            requested_by=requested_by,
        ),
        package=write_package(manifest, files, factory.signer, factory.store),
        algorithm=manifest.algorithm,
        dataset=manifest.dataset,
        train_span=manifest.train_span,
        tried=[],
        evaluation=worth,
    )
    result: ModelTrained = named(event, f"trained-{pipeline}-{job}")
    return result
