"""A shadow step by recorded rows, on a real broker: at once, once, and honestly."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.events import (
    BatchValidated,
    ModelRolledBack,
    RolloutAdvanced,
    RowKind,
    ServingDesired,
    ShadowReplayed,
    Span,
)
from driftloop.local.kafka import KafkaNode
from support import plain

from tests.component.support import Events, ServiceProcess, open_events, wait_until
from tests.component.test_serving import ROWS, Town
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

FIRST_NEW_DAY = 40
"""The packages' models have learned January."""


@dataclass
class Recorded(Town):
    """A town whose rows have labels: size + 10 + 2, and some noise."""

    def apply(self, **rollout: Any) -> None:
        super().apply(**{"shadow_from": "replay"} | rollout)

    def record(
        self, days: range, kind: RowKind = "observations", *, has_labels: bool = True
    ) -> None:
        """Publish validated rows of some days, or labels of such rows."""
        for number in days:
            chance = np.random.default_rng(number)
            size, noise = chance.normal(size=(2, ROWS))
            start = packages.START + timedelta(days=number)
            columns: dict[str, Any] = {
                "id": [f"{number}-{row}" for row in range(ROWS)],
                "event_time": pa.array(
                    [start + timedelta(hours=row) for row in range(ROWS)],
                    pa.timestamp("us", "UTC"),
                ),
                "source": ["upstream"] * ROWS,
            }
            if kind == "observations":
                columns |= {"size": size, "colour": ["red"] * ROWS}
            if has_labels:
                columns["cnt"] = size + 12 + noise / 10
            event = BatchValidated(
                pipeline=self.name, shard=kind, kind=kind, row_count=ROWS,
                span=Span(start=start, end=start + timedelta(hours=23)),
                watermark=start + timedelta(hours=23),
            )  # fmt: skip
            rows = pa.RecordBatch.from_pydict(columns)
            stem = f"{kind}-{number}"
            self.publish(event.with_rows(rows), stem, self.deliveries)

    def replayed(self) -> ShadowReplayed:
        """Wait for the replay and return it."""
        self.scorer.wait_until(lambda: self.of(ShadowReplayed), "nothing was replayed")
        return self.of(ShadowReplayed)[0]

    def replayed_rows(self) -> float:
        """Rows that the scorer has put before the candidate so far."""
        text = plain.get(f"{self.scorer.url}/metrics", timeout=100).text
        labels = (
            f'door="replay",outcome="answered",pipeline="{self.name}",role="candidate"'
        )
        line = f"^driftloop_scorer_rows_total{{{labels}}} (.*)$"
        found = re.search(line, text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def place(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Events, Factory, ServiceProcess, ServiceProcess]]:
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        address = node.bootstrap
        with (
            open_events(address, home) as events,
            ServiceProcess("deployer", address, home) as deployer,
            ServiceProcess("scorer", address, home) as scorer,
        ):
            yield events, Factory(home), deployer, scorer


@pytest.fixture
def town(
    place: tuple[Events, Factory, ServiceProcess, ServiceProcess],
    unique_name: Callable[[str], str],
) -> Recorded:
    return Recorded(unique_name("town"), *place)


def test_a_better_version_passes_by_recorded_rows(town: Recorded) -> None:
    """Labels with the rows and apart; each batch is on the log twice."""
    town.deliveries = 2
    town.first_version()
    town.record(range(10, 12))
    town.record(range(FIRST_NEW_DAY, FIRST_NEW_DAY + 2))
    later = range(FIRST_NEW_DAY + 2, FIRST_NEW_DAY + 4)
    town.record(later, "labels")
    town.record(later, has_labels=False)
    town.approve(2, town.package(2.0))
    began = time.monotonic()
    town.wait_for(1, 2, 0.1)
    print(f"passed after {time.monotonic() - began:.1f} s")  # noqa: T201 - a measure
    town.wait_for_verdict(2, "shadow", "passed")
    assert town.steps(2)[:2] == [("shadow", "started"), ("shadow", "passed")]
    found = town.replayed()
    assert (found.learned_count, found.row_count) == (2 * ROWS, 4 * ROWS)
    assert (found.labelled_count, found.is_enough) == (4 * ROWS, True)
    champion, candidate = (m.value for m in found.measurements)
    assert champion == pytest.approx(1.0, abs=0.1)
    assert candidate < 0.2
    assert found.comparison is not None
    assert found.comparison.mean_difference < -0.8
    assert found.different_count == 4 * ROWS
    assert found.meta.chain.id == f"chain-{town.name}-approved-2"


