"""The registry beside MLflow's own server: the same calls over the same interface.

Both with SQLite and one process; the server is installed into an environment that is
thrown away. Their turns alternate, so that a machine whose pace changes is the same for
both. Kafka's broker works beside ours, since each write is an event: its processor time
is not part of ``CPU a call``, and told in a line of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import TrackingChanged
from driftloop.contracts.tracking import (
    Change,
    ExperimentCreated,
    RunCreated,
    RunLogged,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.envelope import encode

from tests.bench.figures import Figure
from tests.bench.http_load import Load, cpu_seconds, load, tree_of, wire
from tests.component.mlflow_client import ANSWERS
from tests.component.mlflow_server import mlflow_server
from tests.component.processes import TOKEN, ServiceProcess

PART = "registry"
VERSION = ANSWERS.stem.removeprefix("mlflow-")
PEER = f"mlflow server {VERSION}, one worker"
API = "/api/2.0/mlflow"
SECONDS = 4.0
CLIENTS = (1, 16)
MODELS, RUNS = 200, 200
BATCH = 1000
POINTS, PEER_POINTS = 1_000_000, 50_000
HISTORY_PAGE = 25_000
REBUILT_EVENTS = 100_000
PUBLISHED_AT_ONCE = 5_000
WAIT_S = 600.0


@dataclass
class Server:
    """One of the two, with what is in it.

    Attributes
    ----------
    run : id of the run that is written to.
    """

    url: str
    pid: int
    token: str | None
    run: str = ""
    kept: set[str] = field(default_factory=set)
    sent: int = 0

    def wire(self, method: str, call: str, **fields: Any) -> bytes:
        """Return a request; a GET has its fields in the query."""
        address = f"{self.url}{API}/{call}"
        if method == "GET":
            return wire(method, f"{address}?{urlencode(fields)}", self.token)
        return wire(method, address, self.token, json.dumps(fields).encode())

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=WAIT_S)

    def fill(self) -> None:
        """Make what the calls are about; note which of them are kept at all."""
        with self.client() as client:
            self.run = _run_of(client)
            for _ in range(RUNS):
                _run_of(client)
            if self._keeps_models(client):
                self.kept.add("models")

    def _keeps_models(self, client: httpx.Client) -> bool:
        made = client.post(f"{API}/registered-models/create", json={"name": "m-0"})
        if made.status_code != 200:
            return False
        for number in range(1, MODELS):
            body = {"name": f"m-{number}"}
            client.post(f"{API}/registered-models/create", json=body).raise_for_status()
        files = f"/api/2.0/mlflow-artifacts/artifacts/0/{self.run}/artifacts"
        file = b"flavors: {}\n"
        client.put(f"{files}/model/MLmodel", content=file).raise_for_status()
        version = client.post(f"{API}/model-versions/create", json=self.version())
        version.raise_for_status()
        alias = {"name": "m-0", "alias": "best", "version": "1"}
        client.post(f"{API}/registered-models/alias", json=alias).raise_for_status()
        return True

    def version(self) -> dict[str, Any]:
        return {
            "name": "m-0",
            "source": f"mlflow-artifacts:/0/{self.run}/artifacts/model",
            "run_id": self.run,
        }


def _run_of(client: httpx.Client) -> str:
    answer = client.post(f"{API}/runs/create", json={"experiment_id": "0"})
    answer.raise_for_status()
    name: str = answer.json()["run"]["info"]["run_id"]
    return name


@dataclass(frozen=True)
class Call:
    """One kind of request; ``needs`` names what a server has to keep for it."""

    name: str
    request: Callable[[Server, int], bytes]
    needs: str = ""


CALLS = (
    Call("create a version", lambda s, _: s.wire(
        "POST", "model-versions/create", **s.version()), "models"),
    Call("get by alias", lambda s, _: s.wire(
        "GET", "registered-models/alias", name="m-0", alias="best"), "models"),
    Call(f"search {MODELS} models by name", lambda s, _: s.wire(
        "GET", "registered-models/search", filter="name = 'm-7'"), "models"),
    Call("get a run", lambda s, _: s.wire("GET", "runs/get", run_id=s.run)),
    Call(f"search {RUNS} runs, the last 20", lambda s, _: s.wire(
        "POST", "runs/search", experiment_ids=["0"], max_results=20)),
    Call("log a metric", lambda s, n: s.wire(
        "POST", "runs/log-metric", run_id=s.run, key="loss", value=1 / n, timestamp=n,
        step=n)),
    Call(f"log a batch of {BATCH:,}", lambda s, n: s.wire(
        "POST", "runs/log-batch", run_id=s.run, metrics=points(n))),
)  # fmt: skip


def points(number: int) -> list[dict[str, Any]]:
    """Return a batch of metrics that no other batch has."""
    return [
        {
            "key": f"loss/{step % 10}",
            "value": step / 7,
            "timestamp": number,
            "step": number * BATCH + step,
        }
        for step in range(BATCH)
    ]


def run() -> Iterator[Figure]:
    """Measure the part."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="driftloop-"))
        home = Path(name)
        node = stack.enter_context(KafkaNode(home / "kafka", fast_start=False))
        create_topics(node.bootstrap)
        process = ServiceProcess("registry", home, node.bootstrap)
        stack.enter_context(process)
        peer = stack.enter_context(mlflow_server(VERSION))
        ours = Server(process.url, process.pid, TOKEN)
        theirs = Server(peer.url, peer.pid, None)
        for server in (ours, theirs):
            server.fill()
        for call in CALLS:
            if call.needs and call.needs not in ours.kept:
                continue  # a route that is not kept has no figures
            for clients in CLIENTS:
                yield from _beside(call, clients, ours, theirs, node.pid)
        yield from _many_points(ours, theirs)
    yield from _rebuilt()


