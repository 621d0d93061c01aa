"""MLflow's experiments and runs on PostgreSQL, where replicas write side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import TrackingChanged
from driftloop.registry.egress import Egress
from driftloop.registry.mlflow import experiments, logged, runs
from driftloop.registry.mlflow.apply import take
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.registered import models, versions
from driftloop.registry.mlflow.tables import TABLES
from driftloop.registry.mlflow.webhooks.calls import Webhooks
from driftloop.registry.mlflow.webhooks.delivery import Deliverer
from driftloop.registry.mlflow.webhooks.sealing import Sealer
from driftloop.runtime.database import open_database
from driftloop.runtime.drivers.memory import MemoryBroker
from sqlalchemy import text as sql

from tests.component.mlflow_searches import (
    EXPERIMENT_SEARCHES,
    MODEL_SEARCHES,
    RUN_SEARCHES,
    VERSION_SEARCHES,
)
from tests.component.webhook_receiver import Receiver
from tests.servers import PostgresqlServer
from tests.unit.registry.test_mlflow_registered import a_registered_life, as_pipeline
from tests.unit.registry.test_mlflow_tracking import Store, a_life, hash_of
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow]


@pytest.fixture
def pair(tmp_path: Path, postgresql: PostgresqlServer) -> Iterator[tuple[Store, Store]]:
    """Two replicas on one database and one broker."""
    broker, url = MemoryBroker({TrackingChanged.topic(): 1}), postgresql.new_database()
    with ExitStack() as stack:
        stores = [Store(tmp_path, broker, url, replica) for replica in ("0", "1")]
        for store in stores:
            store.start()
            stack.callback(store.stop)
        yield stores[0], stores[1]


def test_replicas_have_one_history(pair: tuple[Store, Store], tmp_path: Path) -> None:
    """No revision twice; the log gives SQLite the very state that PostgreSQL has."""
    run_id = a_life(pair[0])

    def write(number: int) -> None:
        for step in range(20):
            point = {"key": f"m{number}", "value": step, "timestamp": 1, "step": step}
            pair[number].call(logged.log_metric, run_id=run_id, **point)

    threads = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    events = pair[0].events()  # of both, in the order in which they were published
    revisions = sorted(event.revision for event in events)
    assert revisions == list(range(1, len(events) + 1))
    rebuilt = open_database(f"sqlite:///{tmp_path}/rebuilt.db", TABLES)
    with rebuilt.begin() as connection:
        take(connection, events)
    assert hash_of(rebuilt) == pair[1].hash()
    rebuilt.dispose()


def test_searches_find_what_they_find_on_sqlite(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    """Each filter and order of the story, the refused ones too."""
    lite = Store(tmp_path, MemoryBroker({TrackingChanged.topic(): 1}))
    lite.start()
    stores = (pair[0], lite)
    for store in stores:
        for name in ("two", "Three", "four_4"):
            tag = {"key": "kind", "value": name[:2]}
            store.call(experiments.create, name=name, tags=[tag])
            time.sleep(0.002)  # of two in one millisecond, neither is the newer
        for number in range(4):
            run = store.call(
                runs.create,
                experiment_id="1",
                start_time=1000 + number,
                run_name=f"{'Rr'[number % 2]}un-{number}",
                tags=[{"key": "odd", "value": str(number % 2)}],
            )
            store.call(
                logged.log_batch,
                run_id=run["run"]["info"]["run_id"],
                metrics=[
                    {"key": "loss", "value": n, "timestamp": 1}
                    for n in ([number / 10] if number else ["NaN"])
                ],
                params=[{"key": "kind", "value": "AbC" if number else "abc"}],
            )
    for text, order in EXPERIMENT_SEARCHES:
        fields = {"filter": text, "order_by": order}
        found = [_names(store, experiments.search, fields) for store in stores]
        assert found[0] == found[1], (text, order)
    for text, order in RUN_SEARCHES:
        fields = {"filter": text, "order_by": order, "experiment_ids": ["1"]}
        found = [_names(store, runs.search, fields) for store in stores]
        assert found[0] == found[1], (text, order)
    lite.stop()


def test_models_are_found_as_on_sqlite(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    """Each filter and order of the story; pipelines are among what is found."""
    lite = Store(tmp_path, MemoryBroker({TrackingChanged.topic(): 1}))
    lite.start()
    calls = []
    for store in (pair[0], lite):
        a_registered_life(store)
        call = as_pipeline(store)
        calls.append(call)
        for number, name in enumerate(("ash", "Birch", "cedar_1")):
            tags = [{"key": "kind", "value": ("Hard", "soft")[number % 2]}]
            call(models.create, name=name, tags=tags)
            for _ in range(number):
                source = {"source": "models:/gold/1"}
                call(versions.create, name=name, **source, tags=tags)
    for search, wanted in (
        (models.search, MODEL_SEARCHES),
        (versions.search, VERSION_SEARCHES),
    ):
        for text, order in wanted:
            found = [_rows(call, search, text, order) for call in calls]
            assert found[0] == found[1], (text, order)
    lite.stop()


def _rows(call: Any, search: Any, text: str | None, order: list[str] | None) -> Any:
    """Return names and versions; by time both stores have their own order."""
    try:
        answer = call(search, filter=text, order_by=order)
    except Refusal as refusal:
        return refusal.message
    rows = answer.get("registered_models") or answer.get("model_versions", [])
    found = [(row["name"], row.get("version")) for row in rows]
    is_by_time = not order or "timestamp" in order[0]
    return sorted(found) if is_by_time else found


def _names(store: Store, search: Any, fields: dict[str, Any]) -> list[str]:
    try:
        answer = store.call(search, **fields)
    except Refusal as refusal:
        return [refusal.message]
    if "runs" in answer:
        return [run["info"]["run_name"] for run in answer["runs"]]
    return [experiment["name"] for experiment in answer.get("experiments", [])]


def test_one_replica_delivers(pair: tuple[Store, Store]) -> None:
    """Both look for what webhooks have to tell; each model is told once."""
    stopping = threading.Event()
    egress = Egress(["127.0.0.1"], ["http"], with_private=True)
    webhooks = Webhooks(egress, Sealer("k" * 32))
    with Receiver() as receiver:
        events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
        fields = {"name": "w", "url": receiver.url, "events": events, "secret": "s"}
        made = pair[0].call(webhooks.create, **fields)["webhook"]
        threads = [
            threading.Thread(
                target=Deliverer(store.journal, webhooks, 60, lambda: True).run,
                args=(stopping,),
            )
            for store in pair
        ]
        for thread in threads:
            thread.start()
        names = [f"model-{number}" for number in range(8)]
        for number, name in enumerate(names):
            pair[number % 2].call(models.create, name=name)
        wait_until(lambda: len(receiver.names()) >= len(names), 120)
        wait_until(lambda: _waiting(pair[0]) == 0, 120)
        stopping.set()
        for thread in threads:
            thread.join(120)
        assert sorted(receiver.names()) == names
    pair[1].call(webhooks.delete, webhook_id=made["webhook_id"])


def _waiting(store: Store) -> int:
    with store.journal.reading() as connection:
        count = connection.execute(sql("SELECT count(*) FROM mlflow_webhook_notice"))
        return int(count.scalar_one())
