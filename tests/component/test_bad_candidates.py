"""Bad candidates, each stopped at the right stage, and nobody who asks notices.

Packages that are unsigned, answer their samples wrongly, or fail on rows of the stream
are in test_serving.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.events import (
    AlertRaised,
    BatchScored,
    ModelDeployed,
    ModelRolledBack,
    ScorerReported,
)
from driftloop.local.kafka import KafkaNode
from driftloop.models.losses import log_losses, paired

from tests.component.support import Events, ServiceProcess, open_events, wait_until
from tests.component.town import ROWS, Clients, Town
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory, node

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

CHAMPION = -22.0
"""Rows are red, so it says yes to sizes above 12; the truth is yes above 10."""
SIZES = [20.0 * row / ROWS for row in range(ROWS)]
TRIAL_S = "10"
"""Processor time: several times what a good one takes to import and answer."""
TWO_COLUMNS = [node("Concat", ["sum", "sum"], "said", axis=1)]
FLIPPED = [node("Neg", ["sum"], "said")]
FLIPPED_SUMS = np.array([11.0, 20.0])
FLIPPED_SAMPLES = {
    "prediction": ["yes", "yes"],
    "score": (1 / (1 + np.exp(-FLIPPED_SUMS))).tolist(),
}


def score(town: Town) -> None:
    """Give the stream rows until both versions have answered enough of them."""
    town.validate(*SIZES, count=5)


def score_and_measure(town: Town) -> None:
    """The labels come: compare the versions by what they really said."""
    score(town)
    wait_until(lambda: len(town.of(BatchScored)) == town.batches, "not all scored")
    truth = np.array(SIZES) > 10
    for event in town.of(BatchScored):
        said = {
            role: event.rows.column(f"{role}_score").to_numpy()
            for role in ("champion", "candidate")
        }
        right = {role: np.mean((yes > 0.5) == truth) for role, yes in said.items()}
        assert right["champion"] - right["candidate"] == pytest.approx(0.1, abs=0.03)
        losses = {
            role: log_losses(np.where(truth, yes, 1 - yes))
            for role, yes in said.items()
        }
        town.compare(
            {1: float(losses["champion"].mean()), 2: float(losses["candidate"].mean())},
            paired(losses["candidate"], losses["champion"]),
        )


def nothing(_: Town) -> None:
    """Asking and loading are enough."""


@dataclass(frozen=True)
class Bad:
    """A candidate, the rules, what happens, and where and why it is stopped.

    Attributes
    ----------
    stage : ``load``, or the name of the step.
    asked : size in the requests.
    """

    stage: str
    reason: str
    plus: float = CHAMPION
    package: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    happens: Callable[[Town], None] = nothing
    asked: float = 1.0


BAD = {
    "ends its process when loaded": Bad(
        "load",
        "took more than 10 s of processor time",
        package={"extra": packages.multiplying(4000, times=1000)},
    ),
    "has another output shape": Bad(
        "load", "4 answers to 2 rows", package={"extra": TWO_COLUMNS}
    ),
    "is far slower than the champion": Bad(
        "shadow",
        "too slow: a call takes",
        package={"extra": packages.multiplying(1500)},
        happens=score,
    ),
    "is worse by 10 points of accuracy": Bad(
        "shadow", "worse: loss ratio", plus=CHAMPION - 2, happens=score_and_measure
    ),
    "flips predictions": Bad(
        "shadow",
        "predictions differ on",
        package={"extra": FLIPPED, "samples": FLIPPED_SAMPLES},
        rules={"max_prediction_shift": 0.3},
        happens=score,
    ),
    "answers requests with NaN": Bad(
        "canary 50 %",
        "failed on",
        package={"extra": packages.NAN_ABOVE_100},
        rules={"strategy": "canary", "steps": [0.5]},
        asked=500.0,
    ),
}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Events, Factory, ServiceProcess, ServiceProcess]]:
    """One installation for all tests here; each test has a pipeline of its own."""
    home: Path = tmp_path_factory.mktemp("home")
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        address = node.bootstrap
        with (
            open_events(address, home) as events,
            ServiceProcess("deployer", address, home) as deployer,
            ServiceProcess(
                "scorer", address, home, scorer_trial_timeout_seconds=TRIAL_S
            ) as scorer,
        ):
            yield events, Factory(home), deployer, scorer


@pytest.fixture
def town(
    place: tuple[Events, Factory, ServiceProcess, ServiceProcess],
    unique_name: Callable[[str], str],
) -> Town:
    return Town(unique_name("town"), *place)


def begin(town: Town, bad: Bad) -> None:
    town.apply("binary", **bad.rules)
    town.approve(1, town.package(CHAMPION, is_binary=True))
    wait_until(lambda: town.of(ModelDeployed), "no first version")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_is_stopped_at_its_stage(town: Town, name: str) -> None:
    bad = BAD[name]
    begin(town, bad)
    with Clients(town.name, [town.scorer], size=bad.asked) as clients:
        wait_until(lambda: clients.versions, "no answers")
        town.approve(2, town.package(bad.plus, is_binary=True, **bad.package))
        wait_until(lambda: len(town.steps(2)) > 0, "its rollout did not begin")
        if bad.stage != "load":
            town.wait_for(1, 2, 0.5 if bad.stage.startswith("canary") else 0.0)
            bad.happens(town)
        wait_until(lambda: town.of(ModelRolledBack), "it was not taken back")
        town.wait_for(1, None, 0.0)
        answered = len(clients.versions)
        wait_until(lambda: len(clients.versions) > answered + 20, "no answers")
    assert clients.failed == []
    assert set(clients.versions) == {"1"}

    wait_until(lambda: town.of(AlertRaised), "nobody was told")
    wait_until(lambda: town.steps(2)[-1][1] == "failed", "its rollout did not end")
    (back,) = town.of(ModelRolledBack)
    (alert,) = town.of(AlertRaised)
    assert back.version == 2
    assert back.restored is not None
    assert back.restored.version == 1
    assert re.search(bad.reason, back.reason)
    assert back.reason in alert.detail
    stage, verdict = town.steps(2)[-1]
    assert verdict == "failed"
    states = {
        said.state
        for report in town.of(ScorerReported)
        for said in report.versions
        if said.version == 2
    }
    if bad.stage == "load":
        assert states == {"failed"}
    else:
        assert states == {"ready"}
        assert stage == bad.stage


def test_an_equal_candidate_is_not_stopped(town: Town) -> None:
    """The same rules and the same rows let a version pass that is none of this."""
    bad = BAD["flips predictions"]
    begin(town, bad)
    town.approve(2, town.package(CHAMPION - 0.001, is_binary=True))
    town.wait_for(1, 2, 0.0)
    score(town)
    wait_until(
        lambda: sum(
            said.compared_count
            for report in town.of(ScorerReported)
            for said in report.versions[-1:]  # a scorer's first report has none
        ),
        "nothing was compared",
    )
    town.measure(2, 1, 1.0)
    town.measure(2, 1, 1.0)
    town.wait_for(1, 2, 0.1)
    assert not town.of(ModelRolledBack)
