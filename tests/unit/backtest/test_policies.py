"""Policy files over a pipeline file, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.policies import policies_of

from tests.unit.backtest import town


def test_a_file_is_laid_over_the_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("name: bold\nretrain: {cooldown_days: 0}\ntrain: {window_days: 3}")
    own, bold = policies_of(town.spec(), [str(path)], bounds=False)
    assert (bold.name, bold.kind) == ("bold", "file")
    assert bold.spec.retrain.cooldown_days == 0
    assert bold.spec.train.window_days == 3
    assert bold.spec.retrain.first_rows == own.spec.retrain.first_rows
    assert own.spec == town.spec()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("retrain: {cooldown: 3}", "did you mean 'cooldown_days'"),
        ("monitor: {window_rows: 1}", "monitor.window_rows"),
        ("retrains: {}", "did you mean 'retrain'"),
        ("data: {target: z}", "cannot change 'data'"),
        ("[1, 2]", "a policy is a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_says_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(BacktestError, match=said):
        policies_of(town.spec(), [str(path)])


def test_a_name_that_is_none_tells_the_names() -> None:
    with pytest.raises(BacktestError, match="every-5000"):
        policies_of(town.spec(), ["sometimes"])


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "never.yaml"
    path.write_text("{}")
    with pytest.raises(BacktestError, match="two policies"):
        policies_of(town.spec(), [str(path), "never"])


def test_the_bounds_are_there_once() -> None:
    names = [p.name for p in policies_of(town.spec(), ["every-100", "never"])]
    assert names == ["pipeline", "every-100", "never", "always", "oracle"]
    assert len(policies_of(town.spec(), [], bounds=False)) == 1


def test_never_has_no_trigger_of_its_own() -> None:
    spec = town.spec(
        retrain={"every_rows": 5, "schedule": {"every_days": 1},
                 "accuracy_floor": {"max_loss": 1.0}}
    )  # fmt: skip
    never = policies_of(spec, ["never"], bounds=False)[1].spec.retrain
    assert (never.on_drift, never.every_rows) == (False, None)
    assert never.schedule.every_days is None
    assert never.accuracy_floor.max_loss is None


def test_what_a_training_costs_holds_no_bound_back() -> None:
    spec = town.spec(retrain={"cost": {"loss_unit_value": 1, "training": 1e9}})
    own, *bounds, _ = policies_of(spec, [])
    assert own.spec.retrain.cost.loss_unit_value == 1
    assert {b.spec.retrain.cost.loss_unit_value for b in bounds} == {None}


def test_cheaper_candidates_are_for_all() -> None:
    spec = town.spec(train={"candidates": ["gradient_boosting"]})
    for policy in policies_of(spec, [], candidates=["linear"]):
        assert policy.spec.train.candidates == ["linear"]
