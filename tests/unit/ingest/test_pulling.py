"""Sources that ingest fetches from: what is new once, in order, by one replica."""

import gzip
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from driftloop.contracts.sources import SqlTable
from driftloop.ingest import pulling, sql_tables
from driftloop.ingest.folders import SourceError, open_place
from driftloop.ingest.handlers import HANDLERS
from driftloop.ingest.keys import open_keys
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.pull_tables import LeaseLostError, PulledObject, PullLease, take
from driftloop.ingest.pulling import Puller, State
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.sql_tables import new_pages
from driftloop.ingest.tables import TABLES
from driftloop.runtime.database import open_database
from driftloop.runtime.transport import Message
from sqlmodel import Session, select

from tests.unit.ingest.door import Desk, row
from tests.unit.ingest.test_api import Kafka

OLD_S = 1_600_000_000


@dataclass
class Plant:
    """A puller with its database, a folder that it may read, and no threads."""

    home: Path
    kafka: Kafka = field(default_factory=Kafka)

    def __post_init__(self) -> None:
        self.folder = self.home / "in"
        self.folder.mkdir()
        self.engine = open_database("sqlite://", TABLES)
        self.roots = [str(self.home)]

    def puller(self, *sources: dict[str, Any], replica: str = "0") -> Puller:
        spec = parse_pipeline(
            "{name: bikes, task: regression, data: {target: cnt, "
            f"sources: {orjson.dumps(sources).decode()}}}}}"
        )
        applied = PipelineApplied(pipeline="bikes", spec=spec, applied_by="ann")
        settings = IngestSettings(
            home=self.home, folder_roots=self.roots, replica=replica
        )
        return Puller(
            settings,
            self.engine,
            self.kafka,
            {"bikes": applied},
            PrivacyDoor(self.engine, open_keys(settings)),
            threading.Event(),
        )

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        os.utime(path, (OLD_S, OLD_S + path.stat().st_ino))
        return path

    def ids(self) -> list[str]:
        """Ids that ingest's handlers make of what was sent, in their order."""
        desk = Desk()
        messages = [
            Message(r.topic, 0, n, r.key, r.value, r.headers)
            for n, r in enumerate(self.kafka.sent)
        ]
        events, letters = desk.handle(HANDLERS[0], messages)
        desk.close()
        assert not letters
        return [i for event in events for i in event.rows["id"].to_pylist()]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path)
    yield plant
    plant.engine.dispose()


def looked(puller: Puller, times: int = 2) -> State:
    """Look some times; a file counts from the second look on."""
    for _ in range(times):
        (state,) = puller.current()
        puller.attempt(state)
    return state


def lines(*numbers: int, **values: object) -> bytes:
    return b"\n".join(orjson.dumps(row(n, **values)) for n in numbers)


def test_each_file_is_taken_once_and_a_changed_one_again(plant: Plant) -> None:
    source = {"name": "drop", "folder": str(plant.folder), "pattern": "*.ndjson*"}
    plant.write("a.ndjson", lines(1, 2))
    plant.write("b.ndjson.gz", gzip.compress(lines(3)))
    for name in ("c.csv", ".d.ndjson", "e.ndjson.tmp", "_f.ndjson"):
        plant.write(name, lines(9))
    puller = plant.puller(source)
    assert not looked(puller, 1).problem
    assert not plant.kafka.sent  # they may be growing still
    assert not looked(puller, 3).problem
    assert plant.ids() == ["r1", "r2", "r3"]
    keys = {record.key for record in plant.kafka.sent}
    assert keys == {b"bikes/drop"}
    looked(plant.puller(source), 3)  # a restart remembers
    assert len(plant.kafka.sent) == 2
    plant.write("a.ndjson", lines(1, 2, 4))
    looked(puller, 3)
    assert plant.ids() == ["r1", "r2", "r3", "r4"]


def test_a_file_that_grows_is_not_read(plant: Plant) -> None:
    puller = plant.puller({"name": "drop", "folder": str(plant.folder)})
    path = plant.folder / "a.ndjson"
    for number in range(3):
        with path.open("ab") as file:
            file.write(lines(number) + b"\n")
        looked(puller, 1)
    looked(puller, 2)
    assert not plant.kafka.sent  # unchanged, but only just
    os.utime(path, (OLD_S, OLD_S))
    looked(puller, 2)
    assert plant.ids() == ["r0", "r1", "r2"]


