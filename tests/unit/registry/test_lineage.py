"""Upstream and downstream of everything, from the facts the handlers stored."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    ApprovalGiven,
    DriftDetected,
    Evidence,
    ModelDeployed,
)
from driftloop.registry.handlers import Deps
from driftloop.registry.lineage.graph import Direction, Found, walk
from driftloop.registry.lineage.reading import UnknownThingError, find

from tests.unit.registry import bench
from tests.unit.registry.bench import DAY, Life, at, open_deps, ref, trigger, versioned
from tests.unit.registry.story import NAME, START
from tests.unit.scorer.packages import Factory

DRIFT = "drift-1"


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


def life_of(deps: Deps, factory: Factory, seed: int | None = None) -> Life:
    """Live a short life: data, a model, service, drift, labels, a second model."""
    life = Life(deps, factory)
    first = trigger(versioned(3).meta.id)
    again = trigger(DRIFT, "drift-detected")
    one = bench.trained(factory, "one", first, ref(3), 3)
    drift = DriftDetected(
        pipeline=NAME, model_version=1, cause="concept_drift", retrain_advised=True,
        since=START, detected_at=START, explanation="errors grew",
        evidence=[Evidence(signal="error", detector="KS", statistic=1, row_count=9)],
    )  # fmt: skip
    approval = ApprovalGiven(
        pipeline=NAME, version=1, decision="approve", by="ann", reason="good",
        package_digest=one.package.digest,
    )  # fmt: skip
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r", version=1, package=one.package, generation=2
    )
    events = [
        *(versioned(day) for day in (1, 2, 3)),
        bench.started("one", first, ref(3), 3),
        one,
        at(approval, "approval-1", 4),
        at(deployed, "deployed-1", 5),
        versioned(4),
        versioned(5, ref(4, 2), kind="labels"),
        versioned(40, ref(40, 2)),  # of a time that the second training does not read
        at(drift, DRIFT, 6),
        bench.started("two", again, ref(41, 2), 6),
        versioned(41, ref(41, 2), span=bench.day_span(4)),
        bench.trained(factory, "two", again, ref(41, 2), 6),
    ]
    if seed is not None:
        models = [e for e in events if e.topic() == "model-trained"]
        others = [e for e in events if e.topic() != "model-trained"]
        random.Random(seed).shuffle(others)
        events = [*others[:4], models[0], *others[4:], models[1]]
    for event in events:
        life.take(event)
    return life


@pytest.fixture
def deps(factory: Factory) -> Iterator[Deps]:
    for found in open_deps("approve"):
        life_of(found, factory)
        yield found


def ask(deps: Deps, thing: str, direction: Direction, depth: int = 20) -> list[Found]:
    graph, start = find(deps.session, thing)
    return list(walk(graph, start, direction, depth))


def ids(found: list[Found]) -> list[str]:
    return [one.node.id.replace(f"/{NAME}", "") for one in found]


def test_a_model_upstream(deps: Deps) -> None:
    """Down to the raw batches, by way of a verdict to the model before it."""
    found = ids(ask(deps, f"{NAME}/2", "upstream"))
    validated = derived_id("batch-observations-1", "batch-validated", 0)
    assert found[:4] == ["model/2", "training/two", "dataset/41.2", f"drift/{DRIFT}"]
    assert {
        "dataset/1.0", f"validated/{validated}", "batch/batch-observations-1",
        "dataset/4.2", "batch/batch-labels-5", "model/1", "training/one",
    } <= set(found)  # fmt: skip
    assert "dataset/40.2" not in found  # not of the time that was read
    assert "dataset/40.2" in ids(ask(deps, f"dataset/{NAME}/41.2", "upstream"))


def test_a_batch_downstream(deps: Deps) -> None:
    """It went into both trainings, their models, and into service."""
    found = ids(ask(deps, "batch-observations-2", "downstream"))
    assert found[0] == "batch/batch-observations-2"
    assert {"dataset/2.0", "training/one", "training/two", "model/1", "model/2",
            "deployment/deployed-1", "approval/approval-1"} <= set(found)  # fmt: skip
    late = ids(ask(deps, "batch-observations-4", "downstream"))
    assert "training/two" in late
    assert "training/one" not in late  # negative control: it came too late for it


def test_edges_lead_to_nodes_that_were_told(deps: Deps) -> None:
    """Each node but the first is reached by an edge from one before it."""
    told: set[str] = set()
    for one in ask(deps, f"{NAME}/1", "both"):
        if one.is_upstream is not None:
            assert one.edges
        for edge in one.edges:
            near, far = edge.target, edge.source
            if not one.is_upstream:
                near, far = far, near
            assert near in told
            assert far == one.node.id
        told.add(one.node.id)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_is_kept(deps: Deps, depth: int) -> None:
    found = ask(deps, f"{NAME}/1", "both", depth)
    assert max(one.depth for one in found) == depth


@pytest.mark.parametrize(
    ("thing", "wanted"),
    [
        (NAME, "model/1"),
        (f"{NAME}@1", "model/1"),
        (f"model/{NAME}/2", "model/2"),
        ("trained-two", "model/2"),
        ("two", "training/two"),
        (DRIFT, f"drift/{DRIFT}"),
        ("approval-1", "approval/approval-1"),
        ("deployed-1", "deployment/deployed-1"),
        (versioned(1).meta.id, "dataset/1.0"),
        (f"dataset/{NAME}/4.2", "dataset/4.2"),
    ],
)
def test_how_things_are_named(deps: Deps, thing: str, wanted: str) -> None:
    assert ids(ask(deps, thing, "upstream", 1))[0] == wanted


@pytest.mark.parametrize(
    "thing", ["nobody", f"{NAME}/9", f"dataset/{NAME}/7.7", "a/b/c"]
)
def test_what_is_not_known_is_said(deps: Deps, thing: str) -> None:
    with pytest.raises(UnknownThingError, match="name a version"):
        find(deps.session, thing)


@pytest.mark.parametrize("seed", range(5))
def test_order_of_topics_does_not_matter(
    deps: Deps, factory: Factory, seed: int
) -> None:
    """Read anew in any order, the log gives the same graph and the same reports."""
    for other in open_deps("approve"):
        life = life_of(other, factory, seed)
        for thing in (f"{NAME}/2", "batch-observations-1"):
            assert ids(ask(other, thing, "both")) == ids(ask(deps, thing, "both"))
    for straight in open_deps("approve"):
        wanted = life_of(straight, factory)
    said = {one.meta.id: one.model_dump_json() for one in life.reports()}
    assert said == {one.meta.id: one.model_dump_json() for one in wanted.reports()}


def test_a_failed_training_has_no_model(factory: Factory) -> None:
    for deps in open_deps("full"):
        life = Life(deps, factory)
        why = trigger("t")
        life.take(bench.failed("one", why, 2))
        life.take(bench.started("one", why, ref(1), 1))
        life.take(versioned(1))
        found = ask(deps, f"dataset/{NAME}/1.0", "downstream")
        assert ids(found) == ["dataset/1.0", "training/one"]
        assert found[1].node.detail["state"] == "failed"
        assert found[1].node.at == START + DAY
