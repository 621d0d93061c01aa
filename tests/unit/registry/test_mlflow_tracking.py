"""Experiments and runs: written with their event, built anew from the log."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from driftloop.contracts import tracking as t
from driftloop.contracts.events import TrackingChanged
from driftloop.contracts.tracking import FileStored
from driftloop.registry.mlflow import experiments, logged, logged_models, runs
from driftloop.registry.mlflow.apply import state_hash, take
from driftloop.registry.mlflow.call import Call, Json
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.files import deletion, files_of
from driftloop.registry.mlflow.journal import Decide, Journal
from driftloop.registry.mlflow.registered.shown import SHOWN_TABLES
from driftloop.registry.mlflow.tables import TABLES
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.drivers.memory import MemoryBroker, MemoryPublisher
from driftloop.runtime.envelope import decode
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from tests.unit.support import wait_until

TOPIC = TrackingChanged.topic()


class Store:
    """A registry's tracking store on a broker in memory."""

    def __init__(
        self, folder: Path, broker: MemoryBroker, url: str = "", replica: str = "0"
    ) -> None:
        self.broker = broker
        self.artifacts = FolderStore(folder / "artifacts")
        url = url or f"sqlite:///{folder}/registry.db"
        self.engine = open_database(url, [*TABLES, *SHOWN_TABLES])
        self.is_current = True
        self.journal = Journal(
            self.engine,
            MemoryPublisher(broker),
            self.artifacts,
            replica,
            lambda: self.is_current,
        )
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.journal.recover()
        self._thread = threading.Thread(target=self.journal.run, args=(self.stopping,))
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.journal._news.set()  # else it ends at its next look
        if self._thread:
            self._thread.join(120)
        self.journal.close()
        self.engine.dispose()

    def call(self, function: Any, **fields: Any) -> Json:
        answer: Json = function(Call(self.journal, fields, "ann"))
        return answer

    def events(self) -> list[TrackingChanged]:
        found = [decode(message, self.artifacts) for message in self.broker.log(TOPIC)]
        return [event for event in found if isinstance(event, TrackingChanged)]

    def hash(self) -> str:
        return hash_of(self.engine)


def hash_of(engine: Engine) -> str:
    with engine.begin() as connection:
        return state_hash(connection)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path, MemoryBroker({TOPIC: 1}))
    found.start()
    yield found
    found.stop()


def a_life(store: Store) -> str:
    """One of every change; return the run's id."""
    one = store.call(experiments.create, name="one", tags=[{"key": "a", "value": "b"}])
    number = one["experiment_id"]
    run = store.call(runs.create, experiment_id=number, run_name="r", start_time=5)
    run_id: str = run["run"]["info"]["run_id"]
    points = [
        {"key": "loss", "value": value, "timestamp": step, "step": step}
        for step, value in enumerate([0.5, "NaN", "-Infinity", 0.25])
    ]
    store.call(
        logged.log_batch,
        run_id=run_id,
        metrics=points,
        params=[{"key": "depth", "value": "3"}],
        tags=[{"key": "x", "value": "1"}, {"key": "mlflow.runName", "value": "s"}],
    )
    data = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}
    store.call(logged.log_inputs, run_id=run_id, datasets=[{"dataset": data}])
    store.call(logged.log_outputs, run_id=run_id, models=[{"model_id": "m-1"}])
    store.call(logged.delete_tag, run_id=run_id, key="x")
    store.call(runs.update, run_id=run_id, status="FINISHED", end_time=9)
    store.call(runs.delete, run_id=run_id)
    store.call(runs.restore, run_id=run_id)
    tag = {"experiment_id": number, "key": "b"}
    store.call(experiments.set_tag, **tag, value="c")
    store.call(experiments.delete_tag, **tag)
    store.call(experiments.update, experiment_id=number, new_name="uno")
    store.call(experiments.delete, experiment_id=number)
    store.call(experiments.restore, experiment_id=number)
    a_model_life(store, number, run_id)
    return run_id


