"""The history of a real installation, in the form in which the checks read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from deltalake import DeltaTable
from driftloop.cli.context import Installation
from driftloop.contracts.base import Event
from driftloop.contracts.events import DatasetVersioned
from driftloop.contracts.topics import BY_NAME, consumed_by, dead_letter_topic
from driftloop.local import stack
from driftloop.models.signing import TrustedKeys
from driftloop.registry import tables
from driftloop.registry.audit import all_entries
from driftloop.runtime.datasets import table_uri
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message
from driftloop.trainer.tables import pipeline_row
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import Session, create_engine

from tests.chaos.faults import HANDLING, Chaos
from tests.simulation.history import History

REST_TIMEOUT_S = 240.0
QUIET_S = 8.0
READ_TIMEOUT_S = 120.0


def records_of(installation: Installation, topics: Sequence[str]) -> list[Message]:
    """Return everything that is in some topics, in the order of their partitions."""
    found: list[Message] = []
    follower = LogFollower(installation.bootstrap, topics, found.append)
    assert follower.read_to_end(READ_TIMEOUT_S)
    return sorted(found, key=lambda m: (m.topic, m.partition, m.offset))


def wait_for_rest(home: Path) -> bool:
    """Wait until nobody has anything to do for a while; False: it does not come."""
    deadline = time.monotonic() + REST_TIMEOUT_S
    since = time.monotonic()
    while time.monotonic() < deadline:
        if any(_lags(home).values()) or any(_unsent(home).values()):
            since = time.monotonic()
        if time.monotonic() - since > QUIET_S:
            return True
        time.sleep(0.5)
    return False


def _url(home: Path, service: str) -> str:
    port = stack.status(home)["processes"][service]["port"]
    return f"http://127.0.0.1:{port}"


def _lags(home: Path) -> dict[str, int]:
    """Messages that each service has to read; one that does not answer has some."""
    found = {}
    for service in HANDLING:
        try:
            lag = httpx.get(f"{_url(home, service)}/readyz", timeout=10).json()["lag"]
        except httpx.TransportError:
            lag = None
        found[service] = 1 if lag is None else lag
    return found


def _metric(
    home: Path, service: str, name: str
) -> list[tuple[Mapping[str, str], float]]:
    text = httpx.get(f"{_url(home, service)}/metrics", timeout=10).text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def _unsent(home: Path) -> dict[str, int]:
    try:
        return {
            service: int(
                sum(v for _, v in _metric(home, service, "driftloop_outbox_unsent"))
            )
            for service in HANDLING
        }
    except httpx.TransportError:
        return {"one that does not answer": 1}


def history_of(
    chaos: Chaos, sent: Mapping[str, frozenset[str]], *, is_quiet: bool
) -> History:
    """Return what happened to an installation that has come to rest."""
    installation, home = chaos.installation, chaos.home
    topics = [*BY_NAME, *map(dead_letter_topic, HANDLING)]
    records: dict[str, tuple[Message, ...]] = dict.fromkeys(topics, ())
    for message in records_of(installation, topics):
        records[message.topic] = (*records[message.topic], message)
    events = {topic: _readable(installation, records[topic]) for topic in BY_NAME}
    with _database(home, "registry") as session:
        ledger = tables.ledger_of(session, chaos.pipeline)
        trail = tuple(all_entries(session))
    with _database(home, "trainer") as session:
        faults = pipeline_row(session, chaos.pipeline).told_faults()
    serving = _metric(home, "scorer", "driftloop_model_serving_info")
    return History(
        scenario=None,  # type: ignore[arg-type]  # no check reads it
        records=records,
        events=events,
        poison=frozenset(chaos.poison),
        services={s: frozenset(t.name for t in consumed_by(s)) for s in HANDLING},
        wiped=frozenset(chaos.wiped),
        has_waited_out=False,
        lag=_lags(home),
        unsent=_unsent(home),
        serves={
            f"{labels['role']} of the scorer": int(labels["version"])
            for labels, value in serving
            if labels["role"] == "champion" and value
        },
        effects={},
        sent=sent,
        stored=_stored(installation, chaos.pipeline, events),
        ledger=ledger,
        trail=trail,
        faults=faults,
        store=installation.store,  # type: ignore[arg-type]  # reads as the simulated one
        is_quiet=is_quiet,
        bugs=_bugs(home),
        told=(),
        trusted=TrustedKeys.from_folder(home / "keys" / "trusted"),
    )


def _database(home: Path, service: str) -> Session:
    return Session(create_engine(f"sqlite:///{home}/databases/{service}-0.db"))


def _readable(
    installation: Installation, messages: Sequence[Message]
) -> tuple[Event, ...]:
    found = []
    for message in messages:
        try:
            found.append(decode(message, installation.store))
        except (Reject, Retry):
            continue
    return tuple(found)


def _stored(
    installation: Installation, pipeline: str, events: Mapping[str, Sequence[Event]]
) -> dict[str, tuple[str, ...]]:
    """Return the ids in the dataset's tables, by kind."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in ("observations", "labels"):
        if events[DatasetVersioned.topic()]:
            table = DeltaTable(table_uri(installation.settings, pipeline, kind))  # type: ignore[arg-type]
            ids = table.to_pyarrow_table(columns=["id"])["id"].to_pylist()
            found[kind] = tuple(ids)
    return found


def _bugs(home: Path) -> tuple[str, ...]:
    """Return what the services' logs call a bug."""
    return tuple(
        f"{file.stem}: {line[:300]}"
        for file in sorted((home / "logs").glob("*.log"))
        for line in file.read_text(errors="replace").splitlines()
        if '"handler failed"' in line or '"background work failed"' in line
    )
