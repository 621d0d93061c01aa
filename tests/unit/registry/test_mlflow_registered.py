"""Registered models: each change is an event, and the pipelines are among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import TrackingChanged
from driftloop.contracts.registered import RegisteredChange
from driftloop.registry.mlflow import experiments, runs
from driftloop.registry.mlflow.apply import take
from driftloop.registry.mlflow.call import Call, Json
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.registered import aliases, models, versions
from driftloop.registry.mlflow.registered.moves import moves_of
from driftloop.registry.mlflow.registered.pipelines import Pipelines
from driftloop.registry.mlflow.tables import TABLES
from driftloop.runtime.database import open_database
from driftloop.runtime.drivers.memory import MemoryBroker
from sqlalchemy import text

from tests.unit.registry.test_mlflow_tracking import TOPIC, Store, hash_of

PIPELINE = "bikes"
SHOWN = (
    "INSERT INTO registry_shown_version (name, version, created_ms, updated_ms, "
    "source, stage, status_message) "
    "VALUES ('bikes', 1, 5, 6, 'mlflow-artifacts:/pipelines/bikes/1', 'Production', '')"
)
SHOWN_TAG = (
    "INSERT INTO registry_shown_tag VALUES ('bikes', 1, 'driftloop.state', 'deployed')"
)
SHOWN_ALIAS = "INSERT INTO registry_shown_alias VALUES ('bikes', 'champion', 1)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path, MemoryBroker({TOPIC: 1}))
    found.start()
    yield found
    found.stop()


def a_run(store: Store) -> str:
    store.call(experiments.create, name="one")
    made = store.call(runs.create, experiment_id="1", run_name="r", start_time=5)
    run_id: str = made["run"]["info"]["run_id"]
    return run_id


def a_registered_life(store: Store) -> None:
    """One of every change of a registered model."""
    run = a_run(store)
    tags = [{"key": "a", "value": "b"}]
    version = {"source": f"runs:/{run}/model", "run_id": run, "tags": tags}
    store.call(models.create, name="ore", tags=tags, description="rock")
    store.call(models.update, name="ore", description="metal")
    store.call(models.set_tag, name="ore", key="c", value="d")
    store.call(models.delete_tag, name="ore", key="a")
    for _ in range(3):
        store.call(versions.create, name="ore", **version)
    first = {"name": "ore", "version": "1"}
    store.call(versions.update, **first, description="first")
    store.call(versions.set_tag, **first, key="e", value="f")
    store.call(versions.delete_tag, **first, key="a")
    store.call(aliases.put, **first, alias="best")
    store.call(aliases.put, name="ore", version="2", alias="best")
    store.call(aliases.put, **first, alias="other")
    store.call(aliases.delete, name="ore", alias="other")
    stage = {"stage": "Production", "archive_existing_versions": True}
    store.call(versions.move, **first, **stage)
    store.call(versions.move, name="ore", version="2", **stage)
    store.call(versions.delete, name="ore", version="2")
    store.call(models.rename, name="ore", new_name="gold")
    store.call(models.create, name="tin")
    store.call(models.delete, name="tin")


def test_the_log_alone_gives_the_same_models(store: Store, tmp_path: Path) -> None:
    """Every kind of change; once, twice, and in the wrong order."""
    a_registered_life(store)
    events = store.events()
    kinds = {type(e.change) for e in events if isinstance(e.change, RegisteredChange)}
    assert kinds == set(RegisteredChange.__args__)
    for way, log in {
        "once": events, "twice": events * 2, "backwards": events[::-1],
    }.items():  # fmt: skip
        other = open_database(f"sqlite:///{tmp_path}/{way}.db", TABLES)
        for start in range(0, len(log), 3):
            with other.begin() as connection:
                take(connection, log[start : start + 3])
        assert hash_of(other) == store.hash(), way
        other.dispose()


def test_another_alias_is_another_state(store: Store, tmp_path: Path) -> None:
    """Negative control: one event fewer, of a stage or an alias, is seen."""
    a_registered_life(store)
    events = [e for e in store.events() if e.change.kind != "stage-moved"]
    log = [
        TrackingChanged.model_validate(e.model_dump() | {"revision": number})
        for number, e in enumerate(events, 1)
    ]
    other = open_database(f"sqlite:///{tmp_path}/other.db", TABLES)
    with other.begin() as connection:
        take(connection, log)
    assert hash_of(other) != store.hash()
    other.dispose()


def test_who_moved_an_alias_or_a_stage_is_kept(store: Store) -> None:
    a_registered_life(store)
    revisions = {e.revision: e.change.kind for e in store.events()}
    with store.engine.begin() as connection:
        rows = connection.execute(
            text(
                'SELECT revision, subject, version, "before", "after", "by" '
                "FROM mlflow_model_move WHERE name = 'gold' ORDER BY revision, version"
            )
        ).all()
        lines = moves_of(connection, "gold")
    assert [line.event_id for line in lines] == [
        f"tracking-changed/{r.revision}" for r in rows
    ]
    assert {line.detail for line in lines} == {"by ann, a client of MLflow"}
    told = [(revisions[r.revision], *r[1:]) for r in rows]
    assert told == [
        ("alias-set", "alias:best", 1, None, "1", "ann"),
        ("alias-set", "alias:best", 2, "1", "2", "ann"),
        ("alias-set", "alias:other", 1, None, "1", "ann"),
        ("alias-deleted", "alias:other", 1, "1", None, "ann"),
        ("stage-moved", "stage", 1, "None", "Production", "ann"),
        ("stage-moved", "stage", 1, "Production", "Archived", "ann"),
        ("stage-moved", "stage", 2, "None", "Production", "ann"),
        ("version-deleted", "alias:best", 2, "2", None, "ann"),
    ]


def test_what_changes_nothing_is_no_event(store: Store) -> None:
    """The same alias, a tag or alias that is not there, the name it has."""
    a_registered_life(store)
    store.call(aliases.put, name="gold", version="1", alias="same")
    before = len(store.events())
    store.call(aliases.put, name="gold", version="1", alias="same")
    store.call(aliases.delete, name="gold", alias="nobody")
    store.call(models.delete_tag, name="gold", key="nobody")
    store.call(versions.delete_tag, name="gold", version="1", key="nobody")
    store.call(models.rename, name="gold", new_name="gold")
    assert len(store.events()) == before


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "s3://bucket/model",
        "runs:/RUN/../x",
        "runs:/RUN/a//b",
        "runs:/RUN/%2e%2e/x",
        "runs:/RUN/a\\..\\b",
        "runs:/RUN/model?x=1",
        "runs:/RUN/model#x",
        "runs:/RUN/model;x",
        "runs://host/RUN/model",
        "mlflow-artifacts://host/1/RUN/artifacts/model",
        "mlflow-artifacts:/1/RUN/artifacts/../x",
        "mlflow-artifacts:/1/RUN/artifactsx/model",
        "mlflow-artifacts:/2/RUN/artifacts/model",
        "models:/m-00000000000000000000000000000000",
        "models:/ore/99",
        "models:/ore@nobody",
        "models:/nobody/latest",
        "models://ore/1",
        "dummy-source",
    ],
)
def test_a_source_is_a_run_a_model_or_a_version(store: Store, source: str) -> None:
    """Whatever else it says is refused, and nothing is written."""
    run = a_run(store)
    store.call(models.create, name="ore")
    before = len(store.events())
    with pytest.raises(Refusal) as refused:
        store.call(
            versions.create, name="ore", source=source.replace("RUN", run), run_id=run
        )
    assert refused.value.code in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}
    assert len(store.events()) == before


def as_pipeline(store: Store, *, promoted: list[Any] | None = None) -> Any:
    """Return a function that calls with one pipeline, of one version in service."""
    with store.engine.begin() as connection:
        for statement in (SHOWN, SHOWN_TAG, SHOWN_ALIAS):
            connection.execute(text(statement))
    asked = [] if promoted is None else promoted
    pipelines = Pipelines(
        lambda: {PIPELINE: 3, "empty": 4}, lambda _: 0, lambda *who: asked.append(who)
    )

    def call(function: Any, **fields: Any) -> Json:
        answer: Json = function(Call(store.journal, fields, "ann", 0, pipelines))
        return answer

    return call


def test_pipelines_are_registered_models(store: Store) -> None:
    """Also one without a version; found by the loop's tags, read by its aliases."""
    a_registered_life(store)
    call = as_pipeline(store)
    found = call(models.search, order_by=["name DESC"])["registered_models"]
    assert [m["name"] for m in found] == ["gold", "empty", "bikes"]
    bikes = call(models.get, name=PIPELINE)["registered_model"]
    assert bikes["aliases"] == [{"alias": "champion", "version": "1"}]
    assert bikes["latest_versions"][0]["current_stage"] == "Production"
    assert (bikes["creation_timestamp"], bikes["last_updated_timestamp"]) == (3, 6)
    hits = call(versions.search, filter="tags.`driftloop.state` = 'deployed'")
    assert [v["name"] for v in hits["model_versions"]] == [PIPELINE]
    meant = call(aliases.get, name=PIPELINE, alias="champion")["model_version"]
    assert (meant["version"], meant["status"]) == ("1", "READY")
    assert call(models.get, name="empty")["registered_model"]["latest_versions"] == []
    with pytest.raises(Refusal):  # negative control: without the pipelines
        store.call(models.get, name="empty")


