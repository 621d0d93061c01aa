"""A chain in a real trace store: one connected trace, from batch to rollout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import DriftDetected, ModelDeployed
from driftloop.contracts.topics import SERVICES
from driftloop.local.zipkin import SpanFiles, Zipkin

from tests.e2e.loop import Run

pytestmark = [pytest.mark.timeout(1200), pytest.mark.broker]


@pytest.fixture(scope="module")
def store(run: Run, home: Path) -> Iterator[Zipkin]:
    with Zipkin(home) as zipkin:
        for spans in SpanFiles(home).new():
            zipkin.take(spans)
        yield zipkin


def ask(store: Zipkin, path: str) -> Any:
    return httpx.get(f"{store.url}/api/v2/{path}").raise_for_status().json()


def trace_of(event: Any) -> str:
    return event.meta.chain.traceparent.split("-")[1]


def test_from_drift_to_rollout_is_one_connected_trace(run: Run, store: Zipkin) -> None:
    drifts = {entry.meta.chain.id for entry in run.board.of(DriftDetected)}
    rollouts = [
        entry.event
        for entry in run.board.of(ModelDeployed)
        if entry.meta.chain.id in drifts
    ]
    assert rollouts
    spans = ask(store, f"trace/{trace_of(rollouts[-1])}")
    assert {s["localEndpoint"]["serviceName"] for s in spans} == {*SERVICES} - {
        "console"  # only reads
    }
    ids = {span["id"] for span in spans}
    roots = [span for span in spans if span.get("parentId") not in ids]
    assert [root["name"] for root in roots] == ["create batch-ingested"]
    names = {span["name"] for span in spans}
    assert {"process drift-detected", "process model-approved"} <= names
    chains = {span["tags"].get("messaging.message.conversation_id") for span in spans}
    assert rollouts[-1].meta.chain.id in chains


def test_the_logs_of_its_services_carry_the_trace(run: Run, home: Path) -> None:
    deployed = run.board.of(ModelDeployed)[-1]
    found = [
        json.loads(line)
        for line in (home / "logs/trainer.log").read_text().splitlines()
        if line.startswith("{")
    ]
    traces = {line.get("trace_id") for line in found}
    assert trace_of(deployed.event) in traces
