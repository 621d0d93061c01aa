"""The search for parameters: proposed by Optuna, judged on validation, made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.validation import SearchSection
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import package_files, search, training
from driftloop.trainer.candidates import (
    MODULES,
    CandidateRefused,
    Sample,
    candidate,
    space_of,
)
from driftloop.trainer.search import Attempt, Budget, Parameters, Search
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from tests.unit.trainer.cases import rows, spec
from tests.unit.trainer.test_choosing import changing, stays, train

pytest.importorskip("optuna")
SEARCHED = ["gradient_boosting", "random_forest", "linear", "mlp", "gru", "tcn"]
FOREST = space_of("random_forest", "regression")


class KilledError(Exception):
    """The process of a search ends here."""


def hill(number: int, parameters: Parameters) -> Iterator[float]:
    """Three folds whose loss is least at a leaf size of 20."""
    leaf = float(parameters["min_samples_leaf"])
    for fold in range(3):
        yield abs(np.log(leaf / 20)) + 0.01 * fold


def searched(folder: Path, judge: Any = hill, budget: Budget | None = None, **of: Any):
    folder.mkdir(exist_ok=True)
    settings = {"name": "random_forest", "space": FOREST, "seed": 0} | of
    usual = [2.0, 2.01, 2.02]
    budget = budget or Budget(SearchSection(trials=25), ["random_forest"])
    return list(Search(**settings, usual=usual, folder=folder).attempts(budget, judge))


def plain(attempts: list[Attempt]) -> list[tuple[Any, ...]]:
    return [(a.number, a.parameters, a.losses, a.state) for a in attempts]


# ── what is proposed ────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", [(1, 0), (1, 2), (7, 0), (15, 0), (25, 0)])
def test_a_search_that_was_killed_goes_on_as_if_unbroken(
    at: tuple[int, int], tmp_path: Path
) -> None:
    def killed(number: int, parameters: Parameters) -> Iterator[float]:
        for fold, loss in enumerate(hill(number, parameters)):
            if (number, fold) == at:
                raise KilledError
            yield loss

    unbroken = searched(tmp_path / "unbroken")
    with pytest.raises(KilledError):
        searched(tmp_path / "broken", killed)
    assert len(list((tmp_path / "broken").glob("attempt*.json"))) == at[0] - 1
    assert plain(searched(tmp_path / "broken")) == plain(unbroken)


def test_done_trials_are_not_done_again(tmp_path: Path) -> None:
    first = searched(tmp_path)

    def never(number: int, parameters: Parameters) -> Iterator[float]:
        raise AssertionError(number)
        yield

    assert searched(tmp_path, never) == first


def test_seed_and_candidate_decide_what_is_proposed(tmp_path: Path) -> None:
    first = plain(searched(tmp_path / "a"))
    assert plain(searched(tmp_path / "b")) == first
    assert plain(searched(tmp_path / "c", seed=1)) != first
    assert plain(searched(tmp_path / "d", name="other")) != first


def test_the_search_learns_and_gives_up_what_is_worse(tmp_path: Path) -> None:
    found = searched(tmp_path, budget=Budget(SearchSection(trials=40), []))
    best = min(a.loss for a in found if a.loss is not None)
    assert best < 0.1
    pruned = [a for a in found if a.state == "pruned"]
    assert pruned
    assert all(len(a.losses) < 3 and a.loss is None for a in pruned)
    assert "given up after fold" in pruned[0].detail

    def one_fold(number: int, parameters: Parameters) -> Iterator[float]:
        yield next(hill(number, parameters))

    once = Search("random_forest", FOREST, 0, [2.0], tmp_path / "once")
    once.folder.mkdir()
    budget = Budget(SearchSection(trials=20), [])
    states = {a.state for a in once.attempts(budget, one_fold)}
    assert states == {"complete"}


def test_a_trial_that_cannot_be_used_is_told_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    def fragile(number: int, parameters: Parameters) -> Iterator[float]:
        if number == 2:
            raise CandidateRefused("too many trees")
        yield from hill(number, parameters)

    found = searched(tmp_path, fragile)
    assert (found[1].state, found[1].detail) == ("refused", "too many trees")
    assert found[1].loss is None
    assert len(found) == 25


# ── how long ────────────────────────────────────────────────────────────────


class Minutes:
    """A clock on which each trial takes a minute: it is read twice a trial."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 30.0
        return self._now * 2 - 30.0