def test_a_file_goes_on_after_the_messages_that_kafka_has(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "MESSAGES_AT_A_TIME", 1)
    plant.write("a.ndjson", lines(*range(6000), sky="x" * 500))
    source = {"name": "drop", "folder": str(plant.folder)}
    first = plant.puller(source)

    class BrokenError(Exception):
        """The process ends here, as by kill -9."""

    publish, sent = plant.kafka.publish, plant.kafka.sent

    def publish_once(records: Any, timeout_s: float = 30) -> None:
        if sent:
            raise BrokenError
        publish(records)

    plant.kafka.publish = publish_once  # type: ignore[method-assign]
    with pytest.raises(BrokenError):
        looked(first, 2)
    plant.kafka.publish = publish  # type: ignore[method-assign]
    looked(plant.puller(source), 2)
    ids = [dict(record.headers)["ce_id"] for record in sent]
    assert len(ids) == len(set(ids)) > 2  # none sent again
    assert plant.ids() == [f"r{n}" for n in range(6000)]


def test_without_an_acknowledgement_nothing_counts_as_sent(plant: Plant) -> None:
    plant.write("a.ndjson", lines(1))
    puller = plant.puller({"name": "drop", "folder": str(plant.folder)})
    looked(puller, 1)
    plant.kafka.is_away = True
    assert "no acknowledgement" in looked(puller, 1).problem
    plant.kafka.is_away = False
    assert not looked(puller, 1).problem
    assert plant.ids() == ["r1"]


def test_a_broken_file_is_set_aside_and_others_go_on(plant: Plant) -> None:
    plant.write("a.parquet", b"PAR1 no more")
    plant.write("b.ndjson", lines(1))
    looked(plant.puller({"name": "drop", "folder": str(plant.folder)}), 3)
    assert plant.ids() == ["r1"]
    with Session(plant.engine) as session:
        rows = session.exec(select(PulledObject)).all()
    assert {r.name: "broken Parquet" in r.problem for r in rows} == {
        "a.parquet": True,
        "b.ndjson": False,
    }


@pytest.mark.parametrize("folder", ["/etc", "{home}/in/../../..", "s3://lake/x"])
def test_folders_have_to_be_allowed(plant: Plant, folder: str) -> None:
    source = {"name": "drop", "folder": folder.format(home=plant.home)}
    state = looked(plant.puller(source), 1)
    assert "DRIFTLOOP_INGEST_FOLDER_ROOTS" in state.problem
    plant.roots = []
    state = looked(plant.puller({"name": "drop", "folder": str(plant.folder)}), 1)
    assert "(none)" in state.problem


