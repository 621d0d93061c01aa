"""Every answered request is on Kafka, and a broker that is away costs no answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from driftloop.contracts.events import (
    PipelineApplied,
    RequestsAnswered,
    ServedModel,
    ServingDesired,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from support import plain

from tests.component.support import (
    TOKEN,
    Events,
    ServiceProcess,
    open_events,
    wait_until,
)
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

MEMORY_BYTES = 400_000
"""Room for about 350 requests of these two features."""


@dataclass
class Door:
    """A scorer's door for one pipeline."""

    name: str
    node: KafkaNode
    events: Events
    factory: Factory
    scorer: ServiceProcess

    def serve(self, **serving: Any) -> None:
        spec = PipelineSpec.model_validate(
            {
                "name": self.name,
                "task": "regression",
                "data": {"target": "cnt"},
                "serving": serving,
            }
        )
        applied = PipelineApplied(pipeline=self.name, spec=spec, applied_by="ada")
        self.events.publish(applied, f"{self.name}-applied")
        model = ServedModel(version=1, package=self.factory.package(pipeline=self.name))
        wish = ServingDesired(pipeline=self.name, generation=1, champion=model)
        self.events.publish(wish, f"{self.name}-desired")
        wait_until(lambda: self._ask("first") == 200, "nothing is served")

    def _ask(self, request_id: str) -> int:
        reply = plain.post(
            f"{self.scorer.url}/pipelines/{self.name}/invocations",
            json={"inputs": {"size": [1.0], "colour": ["red"]}},
            headers={"Authorization": f"Bearer {TOKEN}", "X-Request-Id": request_id},
            timeout=100,
        )
        return reply.status_code

    def ask(self, request_ids: Sequence[str]) -> Counter[int]:
        """Ask eight at a time; return how often each status came."""
        with ThreadPoolExecutor(8) as pool:
            return Counter(pool.map(self._ask, request_ids))

    def logged(self) -> list[RequestsAnswered]:
        """Events of this pipeline, each once: after a fault one may be there again."""
        found = self.events.of(RequestsAnswered)
        return list({e.meta.id: e for e in found if e.pipeline == self.name}.values())

    def logged_ids(self) -> Counter[str]:
        """How often each request is on the topic, but for those that waited."""
        ids = [i for e in self.logged() for i in e.rows["request_id"].to_pylist()]
        return Counter(i for i in ids if i != "first")

    def left_out(self) -> int:
        text = plain.get(f"{self.scorer.url}/metrics", timeout=100).text
        wanted = f'{{pipeline="{self.name}",reason="no_room"}} (.*)'
        name = "driftloop_scorer_left_out_rows_total"
        found = re.search(f"^{name}{wanted}$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[KafkaNode, Events, Factory, ServiceProcess]]:
    home = tmp_path_factory.mktemp("home")
    with (
        KafkaNode(tmp_path_factory.mktemp("kafka")) as node,
        open_events(node.bootstrap, home) as events,
        ServiceProcess(
            "scorer", node.bootstrap, home, scorer_log_memory_bytes=str(MEMORY_BYTES)
        ) as scorer,
    ):
        yield node, events, Factory(home), scorer


@pytest.fixture
def door(
    place: tuple[KafkaNode, Events, Factory, ServiceProcess],
    unique_name: Callable[[str], str],
) -> Door:
    return Door(unique_name("door"), *place)


def test_each_request_is_on_the_topic_once(door: Door) -> None:
    door.serve()
    asked = [f"r{number}" for number in range(200)]
    assert door.ask(asked) == {200: 200}
    wait_until(lambda: len(door.logged_ids()) == len(asked), "some are missing")
    assert door.logged_ids() == Counter(asked)
    assert door.left_out() == 0
    row = door.logged()[-1].rows.slice(0, 1).to_pylist()[0]
    assert (row["size"], row["colour"], row["prediction"]) == (1.0, "red", 11.0)


def test_nothing_is_on_the_topic_where_the_pipeline_says_so(
    door: Door, unique_name: Callable[[str], str]
) -> None:
    """Negative control: rows of a later request to another pipeline are there."""
    door.serve(log="none")
    assert door.ask(["r0", "r1"]) == {200: 2}
    other = Door(unique_name("door"), door.node, door.events, door.factory, door.scorer)
    other.serve()
    other.ask(["r2"])
    wait_until(lambda: other.logged_ids() == {"r2": 1}, "it is missing")
    assert door.logged() == []


def test_a_broker_that_is_away_costs_no_answer(door: Door) -> None:
    door.serve()
    wait_until(door.logged, "the first is missing")
    first = sum(event.asked_count for event in door.logged())
    door.node.kill()
    asked = [f"r{number}" for number in range(600)]
    assert door.ask(asked) == {200: len(asked)}
    left_out = door.left_out()
    assert 0 < left_out < len(asked)
    door.node.start()

    def is_all_told() -> bool:
        told = sum(event.asked_count for event in door.logged())
        return told - first == len(asked)

    door.scorer.wait_until(lambda: door._ask("first") == 200, "it does not answer")
    first += 1
    door.scorer.wait_until(is_all_told, "not all are told")
    logged = door.logged_ids()
    assert set(logged) < set(asked)
    assert set(logged.values()) == {1}
    assert len(logged) == len(asked) - left_out


def test_a_clean_stop_writes_what_is_left(door: Door) -> None:
    door.serve()
    door.ask(["r0", "r1"])
    assert door.scorer.stop() == 0
    wait_until(lambda: door.logged_ids() == {"r0": 1, "r1": 1}, "some are missing")
    door.scorer.start()