def test_a_worse_version_is_taken_back_by_recorded_rows(town: Recorded) -> None:
    town.first_version()
    town.record(range(FIRST_NEW_DAY, FIRST_NEW_DAY + 3))
    town.approve(2, town.package(9.0))
    wait_until(lambda: town.of(ModelRolledBack), "it was not taken back")
    town.wait_for_verdict(2, "shadow", "failed")
    assert town.steps(2) == [("shadow", "started"), ("shadow", "failed")]
    assert f"over {3 * ROWS} labelled rows" in town.of(ModelRolledBack)[0].reason
    town.wait_for(1, None, 0.0)


def test_live_rows_go_on_where_recorded_labels_are_too_few(town: Recorded) -> None:
    town.first_version()
    town.record(range(FIRST_NEW_DAY, FIRST_NEW_DAY + 1))
    town.record(range(FIRST_NEW_DAY + 1, FIRST_NEW_DAY + 3), has_labels=False)
    town.approve(2, town.package(2.0))
    found = town.replayed()
    assert (found.labelled_count, found.wanted_count) == (ROWS, 2 * ROWS)
    assert not found.is_enough
    assert found.row_count == 3 * ROWS
    town.wait_for(1, 2, 0.0)
    town.measure(2, 1, 0.9)
    town.wait_for(1, 2, 0.1)


def test_a_live_shadow_replays_nothing(town: Recorded) -> None:
    """Negative control: the same rows, and a pipeline that does not ask for it."""
    town.first_version()
    town.apply(shadow_from="live")
    town.record(range(FIRST_NEW_DAY, FIRST_NEW_DAY + 3))
    town.approve(2, town.package(9.0))
    town.wait_for(1, 2, 0.0)
    assert town.of(ServingDesired)[-1].replay is None
    town.measure(2, 1, 0.9)
    town.measure(2, 1, 0.9)
    town.wait_for(1, 2, 0.1)
    assert town.of(ShadowReplayed) == []


def test_a_scorer_killed_in_a_replay_does_it_again(town: Recorded) -> None:
    days = range(FIRST_NEW_DAY, FIRST_NEW_DAY + 300)
    town.first_version()
    town.record(days)
    town.approve(2, town.package(2.0))
    wait_until(lambda: town.replayed_rows() > 0, "no replay has begun")
    town.scorer.kill()
    assert town.of(ShadowReplayed) == []
    town.scorer.start()
    town.wait_for(1, 2, 0.1)
    (found,) = town.once(ShadowReplayed)
    assert found.row_count == found.labelled_count == len(days) * ROWS
    town.wait_for_verdict(2, "shadow", "passed")
    assert town.steps(2).count(("shadow", "passed")) == 1


def test_replicas_count_once(town: Recorded, home: Path) -> None:
    """Each has a database of its own and does the replay; their events are one."""
    town.first_version()
    town.record(range(FIRST_NEW_DAY, FIRST_NEW_DAY + 1))
    with ServiceProcess("scorer", town.scorer.broker, home, replica="1"):
        town.approve(2, town.package(2.0))
        wait_until(lambda: len(town.of(ShadowReplayed)) == 2, "not both have replayed")
    first, second = town.of(ShadowReplayed)
    assert {first.replica, second.replica} == {"0", "1"}
    assert first.meta.id == second.meta.id
    assert first.comparison == second.comparison
    town.measure(2, 1, 0.9)
    town.wait_for(1, 2, 0.1)
    town.wait_for_verdict(2, "shadow", "passed")
    passed = next(
        e for e in town.of(RolloutAdvanced) if (e.version, e.verdict) == (2, "passed")
    )
    # counted twice, the replay alone would have been enough: a ratio of about 0.1
    assert passed.detail.startswith("loss ratio 0.8")