def test_a_note_on_a_version_may_be_read_before_the_version(
    store: Store, tmp_path: Path
) -> None:
    """Topics have no order: what a client wrote waits, unseen, for its version."""
    call = as_pipeline(store)
    call(versions.update, name=PIPELINE, version="1", description="the good one")
    call(versions.set_tag, name=PIPELINE, version="1", key="k", value="v")
    other = Store(tmp_path / "other", MemoryBroker({TOPIC: 1}))
    with other.engine.begin() as connection:
        take(connection, store.events())
    with pytest.raises(Refusal):
        other.call(versions.get, name=PIPELINE, version="1")
    assert other.call(versions.search) == {}
    with other.engine.begin() as connection:
        connection.execute(text(SHOWN))
    found = other.call(versions.get, name=PIPELINE, version="1")["model_version"]
    assert found["description"] == "the good one"
    assert found["tags"] == [{"key": "k", "value": "v"}]
    assert found["source"] == "mlflow-artifacts:/pipelines/bikes/1"
    other.stop()


def test_champion_is_asked_for_and_other_aliases_are_free(store: Store) -> None:
    promoted: list[Any] = []
    call = as_pipeline(store, promoted=promoted)
    before = len(store.events())
    call(aliases.put, name=PIPELINE, version="1", alias="champion")
    call(versions.move, name=PIPELINE, version="1", stage="Production")  # it is there
    assert promoted == [(PIPELINE, 1, "ann")]
    assert len(store.events()) == before
    call(aliases.put, name=PIPELINE, version="1", alias="blessed")
    found = call(versions.get, name=PIPELINE, version="1")["model_version"]
    assert found["aliases"] == ["blessed", "champion"]
    for alias in ("previous", "candidate"):
        with pytest.raises(Refusal, match="follows from what is in service"):
            call(aliases.put, name=PIPELINE, version="1", alias=alias)


def test_a_copy_of_the_loops_version_is_a_record(store: Store) -> None:
    """Under another name it is nobody's champion; its number is its own."""
    call = as_pipeline(store)
    call(models.create, name="shelf")
    copied = call(versions.create, name="shelf", source="models:/bikes@champion")
    assert copied["model_version"]["source"] == "models:/bikes/1"
    assert copied["model_version"]["version"] == "1"
    call(aliases.put, name="shelf", version="1", alias="champion")
    call(versions.delete, name="shelf", version="1")
