"""Environments of the pipeline file: what they inherit, and what is refused."""

import pytest
from driftloop.contracts.describe import describe
from driftloop.contracts.events import (
    PipelineApplied,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.contracts.pipeline import (
    PipelineFileError,
    PipelineSpec,
    parse_pipeline,
)


def parsed(rollout: str, task: str = "binary") -> PipelineSpec:
    text = f"{{name: a, task: {task}, data: {{target: b}}, rollout: {{{rollout}}}}}"
    return parse_pipeline(text)


def test_there_is_production_alone_by_default() -> None:
    assert parsed("").rollout.environments == []


def test_an_environment_takes_what_it_does_not_say_from_the_rollout() -> None:
    rollout = parsed(
        "max_loss_ratio: 1.5, watch_rows: 9, freeze: [{begins: fri 18:00, "
        "ends: mon 08:00}], environments: [{name: staging, watch_rows: 7}]"
    ).rollout
    (staging,) = rollout.environments
    assert (staging.promote, staging.max_loss_ratio, staging.watch_rows) == (
        "automatic", 1.5, 7,
    )  # fmt: skip
    rules = rollout.rules_in(staging)
    assert (rules.max_loss_ratio, rules.watch_rows) == (1.5, 7)
    assert rules.freeze == [], "what comes before production disturbs nobody"


def test_a_strategy_without_a_shadow_is_not_asked_for_a_replay() -> None:
    (staging,) = parsed(
        "shadow_from: replay, environments: [{name: staging, strategy: immediate}]"
    ).rollout.environments
    assert staging.shadow_from == "live"


def test_what_was_inherited_stays_through_the_log() -> None:
    spec = parsed("watch_rows: 9, environments: [{name: staging, promote: approval}]")
    event = PipelineApplied(pipeline="a", spec=spec, applied_by="ada")
    again = PipelineApplied.model_validate_json(event.model_dump_json())
    assert again.spec == spec


@pytest.mark.parametrize(
    ("rollout", "told"),
    [
        (
            "environments: [{name: s}, {name: s}]",
            "rollout: environments: two are called 's'; give each a name of its own",
        ),
        (
            "environments: [{name: production}]",
            "rollout.environments.0.name: production is always the last environment",
        ),
        ("environments: [{name: Staging!}]", "rollout.environments.0.name: "),
        ("environments: [{promote: approval}]", "environments.0.name: missing; add it"),
        (
            "environments: [{name: s, promot: approval}]",
            "environments.0.promot: unknown key; did you mean 'promote'?",
        ),
        (
            "environments: [{name: s, promote: later}]",
            "rollout.environments.0.promote: ",
        ),
        (
            "environments: [{name: s, strategy: canary, shadow_from: replay}]",
            "rollout.environments.0: shadow_from: replay asks for a shadow step",
        ),
        ("environments: staging", "rollout.environments: "),
    ],
)
def test_what_is_wrong_is_refused_with_the_remedy(rollout: str, told: str) -> None:
    with pytest.raises(PipelineFileError) as error:
        parsed(rollout)
    assert told in str(error.value)


def test_a_shift_of_numbers_needs_a_tolerance_in_staging_too() -> None:
    shift = "environments: [{name: s, max_prediction_shift: 0.1}]"
    with pytest.raises(PipelineFileError, match="rollout.prediction_tolerance"):
        parsed(shift, "regression")
    assert parsed(f"prediction_tolerance: 1, {shift}", "regression").rollout


def test_keys_of_production_are_what_they_were() -> None:
    wish = ServingDesired(pipeline="a", generation=1, champion=None)
    assert wish.key == "a"
    assert wish.model_copy(update={"environment": "staging"}).key == "a@staging"


def test_what_happens_before_production_says_so() -> None:
    step = RolloutAdvanced(
        pipeline="a", rollout_id="r", version=3, step="shadow", verdict="passed",
        detail="good",
    )  # fmt: skip
    assert describe(step) == "v3 shadow passed: good"
    there = step.model_copy(update={"environment": "staging"})
    assert describe(there) == "staging: v3 shadow passed: good"
