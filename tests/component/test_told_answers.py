"""What a scorer tells beside its answers: why, and which columns have drifted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pyarrow as pa
import pytest
from driftloop.contracts.events import (
    DriftDetected,
    DriftEnded,
    Evidence,
    PipelineApplied,
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

SINCE = datetime(2012, 3, 1, tzinfo=UTC)
REFERENCE = pa.RecordBatch.from_pydict(
    {"size": [0.0, 2.0, 4.0, 6.0], "colour": ["red", "blue", "blue", "red"]}
)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Events, Factory, ServiceProcess]]:
    home = tmp_path_factory.mktemp("home")
    with (
        KafkaNode(tmp_path_factory.mktemp("kafka")) as node,
        open_events(node.bootstrap, home) as events,
        ServiceProcess(
            "scorer", node.bootstrap, home, scorer_explain_most_ms="60000"
        ) as scorer,
    ):
        yield events, Factory(home), scorer


@pytest.fixture
def name(
    place: tuple[Events, Factory, ServiceProcess], unique_name: Callable[[str], str]
) -> str:
    """A pipeline of its own, whose first version is served."""
    events, *_ = place
    name = unique_name("told")
    spec = PipelineSpec.model_validate(
        {"name": name, "task": "regression", "data": {"target": "cnt"}}
    )
    applied = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
    events.publish(applied, f"{name}-applied")
    serve(place, name, 1)
    return name


def serve(
    place: tuple[Events, Factory, ServiceProcess], name: str, version: int
) -> None:
    events, factory, scorer = place
    package = factory.package(version, pipeline=name, reference=REFERENCE)
    wish = ServingDesired(
        pipeline=name,
        generation=version,
        champion=ServedModel(version=version, package=package),
    )
    events.publish(wish, f"{name}-desired-{version}")

    def is_served() -> bool:
        reply = ask(scorer, name)
        said = reply.headers.get("x-driftloop-model-version")
        return reply.status_code == 200 and said == str(version)

    scorer.wait_until(is_served, "it is not served")


def ask(scorer: ServiceProcess, name: str, **parameters: Any) -> httpx.Response:
    return plain.post(
        f"{scorer.url}/pipelines/{name}/invocations",
        json={"inputs": {"size": [1.0], "colour": ["red"]}, "params": parameters},
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=120,
    )


def test_an_answer_of_the_process_is_explained(
    place: tuple[Events, Factory, ServiceProcess], name: str
) -> None:
    """By the rows of the package that it loaded; and it counts what came of it."""
    *_, scorer = place
    (row,) = ask(scorer, name, explain_ms=60_000).json()["explanations"]["rows"]
    assert row["answer"] == pytest.approx(12)
    assert row["base"] == pytest.approx(9)
    assert row["contributions"] == pytest.approx({"size": -2, "colour": 5})
    refused = ask(scorer, name, explain_ms=60_001)
    assert "from 1 to 60000" in refused.json()["message"]
    metrics = plain.get(f"{scorer.url}/metrics", timeout=100).text
    count = f'explanations_total{{outcome="explained",pipeline="{name}"}} 1.0'
    assert f"driftloop_scorer_{count}" in metrics


def test_drifted_columns_are_told_as_long_as_the_verdict_holds(
    place: tuple[Events, Factory, ServiceProcess], name: str
) -> None:
    """Also by a process that begins after it."""
    events, _, scorer = place

    def drifted() -> str | None:
        return ask(scorer, name).headers.get("x-driftloop-drifted")

    assert drifted() is None
    for cause, column in (("population_shift", "size"), ("sensor_fault", "colour")):
        verdict = DriftDetected.model_validate(
            {
                "pipeline": name,
                "model_version": 1,
                "cause": cause,
                "retrain_advised": cause == "population_shift",
                "since": SINCE,
                "detected_at": SINCE,
                "features": [column],
                "evidence": [
                    Evidence(signal="error", detector="KS", statistic=1, row_count=9)
                ],
                "explanation": "it is so",
            }
        )
        events.publish(verdict, f"{name}-{cause}")
    scorer.wait_until(lambda: drifted() == "colour, size", "drift is not told")
    assert scorer.stop() == 0
    scorer.start()
    scorer.wait_until(lambda: ask(scorer, name).status_code == 200, "it is not back")
    assert drifted() == "colour, size"
    over = DriftEnded(
        pipeline=name,
        cause="sensor_fault",
        features=["colour"],
        since=SINCE,
        until=SINCE,
    )
    events.publish(over, f"{name}-over")
    scorer.wait_until(lambda: drifted() == "size", "the fault's end is not told")
    serve(place, name, 2)
    wait_until(lambda: drifted() is None, "another version has another verdict")
