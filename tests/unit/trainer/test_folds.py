"""Validation on several stretches of time: each judged by what was learned before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.trainer import choosing, package_files, training
from driftloop.trainer.folds import comparable, folds_of
from driftloop.trainer.recipes import Recipe
from driftloop.trainer.trials import Choice, Trial
from pydantic import ValidationError

from tests.unit.trainer.cases import START, rows, spec
from tests.unit.trainer.test_choosing import (
    CHANGED_AT,
    COUNT,
    changing,
    flips,
    stays,
    train,
)

SINCE = START + timedelta(hours=CHANGED_AT)


def ends(table: pa.Table) -> tuple[Any, Any]:
    times = table["event_time"].to_pylist()
    return times[0], times[-1]


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("row_count", [100, 333, 1001])
def test_folds_expand_in_order_of_time_and_end_with_the_rows(
    count: int, row_count: int
) -> None:
    table = rows(row_count)
    folds = folds_of(table, count)
    assert len(folds) == count
    for older, newer in pairwise(folds):
        seen = older.fitting.num_rows + older.validation.num_rows
        assert newer.fitting.num_rows == seen
    for fold in folds:
        assert ends(fold.fitting)[1] < ends(fold.validation)[0]
        assert ends(fold.fitting)[0] == START
    assert ends(folds[-1].validation)[1] == ends(table)[1]


def test_one_fold_is_the_newest_fifth() -> None:
    (fold,) = folds_of(rows(333), 1)
    assert (fold.fitting.num_rows, fold.validation.num_rows) == (266, 67)


def test_the_loss_is_the_mean_over_the_folds(tmp_path: Path) -> None:
    table = changing(stays)
    trained = train(tmp_path, table, validation={"folds": 4})
    (tried,) = trained.tried
    assert tried.fold_losses is not None
    assert len(tried.fold_losses) == 4
    assert tried.validation_loss == pytest.approx(sum(tried.fold_losses) / 4)
    (kept,) = package_files.manifest_of(trained).tried
    assert kept.fold_losses == tried.fold_losses
    (tmp_path / "once").mkdir()
    single = train(tmp_path / "once", table)
    assert single.tried[0].fold_losses is None
    assert single.tried[0].validation_loss == tried.fold_losses[-1]
    assert single.chosen.model == trained.chosen.model
    manifest = package_files.manifest_of(single)
    assert "fold_losses" not in manifest.model_dump(mode="json")["tried"][0]


def test_a_window_that_is_right_since_a_change_wins_on_the_mean(tmp_path: Path) -> None:
    windows = ["all", 10]
    trained = train(tmp_path, changing(flips), windows=windows, validation={"folds": 2})
    every, short = trained.tried
    assert every.fold_losses is not None
    assert short.fold_losses is not None
    assert trained.chosen.parameters["window"] == 10
    assert short.fold_losses[1] < 0.5 * every.fold_losses[1]


def test_folds_of_a_few_rows_are_refused_with_the_setting(tmp_path: Path) -> None:
    table = rows(200)
    with pytest.raises(training.TrainingRefused, match=r"validation\.folds has 1\d"):
        train(tmp_path, table, validation={"folds": 10})


def test_only_folds_that_each_window_can_answer_are_compared() -> None:
    folds = folds_of(rows(COUNT), 4)  # validation from rows 200, 400, 600, 800
    both = [Recipe("linear"), Recipe("linear", "since_drift", since=SINCE)]
    assert comparable(folds, both) == folds[2:]
    assert comparable(folds, both[:1]) == folds


def test_blends_are_of_the_newest_fold(tmp_path: Path) -> None:
    trained = train(
        tmp_path,
        changing(stays),
        candidates=["linear", "gradient_boosting"],
        ensembles=["average", "stacking"],
        validation={"folds": 2},
    )
    folds = {t.name: t.fold_losses for t in trained.tried}
    assert folds["average"] is None
    assert folds["stacking"] is None
    assert len(folds["linear"] or []) == 2
    newest = {t.name: (t.fold_losses or [t.validation_loss])[-1] for t in trained.tried}
    assert newest["linear"] is not None
    assert newest["stacking"] is not None
    assert newest["linear"] < newest["stacking"]
    assert trained.chosen.name == "stacking"  # they differ by chance only


def trial(name: str, *means: float, spread: float = 0.0) -> Trial:
    """What lost these on each fold, by rows that differ by ``spread``."""
    draw = np.random.default_rng(len(name))
    found = tuple(mean + spread * draw.normal(size=400) for mean in means)
    return Trial(Choice((Recipe(name),)), [], found, "mae")


def first(singles: list[Trial], blends: list[Trial]) -> str:
    return choosing.first_of_the_best(singles, blends).choice.name


def test_all_folds_choose_among_singles_and_the_newest_with_a_blend() -> None:
    early, late = trial("early", 1.0, 3.0), trial("late", 4.0, 2.0)
    assert first([early, late], []) == "early"
    assert first([late, early], []) == "early"
    assert first([early, late], [trial("blend", 2.5)]) == "blend"
    assert first([early, late], [trial("blend", 3.5)]) == "early"


def test_a_weighted_mean_goes_before_its_members_unless_one_is_surely_better() -> None:
    single, noise = trial("single", 2.0), trial("noise", 0.0, spread=0.5).losses[0]

    def blended(kind: Any, by: float) -> Trial:
        """A blend that is worse by so much, and by chance one row here, one there."""
        found = single.losses[0] + by + noise - noise.mean()
        return replace(single, choice=Choice((Recipe("x"),), kind), losses=(found,))

    assert first([single], [blended("stacking", 0.01)]) == "stacking"
    assert first([single], [blended("average", 0.01)]) == "single"
    assert first([single], [blended("stacking", 1.0)]) == "single"  # not by chance


def test_the_first_stays_unless_it_is_worse_than_chance_explains() -> None:
    usual = trial("usual", 1.001, 1.001, spread=0.5)
    assert first([usual, trial("searched", 1.0, 1.0)], []) == "usual"
    assert first([usual, trial("searched", 0.5, 0.5)], []) == "searched"
    assert first([usual], [trial("blend", 1.0)]) == "usual"
    assert first([usual], [trial("blend", 0.5)]) == "blend"


@pytest.mark.parametrize("folds", [0, 11, 1.5])
def test_a_number_of_folds_that_cannot_be_is_refused(folds: float) -> None:
    with pytest.raises(ValidationError, match="folds"):
        spec(train={"validation": {"folds": folds}})
