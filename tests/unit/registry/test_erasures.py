"""An erasure is closed by a proof once each model that saw the rows is settled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    ErasureCompleted,
    ErasureSettled,
    ErasureTraced,
    LineageReported,
    RetrainRequested,
    SettlementRequested,
    TracedJob,
    TracedVersion,
)
from driftloop.registry.erasures.settling import Registered, objection, standing_of
from driftloop.registry.handlers import Deps
from driftloop.registry.recorded import RecordedVerdicts

from tests.unit.registry import bench, story
from tests.unit.registry.bench import START, Life, at, open_deps, ref, trigger
from tests.unit.registry.story import NAME
from tests.unit.scorer.packages import Factory

ERASURE = "erasure-1"
SUBJECT = "a" * 32


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def deps() -> Iterator[Deps]:
    yield from open_deps("full")


@pytest.fixture
def life(deps: Deps, factory: Factory) -> Life:
    return Life(deps, factory)


def traced(*jobs: str) -> Any:
    versions = [
        TracedVersion(
            kind="observations", version=3, row_count=2, span=bench.day_span(1)
        )
    ]
    event = ErasureTraced(
        pipeline=NAME, erasure_id=ERASURE, subject=SUBJECT, requested_by="ben",
        erased_at=START, key_count=1, token_count=0,
        versions=versions if jobs else [],
        jobs=[TracedJob(job_id=job, observations=3) for job in jobs],
    )  # fmt: skip
    return at(event, "traced", 10)


def settled(decision: str, *versions: int, by: str = "ann", number: int = 1) -> Any:
    event = ErasureSettled.model_validate(
        {
            "pipeline": NAME, "erasure_id": ERASURE, "versions": versions,
            "decision": decision, "by": by, "reason": "as the law says",
        }
    )  # fmt: skip
    return at(event, f"settled-{number}", 10 + number)


def model(factory: Factory, job: str, why: str = "x", **more: Any) -> Any:
    return bench.trained(factory, job, trigger(why), ref(3), 3, **more)


def told(life: Life, event: Any) -> list[Any]:
    """Return what follows for erasures."""
    wanted = (ErasureCompleted, RetrainRequested, SettlementRequested)
    return [one for one in life.take(event) if isinstance(one, wanted)]


def test_nobody_is_asked_where_no_model_saw_the_rows(
    life: Life, factory: Factory
) -> None:
    """Also of models that were trained on others' rows."""
    life.take(model(factory, "other"))
    [proof] = told(life, traced())
    assert isinstance(proof, ErasureCompleted)
    assert (proof.models, proof.versions, proof.key_count) == ([], [], 1)


def test_models_are_waived_or_retrained(life: Life, factory: Factory) -> None:
    """The proof comes with the last of them, and names how each was settled."""
    for job in ("one", "two", "three"):
        life.take(model(factory, job))
    life.take(model(factory, "poor", worth=story.worse()))
    [asked] = told(life, traced("one", "two", "three", "poor"))
    assert asked.versions == [1, 2, 3]  # the gate has refused the fourth
    assert told(life, settled("waive", 1)) == []
    [request] = told(life, settled("retrain", 2, 3, number=2))
    assert request.requested_by == "ann"
    assert request.reason == f"erasure {ERASURE}: as the law says"
    assert told(life, model(factory, "else", why="another trigger")) == []
    [proof] = told(life, model(factory, "new", why=request.meta.id))
    assert isinstance(proof, ErasureCompleted)
    assert [(m.version, m.settlement, m.by, m.replaced_by) for m in proof.models] == [
        (1, "waived", "ann", None),
        (2, "retrained", "ann", 6),
        (3, "retrained", "ann", 6),
        (4, "not_in_use", None, None),
    ]
    assert proof.erased_at == START
    assert [v.version for v in proof.versions] == [3]
    assert told(life, settled("retrain", 1, number=3)) == []  # it is closed


def test_a_training_that_runs_holds_the_proof_back(
    life: Life, factory: Factory
) -> None:
    """Its model is asked about when there is one; one that fails gives none."""
    life.take(bench.started("one", trigger("x"), ref(3), 3))
    assert told(life, traced("one", "two")) == []
    [asked] = told(life, model(factory, "one"))
    assert asked.versions == [1]
    assert told(life, settled("waive", 1)) == []
    [proof] = told(life, bench.failed("two", trigger("y"), 4))
    assert isinstance(proof, ErasureCompleted)


def test_a_retrain_that_fails_can_be_waived(life: Life, factory: Factory) -> None:
    """The last decision counts."""
    life.take(model(factory, "one"))
    told(life, traced("one"))
    [request] = told(life, settled("retrain", 1))
    assert told(life, bench.failed("new", trigger(request.meta.id), 5)) == []
    [proof] = told(life, settled("waive", 1, by="bob", number=2))
    assert [(m.settlement, m.by) for m in proof.models] == [("waived", "bob")]


def test_nothing_personal_is_in_the_proof(life: Life) -> None:
    """It holds the keyed hash; the erased tokens are not in it either."""
    [proof] = told(life, traced())
    assert set(proof.model_dump()) == {
        "pipeline", "erasure_id", "subject", "requested_by", "erased_at", "key_count",
        "token_count", "payload_count", "versions", "models",
    }  # fmt: skip


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))][::5])
def test_read_anew_it_says_nothing_else(
    factory: Factory, order: tuple[int, ...]
) -> None:
    """Without its database the registry repeats no question and no proof.

    Topics have no order among each other: an erasure may be read before the models.
    """
    recorded = RecordedVerdicts()
    for deps in open_deps("full"):
        first = Life(deps, factory)
        first.take(model(factory, "one"))
        told(first, traced("one"))
        first.take(settled("retrain", 1))
        request = derived_id("settled-1", "retrain-requested", 0)
        first.take(model(factory, "new", why=request))
    said = {e.meta.id: e for e in first.told if not isinstance(e, LineageReported)}
    for event in said.values():
        recorded.add(event)
    assert sum(isinstance(e, ErasureCompleted) for e in said.values()) == 1
    for deps in open_deps("full", recorded=recorded):
        again = Life(deps, factory)
        for number in order:
            again.take(first.log[number])
        repeated = [e for e in again.told if not isinstance(e, LineageReported)]
        assert {e.meta.id for e in repeated} <= said.keys()
        for event in repeated:
            assert event.model_dump_json() == said[event.meta.id].model_dump_json()


def test_an_open_erasure_read_anew_before_its_models(
    life: Life, factory: Factory
) -> None:
    """No proof is given as long as an affected training is not known to have ended."""
    assert told(life, traced("one")) == []
    [asked] = told(life, model(factory, "one"))
    assert asked.versions == [1]


def test_decisions_that_are_not_wanted() -> None:
    standing = standing_of(
        ["a", "b"], {"a": Registered(1, False), "b": Registered(2, True)},
        frozenset(), [], {},
    )  # fmt: skip
    assert objection(standing, [1]) is None
    assert "not affected; affected are: 1, 2" in str(objection(standing, [1, 7]))
    assert "settled already: not in use" in str(objection(standing, [2]))
