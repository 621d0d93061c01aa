"""Runners at the edge: what they told adds up, and a bad version is told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    AlertRaised,
    EdgeReported,
    ModelDeployed,
    ModelRolledBack,
    ModelTrained,
    ServedModel,
)
from driftloop.registry import handlers
from driftloop.registry.edges.tables import answering, runners_of
from driftloop.registry.edges.warning import problem_with
from driftloop.registry.handlers import Deps

from tests.unit.registry import story
from tests.unit.registry.bench import open_deps
from tests.unit.registry.story import NAME, named
from tests.unit.registry.test_resources import Installation
from tests.unit.scorer.packages import Factory

DIGEST = "f" * 64


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def deps() -> Iterator[Deps]:
    yield from open_deps("full")


def report(number: int, version: int, digest: str = DIGEST, **more: Any) -> Any:
    """Return the report of a quarter of an hour."""
    event = EdgeReported.model_validate(
        {
            "pipeline": NAME,
            "edge": "line-4",
            "report_id": f"{number:032x}",
            "version": version,
            "package_digest": digest,
            "since": f"2012-01-01T{number:02d}:00:00Z",
            "until": f"2012-01-01T{number:02d}:15:00Z",
            "request_count": 10,
            "row_count": 20,
            "error_count": 1,
            "unfamiliar_row_count": 5,
            "reported_by": "line-4",
            **more,
        }
    )
    return named(event, f"report-{event.edge}-{number}")


def take(event: EdgeReported, deps: Deps) -> list[AlertRaised]:
    return [
        one
        for one in handlers.on_edge_reported(event, deps)
        if isinstance(one, AlertRaised)
    ]


def served(factory: Factory, deps: Deps, version: int) -> ModelTrained:
    """Register a version that the gate lets into service."""
    event = story.trained(factory, f"job-{version}")
    list(handlers.on_model_trained(event, deps))
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id=f"r{version}", version=version,
        package=event.package, generation=version * 2,
    )  # fmt: skip
    list(handlers.on_model_deployed(named(deployed, f"deployed-{version}"), deps))
    return event


def back(event: ModelTrained, version: int) -> Any:
    told = ModelRolledBack(
        pipeline=NAME, rollout_id=f"r{version}", version=version,
        generation=version * 2, reason="worse",
        restored=ServedModel(version=1, package=event.package),
    )  # fmt: skip
    return named(told, f"back-{version}")


def test_reports_add_up(deps: Deps, factory: Factory) -> None:
    """By version; the one that was told of last is the one that answers."""
    first, second = (served(factory, deps, n).package.digest for n in (1, 2))
    for number in (1, 2, 3):
        assert take(report(number, 1, first), deps) == []
    assert take(report(4, 2, second), deps) == []
    assert take(report(1, 1, first, edge="line-5"), deps) == []
    rows = runners_of(deps.session, [NAME])
    assert len(rows) == 3
    now = {row.edge: row for row in answering(rows)}
    assert {edge: row.version for edge, row in now.items()} == {
        "line-4": 2, "line-5": 1
    }  # fmt: skip
    old = next(row for row in rows if (row.edge, row.version) == ("line-4", 1))
    assert (old.report_count, old.row_count, old.error_count) == (3, 60, 3)
    assert (old.first_at.hour, old.last_at.hour) == (1, 3)
    take(report(5, 1, first), deps)  # the older version is put back there
    rows = runners_of(deps.session, [NAME])
    assert {row.edge: row.version for row in answering(rows)}["line-4"] == 1


def test_a_version_that_is_taken_back_is_told_of(deps: Deps, factory: Factory) -> None:
    """Those who answer with it are named, and no others."""
    first, event = served(factory, deps, 1), served(factory, deps, 2)
    digest = event.package.digest
    take(report(1, 2, digest), deps)
    take(report(1, 2, digest, edge="line-9"), deps)
    take(report(1, 2, digest, edge="line-7"), deps)
    take(report(2, 1, first.package.digest, edge="line-7"), deps)  # has gone on
    told = list(handlers.on_model_rolled_back(back(event, 2), deps))
    [alert] = [one for one in told if isinstance(one, AlertRaised)]
    assert alert.title == "v2 was taken back and answers at the edge"
    assert alert.detail.startswith("line-4, line-9: export another version")
    # a runner that starts with it now is told of once
    [late] = take(report(1, 2, digest, edge="line-8"), deps)
    assert late.detail.startswith("line-8: ")
    assert take(report(2, 2, digest, edge="line-8"), deps) == []


def test_a_version_that_is_none_here_is_told_of(deps: Deps, factory: Factory) -> None:
    event = served(factory, deps, 1)
    [unknown] = take(report(1, 7), deps)
    assert unknown.title == "v7 is not known here and answers at the edge"
    [other] = take(report(2, 1), deps)
    assert "is another package than the one that is registered" in other.title
    assert take(report(3, 1, event.package.digest), deps) == []


@pytest.mark.parametrize("state", ["approved", "deployed", "superseded"])
def test_a_version_of_service_is_no_problem(state: Any) -> None:
    assert problem_with(state, "a", "a") is None


def test_the_api_lists_runners(tmp_path: Path, factory: Factory) -> None:
    found = Installation(tmp_path, factory)
    event = story.trained(factory, "one")
    found.take(
        event,
        report(1, 1, event.package.digest),
        report(2, 1, event.package.digest, edge="line-5"),
        report(3, 9, edge="line-6"),
    )
    ann = found.client("ann", "data_scientist")
    listed = ann.every("/edges", limit=2)
    assert [one["edge"] for one in listed] == ["line-6", "line-5", "line-4"]
    assert listed == ann.get(f"/edges?pipeline={NAME}")["items"]
    assert listed[0]["problem"] == "is not known here"
    assert listed[0]["state"] is None
    assert listed[2]["problem"] == "is not approved"
    assert listed[2]["last"]["report_id"] == f"{1:032x}"
    assert ann.refused("/edges?pipeline=other")[0] == 404
    found.close()
