"""Which pipelines sites can train together, and by which rules."""

from __future__ import annotations

from typing import Any

import pytest
from driftloop.contracts.federated import (
    FederationRules,
    NotFederatedError,
    encoding_of,
)
from driftloop.contracts.pipeline import PipelineSpec
from pydantic import ValidationError

FEATURES: dict[str, Any] = {
    "heat": {"type": "number", "min": -10, "max": 30},
    "kind": {"type": "category", "values": ["b", "a", 1, True]},
    "is_open": {"type": "boolean"},
}


def spec(task: str = "binary", **data: Any) -> PipelineSpec:
    fields = {"target": "y", "classes": ["no", "yes"], "features": FEATURES} | data
    return PipelineSpec.model_validate({"name": "p", "task": task, "data": fields})


def test_the_file_alone_fixes_the_encoding() -> None:
    found = encoding_of(spec())
    heat, kind, is_open = found.columns
    assert (heat.centre, heat.half_range) == (10, 20)
    assert kind.values == ["b", "a", "1", "true"]
    assert (is_open.centre, is_open.half_range) == (0, 1)
    assert (found.width, found.output_count, found.weight_count) == (6, 1, 7)


def test_several_classes_have_weights_each() -> None:
    found = encoding_of(spec("multiclass", classes=["x", "y", "z"]))
    assert (found.output_count, found.weight_count) == (3, 21)


def test_a_regression_is_scaled_by_the_range_of_its_target() -> None:
    found = encoding_of(spec("regression", classes=None), (0, 50))
    assert (found.target_centre, found.target_half_range, found.classes) == (25, 25, [])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"features": {}}, "data.features: the features are inferred"),
        ({"features": {"a": {"type": "number", "min": 0}}}, "features.a: add min and"),
        ({"features": {"a": {"type": "category"}}}, "data.features.a: add values"),
        ({"features": {"a": {"type": "text"}}}, "words of a text"),
        ({"features": {"a": {"type": "datetime"}}}, "parts of a moment are not for"),
        ({"features": {"a": {"min": 1, "max": 1}}}, "min is max"),
        ({"classes": None}, "data.classes: name the classes"),
        ({"classes": ["a", "b", "c"]}, "data.classes: a binary task has two"),
        ({"privacy": {"kind": {"action": "hash"}}}, "data.privacy.kind"),
        (
            {"features": {"a": {"type": "category", "values": list(range(20_000))}}},
            "20001 weights",
        ),
    ],
)
def test_what_would_be_learned_from_rows_is_refused(changed, words) -> None:
    with pytest.raises(NotFederatedError, match=words):
        encoding_of(spec(**changed))


def test_preprocessing_and_a_missing_target_range_are_refused_together() -> None:
    found = spec("regression", classes=None)
    steps = found.train.preprocessing.model_copy(update={"duplicates": "drop"})
    train = found.train.model_copy(update={"preprocessing": steps})
    with pytest.raises(NotFederatedError) as told:
        encoding_of(found.model_copy(update={"train": train}))
    first, second = str(told.value).splitlines()
    assert first.startswith("train.preprocessing")
    assert second.startswith("target_min, target_max")
    with pytest.raises(NotFederatedError, match="target_min 5 is not below"):
        encoding_of(found, (5, 5))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"min_sites": 4}, "min_sites 4 is above site_count 3"),
        ({"trim_ratio": 0.2}, "leaves out nobody"),
        ({"trim_ratio": 0.5}, "less than 0.5"),
        ({"site_count": 1}, "greater than or equal to 2"),
        ({"clip_norm": 0}, "greater than 0"),
    ],
)
def test_rules_that_cannot_be_are_refused(changed, words) -> None:
    good = {"rounds": 1, "site_count": 3, "min_sites": 3}
    FederationRules.model_validate(good | {"trim_ratio": 0.34})
    with pytest.raises(ValidationError, match=words):
        FederationRules.model_validate(good | changed)