def _beside(
    call: Call, clients: int, ours: Server, theirs: Server, broker: int
) -> Iterator[Figure]:
    before = cpu_seconds([broker])
    mine = _load(call, clients, ours)
    broker_ms = (cpu_seconds([broker]) - before) * 1000 / len(mine.latencies_ms)
    other = _load(call, clients, theirs)
    name = f"{call.name}, {clients} client{'s' if clients > 1 else ''}"
    yield Figure(PART, name, "calls/s", mine.per_s, PEER, other.per_s)
    yield Figure(PART, f"{name}, CPU", "ms/call", mine.cpu_ms, PEER, other.cpu_ms)
    for share in (50, 99):
        values = [found.percentile_ms(share) for found in (mine, other)]
        yield Figure(PART, f"{name}, p{share}", "ms", values[0], PEER, values[1])
    if call.name.startswith(("log", "create")):
        yield Figure(PART, f"{name}, the broker's CPU", "ms/call", broker_ms)


def _load(call: Call, clients: int, server: Server) -> Load:
    found = load(
        server.url,
        lambda number: call.request(server, number),
        clients,
        SECONDS,
        lambda: tree_of(server.pid),
        server.sent,
    )
    server.sent += len(found.latencies_ms) + clients
    return found


def _many_points(ours: Server, theirs: Server) -> Iterator[Figure]:
    """Yield points a second, written in batches and read back in pages."""
    rates = {}
    for server, count in ((ours, POINTS), (theirs, PEER_POINTS)):
        with server.client() as client:
            server.run = _run_of(client)
            rates[server.url] = (_written(client, server, count), _read(client, server))
    (written, (read, found)), (peer_written, (peer_read, _)) = (
        rates[ours.url],
        rates[theirs.url],
    )
    if found != POINTS:
        raise AssertionError(f"{found} of {POINTS} points came back")
    peer = f"{PEER}, {PEER_POINTS:,} points"
    name = f"{POINTS:,} metric points"
    yield Figure(PART, f"{name}, logged", "points/s", written, peer, peer_written)
    yield Figure(PART, f"{name}, read back", "points/s", read, peer, peer_read)


def _written(client: httpx.Client, server: Server, count: int) -> float:
    started = time.perf_counter()
    for number in range(count // BATCH):
        body = {"run_id": server.run, "metrics": points(server.sent + number)}
        client.post(f"{API}/runs/log-batch", json=body).raise_for_status()
    return count / (time.perf_counter() - started)


def _read(client: httpx.Client, server: Server) -> tuple[float, int]:
    started, found = time.perf_counter(), 0
    for key in range(10):
        token = ""
        while True:
            fields = {"run_id": server.run, "metric_key": f"loss/{key}"}
            fields |= {"max_results": str(HISTORY_PAGE)}
            fields |= {"page_token": token} if token else {}
            answer = client.get(f"{API}/metrics/get-history", params=fields)
            page = answer.raise_for_status().json()
            found += len(page["metrics"])
            token = page.get("next_page_token", "")
            if not token:
                break
    return found / (time.perf_counter() - started), found


def _rebuilt() -> Iterator[Figure]:
    """Yield how long a database takes that is built from the log alone."""
    with tempfile.TemporaryDirectory(prefix="driftloop-") as name:
        home = Path(name)
        with KafkaNode(home / "kafka", fast_start=False) as node:
            create_topics(node.bootstrap)
            _publish(node.bootstrap, home)
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "driftloop.registry", "rebuild"],
                env={
                    **os.environ,
                    "DRIFTLOOP_BROKER": node.bootstrap,
                    "DRIFTLOOP_HOME": str(home),
                },
                capture_output=True,
                timeout=WAIT_S,
                check=True,
            )
            seconds = time.perf_counter() - started
    report = json.loads(done.stdout.splitlines()[-1])["report"]
    if report["event_count"] != REBUILT_EVENTS:
        raise AssertionError(f"{report['event_count']} of {REBUILT_EVENTS} events")
    yield Figure(PART, f"rebuilt from {REBUILT_EVENTS:,} events", "s", seconds)


def _publish(bootstrap: str, home: Path) -> None:
    store, now = FolderStore(home / "artifacts"), datetime.now(UTC)
    at_ms = int(now.timestamp() * 1000)
    publisher = ConfluentPublisher(bootstrap, client_id="bench")
    for start in range(0, REBUILT_EVENTS, PUBLISHED_AT_ONCE):
        records = []
        for number in range(start + 1, start + PUBLISHED_AT_ONCE + 1):
            event = TrackingChanged(
                revision=number, at_ms=at_ms, by="bench", change=_change(number)
            )
            meta = Meta(f"e-{number}", now, "/bench", Chain(f"e-{number}"))
            records.append(encode(event, meta, store))
        publisher.publish(records)
    publisher.close()


def _change(number: int) -> Change:
    """Return an experiment, then runs, each with the metrics of its training."""
    if number == 1:
        return ExperimentCreated(experiment_id=0, name="Default", artifact_location="x")
    run = f"run-{(number - 2) // 100}"
    if (number - 2) % 100 == 0:
        return RunCreated(
            run_id=run, experiment_id=0, name=run, user="", start_time_ms=number,
            artifact_uri="x", tags={},
        )  # fmt: skip
    return RunLogged(run_id=run, metrics=[("loss", 1 / number, number, number)])
