"""Networks go on from the champion's weights, or say why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import fitting
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.continuing import Heritage
from driftloop.trainer.fitting import Fitted

from tests.unit.trainer.cases import rows
from tests.unit.trainer.test_conformance import (
    OF_TORCH,
    TASKS,
    continuing_spec,
    left_by,
    named_lags,
    with_lags,
)
from tests.unit.trainer.test_continuing import FIRST, SECOND, Place, asked

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
STATE = "continue.safetensors"
STILL = {"learning_rate": 1e-9, "weight_decay": 0.0}
"""Learns nothing: what it answers is what it began with."""


def table_of(name: str, task: str, count: int = 400) -> tuple[pa.Table, PipelineSpec]:
    how = named_lags(name, continuing_spec(task))
    return with_lags(name, rows(count, task=task)), how


def fit(
    name: str, table: pa.Table, how: PipelineSpec, left: Heritage | None, **more: Any
) -> Fitted:
    return fitting.fit(name, table, how, 1, heritage=left, **more)


def answers(fitted: Fitted, table: pa.Table) -> np.ndarray[Any, Any]:
    said = fitted.loaded().predict(table)
    return said.prediction if said.score is None else said.score


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", OF_TORCH)
def test_it_begins_at_the_weights_that_were_left(name: str, task: str) -> None:
    """Also with another mean and spread of the rows that it gets."""
    table, how = table_of(name, task)
    first = fit(name, table.slice(0, 300), how, None)
    assert first.state[STATE]
    again = fit(name, table, how, left_by(first), parameters=STILL)
    fresh = fit(name, table, how, None, parameters=STILL)
    wanted = answers(first, table)
    spread = float(np.std(wanted))
    assert answers(again, table) == pytest.approx(wanted, abs=1e-4 * spread)
    assert answers(fresh, table) != pytest.approx(wanted, abs=0.1 * spread)


@pytest.mark.parametrize("name", OF_TORCH)
def test_it_learns_on_and_comes_to_the_same_bytes_again(name: str) -> None:
    table, how = table_of(name, "regression")
    first = fit(name, table.slice(0, 300), how, None)
    second = fit(name, table, how, left_by(first))
    assert second.model != first.model
    assert second.state[STATE] != first.state[STATE]
    assert fit(name, table, how, left_by(first)).model == second.model
    assert second.parity is not None
    assert second.parity <= fitting.PARITY_TOLERANCE


def test_it_stops_by_rows_that_its_weights_have_not_learned() -> None:
    table, how = table_of("mlp", "regression")
    first = fit("mlp", table.slice(0, 381), how, None)
    with pytest.raises(CandidateRefused, match="19 rows are newer .* 20 are needed"):
        fit("mlp", table, how, left_by(first))
    enough = fit("mlp", table.slice(0, 380), how, None)
    assert fit("mlp", table, how, left_by(enough)).model


def tensors_of(left: Heritage) -> dict[str, Any]:
    from safetensors.torch import load

    return dict(load(left.state))


def tampered(left: Heritage, **changed: Any) -> Heritage:
    from safetensors.torch import save

    kept = {n: v.clone() for n, v in (tensors_of(left) | changed).items()}
    return replace(left, state=save(kept))


def facts(left: Heritage, **changed: Any) -> Any:
    said = json.loads(bytes(tensors_of(left)["facts"].tolist())) | changed
    return torch.tensor([*json.dumps(said).encode()], dtype=torch.uint8)


TAMPERED = {
    "not finite": lambda left: {"input.means": tensors_of(left)["input.means"] / 0},
    "are not of these columns": lambda _: {"input.scales": torch.ones(3)},
    "not above 0": lambda left: {"input.scales": 0 * tensors_of(left)["input.scales"]},
    "not finite ": lambda _: {"target": torch.tensor([0.0, -1.0])},
    "columns that are not there": lambda _: {"input.numbers": torch.tensor([10**6])},
    "have no numbers": lambda _: {"input.numbers": torch.tensor([0.5])},
    "bins are not whole": lambda _: {"input.bins.low": torch.ones(1)},
    "another shape": lambda _: {"weights.more": torch.ones(1)},
    "another number of columns": lambda left: {
        "facts": facts(left, **{"number of columns": 99})
    },
    "another algorithm": lambda left: {"facts": facts(left, algorithm="gru")},
    "how it was learned": lambda left: {"facts": facts(left, more=1)},
}


@pytest.fixture(scope="module")
def left() -> Heritage:
    table, how = table_of("mlp", "regression")
    found = left_by(fit("mlp", table.slice(0, 300), how, None))
    assert fit("mlp", table, how, tampered(found)).model  # the control of what follows
    return found


@pytest.mark.parametrize("words", TAMPERED)
def test_a_state_that_was_changed_is_refused_in_words(
    words: str, left: Heritage
) -> None:
    table, how = table_of("mlp", "regression")
    wrong = tampered(left, **TAMPERED[words](left))
    with pytest.raises(CandidateRefused, match=f"champion's state: .*{words.strip()}"):
        fit("mlp", table, how, wrong)


@pytest.mark.parametrize("state", [b"", b"no state", b"\xff" * 100])
def test_bytes_that_are_no_state_are_refused_in_words(
    state: bytes, left: Heritage
) -> None:
    table, how = table_of("mlp", "regression")
    with pytest.raises(CandidateRefused, match="cannot go on from the champion's"):
        fit("mlp", table, how, replace(left, state=state))


def test_a_training_tries_both_ways_and_can_be_made_again(tmp_path: Path) -> None:
    place = Place(tmp_path, rows(SECOND))
    how = asked(candidates=["mlp"])
    champion = place.packed(place.train(place.request(FIRST, how), "first"), 1)
    assert STATE in place.package(champion).files
    request = place.request(SECOND, how, champion)
    trained = place.train(request, "second")
    assert [t.detail for t in trained.tried] == ["continued from version 1", ""]
    assert all(t.validation_loss is not None for t in trained.tried)
    again = place.packed(place.train(request, "third"), 2)
    assert again.package.digest == place.packed(trained, 2).package.digest
