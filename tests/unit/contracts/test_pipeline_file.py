"""The pipeline file: defaults that work, errors that name field and remedy."""

import pytest
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline

LEAST = "{name: churn, task: binary, data: {target: left}}"


def test_name_task_and_target_are_enough() -> None:
    spec = parse_pipeline(LEAST)
    assert spec.metric == "log_loss"
    assert spec.data.features == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: churn, task: binary}", "data: missing; add it"),
        ("{name: Churn!, task: binary, data: {target: left}}", "name: .*pattern"),
        ("{name: a, task: binary, data: {target: b, tim: t}}", "did you mean 'time'"),
        ("{name: a, task: guess, data: {target: b}}", "task: .*'regression'"),
        (
            "{name: a, task: binary, data: {target: b}, train: {metric: mae}}",
            "does not fit task",
        ),
        (
            "{name: a, task: binary, data: {target: b, features: {b: {}}}}",
            "leak the answer",
        ),
        (
            "{name: a, task: binary, "
            "data: {target: b, features: {x: {min: 2, max: 1}}}}",
            "data.features.x: min 2.0 is above max 1.0",
        ),
        (
            "{name: a, task: binary, data: {target: b}, rollout: {steps: [0.5, 0.1]}}",
            "steps must grow",
        ),
        ("- a\n- b", "a mapping"),
        ("{", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(text: str, says: str) -> None:
    with pytest.raises(PipelineFileError, match=says):
        parse_pipeline(text)