def test_minutes_are_shared_and_end_a_resumed_search_where_they_did(
    tmp_path: Path,
) -> None:
    section = SearchSection(trials=25, minutes=10)
    for _ in range(2):
        budget = Budget(section, ["random_forest", "other"])
        clock = Minutes()
        first = searched(tmp_path, budget=budget, clock=clock)
        second = searched(tmp_path, budget=budget, clock=clock, name="other")
        assert (len(first), len(second)) == (5, 5)
        assert {a.seconds for a in first} == {60.0}


def test_recorded_trials_are_made_again_without_a_clock(tmp_path: Path) -> None:
    section = SearchSection(trials=25, minutes=1e-9)
    recorded = Budget(section, ["random_forest"], {"random_forest": 3})
    assert len(searched(tmp_path / "again", budget=recorded)) == 3
    timed = Budget(section, ["random_forest"])
    assert len(searched(tmp_path / "timed", budget=timed, clock=Minutes())) == 1
    none = Budget(section, ["random_forest"], {})
    assert searched(tmp_path / "none", budget=none) == []


# ── spaces ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("name", SEARCHED)
def test_the_usual_parameters_lie_in_the_space(name: str, task: str) -> None:
    space = space_of(name, task)
    assert space
    assert len({setting.name for setting in space}) == len(space)
    for setting in space:
        if setting.choices:
            assert setting.default in setting.choices
        else:
            assert setting.low <= setting.default <= setting.high


def test_a_model_of_the_pipelines_own_is_tried_as_it_is(tmp_path: Path) -> None:
    own: Any = {"import": "my_models:Mine", "name": "mine"}  # refused: not allowed
    candidates: list[Any] = ["linear", own]
    search: Any = {"trials": 2}
    trained = train(tmp_path, rows(400), candidates=candidates, search=search)
    told = [(t.name, t.trial) for t in trained.tried]
    assert told == [("linear", None), ("mine", None), ("linear", 1), ("linear", 2)]
    assert space_of("mine", "regression") == ()


def test_the_other_candidates_have_nothing_to_search() -> None:
    without = {name for name in MODULES if not space_of(name, "regression")}
    assert without == set(MODULES) - set(SEARCHED)


@pytest.mark.parametrize("classes", [(), ("no", "yes")])
@pytest.mark.parametrize("name", SEARCHED[:4])
def test_each_parameter_reaches_the_library(
    name: str, classes: tuple[str, ...]
) -> None:
    if name == "mlp":
        pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(300, 4)).astype(np.float32)
    target: Any = matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + draw.normal(size=300)
    target = (target > 0).astype(np.int64) if classes else target.astype(np.float64)

    def answers(parameters: dict[str, Any]) -> Any:
        sample = Sample(matrix, target, classes, 0, parameters=parameters)
        with threadpool_limits(1):
            core = candidate(name)(sample)
        assert parameters.items() <= core.parameters.items()
        return core.predict(matrix)

    space = space_of(name, "binary" if classes else "regression")
    usual = answers({})
    defaults = {setting.name: setting.default for setting in space}
    np.testing.assert_array_equal(answers(defaults), usual)
    for setting in space:
        low: Any = type(setting.default)(setting.low)
        if setting.choices:
            low = next(v for v in setting.choices[1:] if v != setting.default)
        quick = {"max_iter": 60} if name == "gradient_boosting" else {}
        other = answers(quick | {setting.name: low})
        assert not np.array_equal(other, answers(quick)), setting.name


# ── in a training ───────────────────────────────────────────────────────────