def test_a_link_does_not_lead_out(plant: Plant, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "rows.ndjson"
    outside.write_bytes(lines(1))
    (plant.folder / "rows.ndjson").symlink_to(outside)
    state = looked(plant.puller({"name": "drop", "folder": str(plant.folder)}), 2)
    assert "leads out of" in state.problem
    assert not plant.kafka.sent


def test_prefixes_are_compared_by_folder() -> None:
    for folder, roots in (
        ("s3://lake/bikes-secret", ["s3://lake/bikes"]),
        ("s3://lake/bikes/../x", ["s3://lake/bikes"]),
        ("s3://lake2", ["s3://lake"]),
    ):
        with pytest.raises(SourceError, match="below none of the roots"):
            open_place(folder, "*", roots, IngestSettings())
    with pytest.raises(SourceError, match="S3_ENDPOINT_URL"):  # it would be allowed
        open_place("s3://lake/bikes/day", "*", ["s3://lake/bikes"], IngestSettings())


def test_one_replica_at_a_time_and_a_late_one_stores_nothing(plant: Plant) -> None:
    first = take(plant.engine, "bikes", "drop", "a", 30)
    assert first is not None
    assert take(plant.engine, "bikes", "drop", "b", 30) is None
    with Session(plant.engine) as session:
        lease = session.exec(select(PullLease)).one()
        lease.expires_at = 0  # a was frozen
        session.add(lease)
        session.commit()
    second = take(plant.engine, "bikes", "drop", "b", 30)
    assert second is not None
    with pytest.raises(LeaseLostError):
        first.put_object("x", fingerprint="", digest="", next_message=7)
    second.put_object("x", fingerprint="", digest="", next_message=1)
    assert second.objects()["x"].next_message == 1


# ── tables ──────────────────────────────────────────────────────────────────


@pytest.fixture
def source_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path}/upstream.db"
    monkeypatch.setenv("DRIFTLOOP_SOURCE_WAREHOUSE", url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE rentals (id TEXT, event_time TEXT, temp REAL, sky TEXT, "
            "changed INTEGER)"
        )
    yield engine
    engine.dispose()


SQL = {"url_secret": "warehouse", "table": "rentals", "cursor": "changed"}


def insert(engine: sa.Engine, *rows: tuple[int, int]) -> None:
    with engine.begin() as connection:
        for number, changed in rows:
            given = row(number)
            connection.exec_driver_sql(
                "INSERT INTO rentals VALUES (?, ?, ?, ?, ?)",
                (given["id"], given["event_time"], 0.5, "clear", changed),
            )


def test_a_table_is_read_by_its_mark_and_ties_are_not_missed(
    plant: Plant, source_db: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_tables, "PAGE_ROWS", 2)
    puller = plant.puller({"name": "sql", "sql": SQL})
    insert(source_db, (3, 1), (1, 1), (2, 1), (4, 2))
    assert not looked(puller, 1).problem
    assert plant.ids() == ["r1", "r2", "r3", "r4"]
    count = len(plant.kafka.sent)
    looked(puller, 2)
    assert len(plant.kafka.sent) == count  # nothing new, nothing sent
    insert(source_db, (0, 2), (5, 2), (6, 7))  # of the same value, before and after
    looked(plant.puller({"name": "sql", "sql": SQL}), 1)
    assert plant.ids() == ["r1", "r2", "r3", "r4", "r0", "r5", "r6"]


def test_a_look_that_breaks_off_goes_on_behind_its_last_page(
    source_db: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_tables, "PAGE_ROWS", 3)
    insert(source_db, *((n, n // 4) for n in range(10)))
    found: list[str] = []
    mark, ties = None, frozenset[str]()
    while True:  # one page a look: each begins anew at the mark
        pages = new_pages(source_db, SqlTable(**SQL), "id", mark, ties)
        page = next(pages, None)
        pages.close()
        if page is None:
            break
        mark, ties = page.mark, page.ties
        found += [r["id"] for r in page.rows]
    assert found == [f"r{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (SQL | {"url_secret": "other"}, "DRIFTLOOP_SOURCE_OTHER"),
        (SQL | {"table": "cars"}, "cars"),
        (SQL | {"cursor": "updated"}, "has no column 'updated'; it has id, event_time"),
    ],
)
def test_a_table_that_cannot_be_read_is_explained(
    plant: Plant, source_db: sa.Engine, sql: dict[str, str], says: str
) -> None:
    assert says in looked(plant.puller({"name": "sql", "sql": sql}), 1).problem


def test_a_password_is_told_nowhere(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for url in (
        "postgresql://ada:hunter2@127.0.0.1:1/db?connect_timeout=2",
        "nosuchdb://ada:hunter2@127.0.0.1/db",
        "hunter2",
    ):
        monkeypatch.setenv("DRIFTLOOP_SOURCE_WAREHOUSE", url)
        state = looked(plant.puller({"name": "sql", "sql": SQL}), 1)
        assert state.problem
        out, err = capfd.readouterr()
        assert "hunter2" not in state.problem + out + err


def test_a_secret_may_be_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driftloop_source_warehouse").write_text("sqlite:///x.db\n")
    monkeypatch.setenv("DRIFTLOOP_SECRETS_DIR", str(tmp_path))
    assert sql_tables.source_url("warehouse") == "sqlite:///x.db"


def test_a_source_that_is_gone_from_the_file_is_closed(plant: Plant) -> None:
    puller = plant.puller({"name": "drop", "folder": str(plant.folder)})
    looked(puller, 1)
    puller.pipelines = {}
    assert puller.current() == []
    assert take(plant.engine, "bikes", "drop", "another", 30) is not None


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ("[{name: a}]", "either folder or sql"),
        ("[{name: a, folder: x}, {name: a, folder: y}]", "a is there twice"),
        ("[{name: a, foldr: x}]", "did you mean 'folder'"),
        ("[{name: a, sql: {url_secret: s, tabel: t}}]", "did you mean 'table'"),
        (
            "[{name: a, sql: {url_secret: 'postgresql://u:p@h/d', table: t, "
            "cursor: c}}]",
            "url_secret",
        ),
    ],
)
def test_a_wrong_source_is_explained_when_the_file_is_applied(
    sources: str, says: str
) -> None:
    text = f"{{name: a, task: binary, data: {{target: b, sources: {sources}}}}}"
    with pytest.raises(PipelineFileError, match=says):
        parse_pipeline(text)