def a_model_life(store: Store, experiment_id: str, run_id: str) -> str:
    """Each change of a logged model and of files; return the model's id."""
    fields = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    tags = [{"key": "a", "value": "b"}, {"key": "c", "value": "d"}]
    model = store.call(logged_models.create, **fields, tags=tags)["model"]["info"]
    model_id: str = model["model_id"]
    params = [{"key": "depth", "value": "3"}]
    store.call(logged_models.log_params, model_id=model_id, params=params)
    store.call(logged_models.delete_tag, model_id=model_id, key="c")
    point = {"key": "fit", "value": "NaN", "timestamp": 7, "model_id": model_id}
    store.call(logged.log_metric, run_id=run_id, **point)
    for path in ("MLmodel", "data/a.bin", "data/b.bin", "database"):
        store_file(store, model_id, path, path.encode())
    store.journal.write("ann", lambda c: deletion(c, model_id, "data"))
    ready = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
    store.call(logged_models.finalize, **ready)
    other = store.call(logged_models.create, experiment_id=experiment_id)
    store.call(logged_models.delete, model_id=other["model"]["info"]["model_id"])
    return model_id


def store_file(store: Store, owner: str, path: str, data: bytes) -> None:
    ref = store.artifacts.put(data)
    change = FileStored(
        owner=owner, path=path, sha256=ref.sha256, size_bytes=ref.size_bytes
    )
    store.journal.write("ann", lambda _: change)


def test_the_log_alone_gives_the_same_state(store: Store, tmp_path: Path) -> None:
    """Every kind of change, one event each; once, twice, and in the wrong order."""
    a_life(store)
    events = store.events()
    assert [e.revision for e in events] == list(range(1, len(events) + 1))
    assert len({e.change.kind for e in events}) == 21  # each kind there is
    assert {e.by for e in events} == {"ann"}
    ways = {"once": events, "twice": events * 2, "backwards": events[::-1]}
    for way, log in ways.items():
        other = open_database(f"sqlite:///{tmp_path}/{way}.db", TABLES)
        for start in range(0, len(log), 3):  # as it comes: in chunks
            with other.begin() as connection:
                take(connection, log[start : start + 3])
        assert hash_of(other) == store.hash(), way
        other.dispose()


def test_another_history_has_another_hash(store: Store, tmp_path: Path) -> None:
    """Negative control: one value differs, or the last change is missing."""
    a_life(store)
    events = store.events()
    other = open_database(f"sqlite:///{tmp_path}/other.db", TABLES)
    with other.begin() as connection:
        take(connection, events[:-1])
    assert hash_of(other) != store.hash()
    other.dispose()


def test_what_is_read_is_what_was_logged(store: Store) -> None:
    """The newest step counts; values that are no numbers come back as they were."""
    run_id = a_life(store)
    run = store.call(runs.get, run_id=run_id)["run"]
    assert run["info"]["run_name"] == "s"
    assert run["info"]["end_time"] == 9
    assert run["data"]["metrics"] == [
        {"key": "fit", "value": "NaN", "timestamp": 7, "step": 0},
        {"key": "loss", "value": 0.25, "timestamp": 3, "step": 3},
    ]
    history = store.call(logged.history, run_id=run_id, metric_key="loss")["metrics"]
    assert [point["value"] for point in history] == [0.5, "NaN", "-Infinity", 0.25]
    pages = [
        store.call(logged.history, run_id=run_id, metric_key="loss", max_results=3)
    ]
    pages.append(
        store.call(
            logged.history,
            run_id=run_id,
            metric_key="loss",
            max_results=3,
            page_token=pages[0]["next_page_token"],
        )
    )
    assert [p["step"] for page in pages for p in page["metrics"]] == [0, 1, 2, 3]
    assert "next_page_token" not in pages[1]