HOW: dict[str, Any] = {
    "candidates": ["linear", "gradient_boosting"],
    "search": {"trials": 4},
    "validation": {"folds": 2},
}


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees, so that trials are quick; the space stays."""
    from driftloop.trainer.candidates import sklearn_trees

    space = [
        s for s in sklearn_trees.SPACES["gradient_boosting"] if s.name != "max_iter"
    ]
    monkeypatch.setitem(sklearn_trees.SPACES, "gradient_boosting", tuple(space))
    monkeypatch.setitem(sklearn_trees.BOOSTING, "max_iter", 20)


def test_the_best_trial_is_served_and_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    trained = train(tmp_path, changing(stays), **HOW, ensembles=["average"])
    trials = [t for t in trained.tried if t.trial is not None]
    assert [(t.name, t.trial) for t in trials] == [
        (name, number) for name in HOW["candidates"] for number in (1, 2, 3, 4)
    ]
    assert all(t.parameters for t in trials)
    best = min(
        (
            t
            for t in trained.tried
            if t.validation_loss is not None and t.name != "average"
        ),
        key=lambda t: t.validation_loss or 0.0,
    )
    assert best.trial is not None
    assert best.parameters is not None
    assert trained.chosen.name == best.name
    assert best.parameters.items() <= trained.chosen.parameters.items()
    manifest = package_files.manifest_of(trained)
    kept = [t for t in manifest.tried if t.trial is not None]
    assert [t.parameters for t in kept] == [t.parameters for t in trials]
    assert "searched" not in json.loads(manifest.request or "")
    left = {path.name.partition("-")[0] for path in (tmp_path / "work").glob("*.onnx")}
    by_search = {name for name in left if name.startswith("trial")}
    assert len(by_search) <= 4  # the best of each candidate, on each of two folds


def test_a_training_that_is_killed_between_trials_gives_the_same_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    table = changing(stays)
    whole = train(tmp_path, table, **HOW)
    request = whole.request
    said: list[str] = []

    def killed(step: str, done: float, detail: str, fit: Any) -> None:
        said.append(detail)
        if detail.startswith("linear: trial 3 of 4, best loss") and step == "search":
            raise KilledError

    def going_on(step: str, done: float, detail: str, fit: Any) -> None:
        said.append(detail)

    (tmp_path / "again").mkdir()
    using = training.Environment(
        FolderStore(tmp_path / "artifacts"),
        TrustedKeys([]),
        None,
        1,
        tmp_path / "again",
    )
    with pytest.raises(KilledError):
        training.train(request, using, killed)
    again = training.train(request, using, going_on)
    assert package_files.files_of(again) == package_files.files_of(whole)
    assert package_files.manifest_of(again) == package_files.manifest_of(whole)


def test_a_search_that_time_ended_is_made_again_as_recorded(tmp_path: Path) -> None:
    table = changing(stays)
    ended = train(tmp_path, table, search={"trials": 50, "minutes": 1e-9})
    manifest = package_files.manifest_of(ended)
    assert [t.trial for t in manifest.tried] == [None, 1]
    slow = ended.request.model_copy(update={"searched": {"linear": 1}})
    (tmp_path / "again").mkdir()
    using = training.Environment(
        FolderStore(tmp_path / "artifacts"),
        TrustedKeys([]),
        None,
        1,
        tmp_path / "again",
    )
    again = training.train(slow, using, lambda *_: None)
    assert package_files.manifest_of(again) == manifest
    assert package_files.files_of(again) == package_files.files_of(ended)


def test_without_optuna_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "is_available", lambda: False)
    with pytest.raises(training.TrainingRefused, match=r"driftloop-trainer\[search\]"):
        train(tmp_path, rows(400), search={"trials": 3})
    (tmp_path / "off").mkdir()
    assert train(tmp_path / "off", rows(400)).chosen.name == "linear"


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"trials": -1}, "trials"),
        ({"trials": 201}, "trials"),
        ({"trials": 2, "minutes": 0}, "minutes"),
        ({"minutes": 5}, "trials is 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(section: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        spec(train={"search": section})
