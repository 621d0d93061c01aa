"""river's models as JSON and back: they learn on as if nothing had been; no code."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from driftloop.trainer.candidates import river_start, river_state
from driftloop.trainer.candidates.river_state import StateRefused, loaded, saved
from driftloop.trainer.candidates.river_window import check_window
from driftloop.trainer.candidates.sample import CandidateRefused, Sample, Start
from river import forest, linear_model, multiclass, optim, preprocessing, tree
from river.drift import ADWIN

ROWS = 1200
FOREST = {"seed": 3, "n_models": 4, "grace_period": 50, "disable_weighted_vote": True}
AVERAGING = {"aggregation_method": "mean", "leaf_prediction": "mean"}
TREE = {"seed": 3, "grace_period": 50}


def linear(kind: Callable[..., Any]) -> Any:
    return kind(optimizer=optim.SGD(0.1), intercept_lr=0.1)


MODELS: dict[str, tuple[int, Callable[[], Any]]] = {
    "forest of numbers": (0, lambda: forest.ARFRegressor(**FOREST, **AVERAGING)),
    "tree of numbers": (
        0,
        lambda: tree.HoeffdingAdaptiveTreeRegressor(leaf_prediction="mean", **TREE),
    ),
    "line": (0, lambda: linear(linear_model.LinearRegression)),
    "forest of two": (2, lambda: forest.ARFClassifier(leaf_prediction="mc", **FOREST)),
    "forest of three": (
        3,
        lambda: forest.ARFClassifier(leaf_prediction="mc", **FOREST),
    ),
    "tree of two": (
        2,
        lambda: tree.HoeffdingAdaptiveTreeClassifier(leaf_prediction="mc", **TREE),
    ),
    "tree of three": (
        3,
        lambda: tree.HoeffdingAdaptiveTreeClassifier(leaf_prediction="mc", **TREE),
    ),
    "logistic": (2, lambda: linear(linear_model.LogisticRegression)),
    "each against the rest": (
        3,
        lambda: multiclass.OneVsRestClassifier(linear(linear_model.LogisticRegression)),
    ),
}


def stream(classes: int) -> list[tuple[dict[int, float], Any]]:
    """Rows whose rule turns over in the middle, so that trees are replaced."""
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(ROWS, 4)).astype(np.float32)
    turn = np.where(np.arange(ROWS) > ROWS / 2, -1, 1)
    truth = 3 * turn * matrix[:, 0] + matrix[:, 1]
    targets = np.digitize(truth, [-1, 1][: classes - 1]) if classes else truth
    rows = [dict(enumerate(row)) for row in matrix.tolist()]
    return list(zip(rows, targets.tolist(), strict=True))


def learn(model: Any, pairs: list[tuple[dict[int, float], Any]]) -> None:
    for row, target in pairs:
        model.learn_one(row, target)


def said(model: Any, classes: int, pairs: list[Any]) -> list[Any]:
    if classes:
        return [model.predict_proba_one(row) for row, _ in pairs]
    return [model.predict_one(row) for row, _ in pairs]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cut", [1, 700])
def test_a_loaded_model_learns_on_to_the_bit(name: str, cut: int) -> None:
    classes, make = MODELS[name]
    pairs = stream(classes)
    whole, first = make(), make()
    learn(whole, pairs[:cut])
    learn(first, pairs[:cut])
    state = saved(first)
    assert state == saved(whole)
    again = loaded(state)
    assert saved(again) == state
    learn(whole, pairs[cut:])
    learn(again, pairs[cut:])
    assert said(again, classes, pairs) == said(whole, classes, pairs)
    assert saved(again) == saved(whole)  # its dice, detectors and background trees too
    # The control: rows that were left out show.
    less = loaded(state)
    learn(less, pairs[cut + 50 :])
    assert saved(less) != saved(whole)


def test_what_is_shared_stays_shared() -> None:
    model = forest.ARFRegressor(**FOREST, **AVERAGING)
    learn(model, stream(0)[:300])
    again = loaded(saved(model))
    assert all(member.rng is again._rng for member in again)
    assert again._rng.getstate() == model._rng.getstate()


def test_plain_values_come_back() -> None:
    given = {"a": [1, -0.0, 1e-320, float("inf"), None, True, "é"], 7: {"x": {1, 2}}}
    again = loaded(saved(given))
    assert again == given
    assert str(again["a"][1]) == "-0.0"
    assert str(loaded(saved([float("nan")]))[0]) == "nan"


class Foreign:
    """Not on the list."""


@pytest.mark.parametrize(
    "given",
    [Foreign(), print, (1, 2), b"bytes", np.float64(1), np.zeros(2), {"f": len}],
)
def test_what_is_not_on_the_list_is_not_written(given: Any) -> None:
    with pytest.raises(StateRefused):
        saved([given])


def test_a_kind_with_another_attribute_is_not_written() -> None:
    scaler = preprocessing.StandardScaler()
    saved(scaler)
    scaler.more = 1
    with pytest.raises(StateRefused, match="StandardScaler"):
        saved(scaler)


def state(*objects: list[Any], river: str | None = None) -> bytes:
    version = river or river_state.river_version()
    return json.dumps({"river": version, "objects": objects}).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no state"),
        (b"\x80\x04K\x01.", "no state"),  # a pickle
        (b"[" * 100_000, "no state"),
        (b"[]", "no state"),
        (state(["list"], river="0.1"), "river 0.1; here is"),
        (state(), "no objects"),
        (state(["os.system", "true"]), "no river model has"),
        (state(["Foreign"]), "no river model has"),
        (state([["list"]]), "no river model has"),
        (state(["list", [5]]), "not whole"),
        (state(["list", [-1]]), "object -1"),
        (state(["list", ["0"]]), "object '0'"),
        (state(["list", {"float": "1"}]), "not whole"),
        (state(["dict", [0], 1]), "no key"),
        (state(["dict", 1]), "not whole"),
        (state(["Mean", 1]), "not whole"),
        (state(["Mean", 1, 2, 3]), "not whole"),
        (state(["dice", None, 1, 2]), "not whole"),
        (state(["dice", None, *[2**40] * 625]), "not whole"),
        (state(["vector", 1, "x"]), "no number"),
        (state(["window", 0.002, 32, 5, 5, 10, ""]), "window"),
        (state(["window", 0.002, 32, 5, 5, 10, "?"]), "not whole"),
    ],
)
def test_a_tampered_state_is_refused_in_words(data: bytes, why: str) -> None:
    with pytest.raises(StateRefused, match=why):
        loaded(data)


def test_a_state_that_is_too_big_is_neither_written_nor_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = saved(list(range(1000)))
    monkeypatch.setattr(river_state, "SIZE_LIMIT_BYTES", 1000)
    with pytest.raises(StateRefused, match="MiB"):
        saved(list(range(1000)))
    with pytest.raises(StateRefused, match="MiB"):
        loaded(whole)


def window() -> tuple[list[Any], bytes]:
    detector, draw = ADWIN(), random.Random(0)
    for _ in range(500):
        detector.update(draw.random())
    _, (_, *settings), content = detector._helper.__reduce_ex__(2)[:3]
    return settings, content


def test_a_window_that_would_end_the_process_is_refused() -> None:
    """Compiled code takes these bytes on trust."""
    settings, content = window()
    check_window(content, settings)
    refused = 0
    for at in range(0, len(content), 8):
        for wrong in (b"\xff" * 8, b"\x07" + b"\0" * 7):
            changed = content[:at] + wrong + content[at + 8 :]
            try:
                check_window(changed[: len(content)], settings)
            except ValueError:
                refused += 1
                continue
            text = base64.b64encode(changed[: len(content)]).decode()
            taken = loaded(state(["window", *settings, text]))
            for _ in range(100):
                taken.update(0.5)  # only numbers were changed: it goes on
    assert refused > len(content) / 8
    for cut in range(0, len(content), 7):
        with pytest.raises(ValueError, match="window"):
            check_window(content[:cut], settings)
    with pytest.raises(ValueError, match="more bytes"):
        check_window(content + content[-28:], settings)


FACTS = {"seed": 0, "rate": 0.1}
FRESH = {"model": linear(linear_model.LinearRegression), "medians": [0.0]}
SAMPLE = Sample(np.zeros((3, 1), np.float32), np.zeros(3), (), 0, keeps_state=True)


def begun(state: bytes, facts: dict[str, Any] = FACTS) -> dict[str, Any]:
    sample = Sample(SAMPLE.matrix, SAMPLE.target, (), 0, start=Start(state, 2))
    found, first = river_start.begun(sample, FRESH, facts)
    assert first == 2
    return found


def test_a_state_of_another_model_is_refused() -> None:
    kept = river_start.kept(SAMPLE, FRESH, FACTS)
    assert kept is not None
    assert begun(kept.data)["medians"] == [0.0]
    with pytest.raises(CandidateRefused, match="another seed"):
        begun(kept.data, FACTS | {"seed": 1})
    for wrong, why in (
        ({"facts": dict(FACTS), **FRESH, "more": 1}, "another candidate"),
        ({"facts": dict(FACTS), **FRESH, "model": 1}, "its model is a int"),
        ({"facts": 1, **FRESH}, "how it was learned"),
        ([1], "another candidate"),
    ):
        with pytest.raises(CandidateRefused, match=why):
            begun(saved(wrong))


def test_a_state_is_kept_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = Sample(SAMPLE.matrix, SAMPLE.target, (), 0)
    assert river_start.kept(quiet, FRESH, FACTS) is None
    monkeypatch.setattr(river_state, "SIZE_LIMIT_BYTES", 10)
    kept = river_start.kept(SAMPLE, FRESH, FACTS)
    assert kept is not None
    assert not kept.data
    assert "not kept" in kept.why