def test_files_and_models_are_as_logged(store: Store) -> None:
    """A folder goes whole, its neighbour of like name stays; metrics are found."""
    run_id = a_life(store)
    experiment_id = store.call(runs.get, run_id=run_id)["run"]["info"]["experiment_id"]
    found = store.call(logged_models.search, experiment_ids=[experiment_id])["models"]
    assert [model["info"]["name"] for model in found] == ["m"]
    info, data = found[0]["info"], found[0]["data"]
    assert info["status"] == "LOGGED_MODEL_READY"
    assert info["tags"] == [{"key": "a", "value": "b"}]
    assert data["params"] == [{"key": "depth", "value": "3"}]
    assert [m["value"] for m in data["metrics"]] == ["NaN"]
    with store.journal.reading() as connection:
        files = files_of(connection, info["model_id"])
        assert files_of(connection, run_id) == []
    assert [file.path for file in files] == ["MLmodel", "database"]
    assert [file.size_bytes for file in files] == [7, 8]


def test_broker_away(store: Store) -> None:
    """A write is answered all the same; its event goes out later, once."""
    with store.broker.outage():
        store.journal._is_away = True  # the first write after it would wait
        store.call(experiments.create, name="one")
        assert store.events() == []
    wait_until(lambda: len(store.events()) == 1)


def test_killed_between_write_and_publish(tmp_path: Path) -> None:
    """What was stored goes out after the next start, under the id it had."""
    broker = MemoryBroker({TOPIC: 1})
    first = Store(tmp_path, broker)  # never starts to publish: killed before
    first.journal._is_away = True
    first.call(experiments.create, name="one")
    first.call(experiments.create, name="two")
    query = text("SELECT event_id FROM runtime_outbox ORDER BY position")
    with first.engine.begin() as connection:
        stored = list(connection.execute(query).scalars())
    first.stop()
    second = Store(tmp_path, broker)
    second.start()
    second.call(experiments.create, name="three")
    assert [e.revision for e in second.events()] == [1, 2, 3]
    assert [e.meta.id for e in second.events()][:2] == stored
    wait_until(lambda: _unsent(second) == 0, 120)
    second.stop()


def _unsent(store: Store) -> int:
    with store.engine.begin() as connection:
        count = connection.execute(text("SELECT count(*) FROM runtime_outbox"))
        return int(count.scalar_one())


def test_nothing_is_written_before_the_log_is_read(store: Store) -> None:
    """A name could be free here and taken there."""
    store.is_current = False
    with pytest.raises(Refusal, match="still being read") as refused:
        store.call(experiments.create, name="one")
    assert refused.value.status == 503
    store.is_current = True
    store.call(experiments.create, name="one")


def test_a_refused_write_leaves_nothing(store: Store) -> None:
    """Neither row nor event nor revision."""
    run_id = a_life(store)
    before, count = store.hash(), len(store.events())
    refused: list[tuple[Any, dict[str, Any]]] = [
        (experiments.create, {"name": "uno"}),
        (experiments.create, {"name": "x", "artifact_location": "/etc"}),
        (runs.create, {"experiment_id": "77"}),
        (logged.log_param, {"run_id": run_id, "key": "depth", "value": "4"}),
        (logged.set_tag, {"run_id": run_id, "key": "../x", "value": "4"}),
        (logged.delete_tag, {"run_id": run_id, "key": "nothing"}),
        (runs.update, {"run_id": run_id, "status": "ASLEEP"}),
        (
            logged.log_batch,
            {
                "run_id": run_id,
                "metrics": [{"key": "m", "value": 1, "timestamp": 1}] * 1001,
            },
        ),
    ]
    for function, fields in refused:
        with pytest.raises(Refusal):
            store.call(function, **fields)
    assert (store.hash(), len(store.events())) == (before, count)


def test_writers_side_by_side(store: Store, tmp_path: Path) -> None:
    """Each write has its revision, and the log has them in order."""
    run_id = a_life(store)

    def write(worker: int) -> None:
        for step in range(10):
            point = {"key": f"m{worker}", "value": step, "timestamp": 1, "step": step}
            store.call(logged.log_metric, run_id=run_id, **point)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    revisions = [e.revision for e in store.events()]
    assert revisions == list(range(1, len(revisions) + 1))
    run = store.call(runs.get, run_id=run_id)["run"]
    latest = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    assert all(math.isclose(latest[f"m{n}"], 9) for n in range(4))


def test_writes_at_once_share_a_transaction(store: Store) -> None:
    """One that is refused, and one that fails in the middle, take no other along."""
    journal = store.journal

    def create(name: str) -> t.ExperimentCreated:
        return t.ExperimentCreated(
            experiment_id=len(name), name=name, artifact_location="x"
        )

    def refused(_: Connection) -> NoReturn:
        raise Refusal("INVALID_PARAMETER_VALUE", "name: no")

    def failing(connection: Connection) -> NoReturn:
        connection.execute(text("DELETE FROM mlflow_experiment"))
        raise ZeroDivisionError

    wishes: list[Decide] = [
        lambda _: create("a"),
        refused,
        lambda _: create("a"),  # fails where it is applied: the name is taken
        failing,
        lambda _: None,
        lambda _: create("bb"),
    ]
    outcomes: list[str] = [""] * len(wishes)

    def write(number: int) -> None:
        try:
            journal.write("ann", wishes[number])
        except (Refusal, IntegrityError, ZeroDivisionError) as error:
            outcomes[number] = type(error).__name__

    with journal._lock:  # somebody writes; they come meanwhile, in this order
        threads = []
        for number in range(len(wishes)):
            threads.append(threading.Thread(target=write, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: len(journal._wishes) == number + 1, 120)
    for thread in threads:
        thread.join(120)
    expected = ["", "Refusal", "IntegrityError", "ZeroDivisionError", "", ""]
    assert outcomes == expected
    events = store.events()
    assert [e.change.name for e in events] == ["a", "bb"]  # type: ignore[union-attr]
    assert [e.revision for e in events] == [1, 2]
    assert journal.has(2)
    assert not journal.has(3)
    names = text("SELECT name FROM mlflow_experiment ORDER BY name")
    with journal.reading() as connection:
        assert list(connection.execute(names).scalars()) == ["a", "bb"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "Missing value for required parameter 'run_id'"),
        ({"run_id": 3}, "run_id: int where a text should be"),
        ({"run_id": "a", "metrics": 3}, "metrics: not a list"),
        ({"run_id": "a", "metrics": [3]}, "metrics[0]: int where an object should be"),
        ({"run_id": "a", "metrics": [{"key": "m"}]}, "metrics[0].value"),
        (
            {"run_id": "a", "metrics": [{"key": "m", "value": True, "timestamp": 1}]},
            "metrics[0].value: True is not a number",
        ),
        (
            {"run_id": "a", "metrics": [{"key": "m", "value": 1, "timestamp": 2**70}]},
            "does not fit into 64 bits",
        ),
        (
            {"run_id": "a", "metrics": [{"key": "m", "value": 1, "timestamp": -1}]},
            "metrics[0].timestamp: -1 is not between 0",
        ),
        ({"run_id": "a", "params": [{"key": "a\0", "value": ""}]}, "holds a NUL"),
        ({"run_id": "a", "tags": [{"value": "x"}]}, "tags[0].key"),
        (
            {"run_id": "a", "params": [{"key": "p", "value": "1"}] * 2},
            "params: p twice in one request",
        ),
        ({"run_id": "a", "params": [{"key": "a#b"}]}, "params[0].key: 'a#b' may hold"),
        ({"run_id": "a/b"}, "run_id: 'a/b' is no id of a run"),
    ],
)
def test_a_refusal_names_the_field(
    store: Store, fields: dict[str, Any], problem: str
) -> None:
    """Whatever is sent as a batch."""
    with pytest.raises(Refusal) as refused:
        store.call(logged.log_batch, **fields)
    assert problem in refused.value.message
