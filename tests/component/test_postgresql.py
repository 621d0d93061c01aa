"""The runner on PostgreSQL, as in production: replicas share a service's database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import DatasetRef, RetrainRequested
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.contracts.topics import SERVICES
from driftloop.runtime import database, schema
from driftloop.runtime.database import WrongDatabaseError, open_database
from driftloop.runtime.errors import Reject
from driftloop.runtime.handlers import Chunk, DeadLetter, Deps
from driftloop.runtime.migrating import differences, names_of_tables
from driftloop.runtime.settings import Settings, load_settings
from driftloop.runtime.transport import Message, Record
from driftloop.validator.datasets import Datasets
from driftloop.validator.tables import DatasetCount, ReferenceRow, load_learned
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from tests.component.support import wait_until
from tests.servers import PostgresqlServer
from tests.unit.runtime.bench import Bench, Effect, alert, on_retrain_requested
from tests.unit.validator import test_handlers as validator

TOPIC = RetrainRequested.topic()
MakeBench = Callable[..., Bench]


@pytest.fixture
def url(postgresql: PostgresqlServer) -> str:
    """URL of an empty database."""
    return postgresql.new_database()


@pytest.fixture
def make_bench(tmp_path: Path, url: str) -> Iterator[MakeBench]:
    """Return a function that makes a replica; all of them share the database."""
    with ExitStack() as stack:

        def make(handler: object = on_retrain_requested, **options: object) -> Bench:
            bench = Bench(tmp_path, [handler], url=url, **options)  # type: ignore[arg-type]  # options of the caller
            stack.callback(bench.end)
            return bench

        yield make


def published_ids(*benches: Bench) -> list[str]:
    return [event.meta.id for bench in benches for event in bench.published()]


def in_parallel(*functions: Callable[[], object]) -> list[BaseException]:
    """Run functions at once, in threads; return what they raised."""
    failures: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(each,)) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return failures


class Gate:
    """A handler that stands still in the middle of its transaction."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def on_retrain_requested(
        self, event: RetrainRequested, deps: Deps
    ) -> Iterator[Event]:
        deps.session.add(Effect(what=event.meta.id))
        deps.session.flush()
        self.reached.set()
        assert self.opened.wait(120)
        yield alert()


def gated() -> tuple[Gate, Callable[..., Iterator[Event]]]:
    gate = Gate()

    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        yield from gate.on_retrain_requested(event, deps)

    return gate, on_retrain_requested


def test_effect_and_event_are_stored_and_published_once(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.runner.process([bench.message()])
    bench.restart()
    bench.outbox.recover()
    bench.runner.process([bench.message(), bench.message(1)])
    assert bench.effects() == ["cause"]
    assert len(set(published_ids(bench))) == 1
    assert bench.runner.start_offset(TOPIC, 0) == 2


def test_two_events_have_two_effects(make_bench: MakeBench) -> None:
    """Negative control of the test above."""
    bench = make_bench()
    bench.runner.process([bench.message(0, "a"), bench.message(1, "b")])
    assert sorted(bench.effects()) == ["a", "b"]
    assert len(set(published_ids(bench))) == 2


def test_reject_undoes_the_effect(make_bench: MakeBench) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        deps.session.add(Effect(what="half done"))
        deps.session.flush()
        raise Reject("too late")
        yield

    bench = make_bench(on_retrain_requested)
    bench.runner.process([bench.message()])
    assert bench.effects() == []
    assert bench.dead_letters()[0]["dead-letter-reason"] == "too late"


class KilledError(BaseException):
    """Stands for the end of the process."""


def kill_before_publishing(bench: Bench, message: Message) -> None:
    def die(records: Sequence[Record], timeout_s: float = 30) -> None:
        raise KilledError

    alive, bench.publisher.publish = bench.publisher.publish, die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        bench.runner.process([message])
    bench.publisher.publish = alive  # type: ignore[method-assign]
    assert bench.published() == []


def test_killed_between_commit_and_publish_the_event_goes_out_later(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    kill_before_publishing(bench, bench.message())
    bench.restart()
    bench.outbox.recover()
    bench.runner.process([bench.message()])
    assert bench.effects() == ["cause"]
    assert len(bench.published()) == 1


def test_killed_for_good_another_replica_publishes_first(make_bench: MakeBench) -> None:
    """Who gets the partition gets what its owner had stored and not published."""
    gone, heir = make_bench(), make_bench(replica="1")
    gone.outbox.recover()
    kill_before_publishing(gone, gone.message(0, "a"))
    gone.end()
    assert heir.runner.start_offset(TOPIC, 0) == 1
    heir.runner.process([heir.message(0, "a"), heir.message(1, "b")])
    causes = [event.meta.causation_id for event in heir.published()]
    assert causes == ["a", "b"]
    heir.outbox.tidy()
    with Session(heir.engine) as session:
        assert session.exec(text("select count(*) from runtime_outbox")).one()[0] == 0


def test_events_of_a_living_replica_stay_its_own(make_bench: MakeBench) -> None:
    """Negative control of the test above."""
    busy, other = make_bench(), make_bench(replica="1")
    busy.outbox.recover()
    kill_before_publishing(busy, busy.message())
    other.runner.start_offset(TOPIC, 0)
    assert other.published() == []


def test_two_replicas_at_once_have_one_effect(make_bench: MakeBench) -> None:
    """The same messages, by event, by two owners of a partition at the same time."""
    one, two = make_bench(retry_limit_s=120), make_bench(replica="1", retry_limit_s=120)
    ids = [f"event-{number}" for number in range(40)]
    messages = [one.message(offset, each) for offset, each in enumerate(ids)]
    failures = in_parallel(
        lambda: one.runner.process(messages), lambda: two.runner.process(messages)
    )
    assert failures == []
    assert sorted(one.effects()) == sorted(ids)
    assert len(published_ids(one, two)) == len(ids)
    assert len(set(published_ids(one, two))) == len(ids)


def test_two_replicas_at_once_on_different_partitions(make_bench: MakeBench) -> None:
    """The same ids come twice, on two partitions: the inbox tells."""
    one, two = make_bench(retry_limit_s=120), make_bench(replica="1", retry_limit_s=120)
    ids = [f"event-{number}" for number in range(40)]
    here = [one.message(offset, each) for offset, each in enumerate(ids)]
    there = [
        Message(m.topic, 1, m.offset, m.key, m.value, m.headers) for m in reversed(here)
    ]
    failures = in_parallel(
        lambda: [one.runner.process([each]) for each in here],
        lambda: [two.runner.process([each]) for each in there],
    )
    assert failures == []
    assert sorted(one.effects()) == sorted(ids)
    assert len(set(published_ids(one, two))) == len(ids)


def test_two_replicas_at_once_have_one_effect_of_a_chunk(tmp_path: Path, url: str):
    """A chunk has no event id: its partition's watermark is held to the end."""
    both = threading.Barrier(2, timeout=1)

    def on_rows(messages: Sequence[Message], deps: Deps) -> Iterator[Event]:
        with suppress(threading.BrokenBarrierError):
            both.wait()  # whoever is first gives the other the time to do the same
        for message in messages:
            deps.session.add(Effect(what=message.value.decode()))
        yield alert()

    chunk = [Chunk("observation-arrived", on_rows)]
    benches = [
        Bench(tmp_path, chunk, url=url, replica=str(number), retry_limit_s=120)
        for number in range(2)
    ]
    rows = [
        Message("observation-arrived", 0, number, None, str(number).encode(), ())
        for number in range(3)
    ]
    failures = in_parallel(*(lambda b=b: b.runner.process(rows) for b in benches))
    assert failures == []
    assert sorted(benches[0].effects()) == ["0", "1", "2"]
    assert len(published_ids(*benches)) == 1
    for bench in benches:
        bench.end()


def test_two_validators_at_once_lose_nothing_of_a_pipeline(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows for the reference, what the data said, and the dataset's counts."""
    spec = parse_pipeline("{name: shared, task: regression, data: {target: cnt}}")
    benches = [
        validator.Bench(tmp_path, spec, url=url, partition=number)
        for number in range(2)
    ]
    first = validator.ingested("z", pipeline="shared", z=[1.0])
    benches[0].handle(first)
    both = threading.Barrier(2, timeout=1)
    append = Datasets.append

    def append_together(*given: Any) -> DatasetRef:
        with suppress(threading.BrokenBarrierError):
            both.wait()  # whoever is first gives the other the time to do the same
        return append(*given)

    monkeypatch.setattr(Datasets, "append", append_together)
    failures = in_parallel(
        *(
            lambda bench=bench, ids=ids: bench.handle(
                validator.ingested(ids, pipeline="shared", **{ids[0]: [1.0, 2.0]})
            )
            for bench, ids in zip(benches, ("ab", "cd"), strict=True)
        )
    )
    assert failures == []
    with Session(benches[0].engine) as session:
        reference = session.get_one(ReferenceRow, "shared")
        assert pa.ipc.open_stream(reference.rows).read_all().num_rows == 5
        learned = load_learned(session, "shared")
        assert (set(learned.features), learned.row_count) == ({"z", "a", "c"}, 5)
        assert session.get_one(DatasetCount, "shared").observation_count == 5
    for bench in benches:
        bench.engine.dispose()


def test_a_frozen_transaction_does_not_block_for_ever(
    tmp_path: Path, url: str, make_bench: MakeBench
) -> None:
    """The server ends it; the heir does the work; the sleeper's is undone."""
    gate, handler = gated()
    limits = "?options=-c%20idle_in_transaction_session_timeout%3D1s"
    frozen = Bench(tmp_path, [handler], url=url + limits, retry_limit_s=120)
    heir = make_bench(replica="1", retry_limit_s=120)
    sleeper = threading.Thread(target=lambda: frozen.runner.process([frozen.message()]))
    sleeper.start()
    assert gate.reached.wait(120)
    heir.runner.process([heir.message()])
    gate.opened.set()
    sleeper.join(120)
    assert not sleeper.is_alive()
    assert heir.effects() == ["cause"]
    assert len(set(published_ids(frozen, heir))) == 1
    frozen.end()


def test_a_wait_for_a_lock_ends_and_is_tried_again(
    tmp_path: Path, url: str, make_bench: MakeBench
) -> None:
    gate, handler = gated()
    slow = make_bench(handler)
    limits = "?options=-c%20lock_timeout%3D50ms"
    waiting = Bench(tmp_path, [on_retrain_requested], url=url + limits, replica="1")
    waiting.runner._retry_limit_s = 120
    worker = threading.Thread(target=lambda: slow.runner.process([slow.message()]))
    worker.start()
    assert gate.reached.wait(120)
    other = threading.Thread(
        target=lambda: waiting.runner.process([waiting.message(0, "cause")])
    )
    other.start()
    wait_until(
        lambda: "lock timeout" in (waiting.runner.last_error or ""), "no lock timeout"
    )
    gate.opened.set()
    for thread in (worker, other):
        thread.join(120)
        assert not thread.is_alive()
    assert slow.effects() == ["cause"]
    assert len(published_ids(slow, waiting)) == 1
    waiting.end()


def test_a_server_that_goes_and_comes_back_costs_only_time(
    make_bench: MakeBench, postgresql: PostgresqlServer
) -> None:
    bench = make_bench(retry_limit_s=120)
    bench.runner.process([bench.message(0, "a")])
    postgresql.stop()
    worker = threading.Thread(
        target=lambda: bench.runner.process([bench.message(1, "b")])
    )
    try:
        worker.start()
        wait_until(lambda: bench.runner.last_error, "the loss was not noticed")
    finally:
        postgresql.start()
    worker.join(120)
    assert not worker.is_alive()
    assert sorted(bench.effects()) == ["a", "b"]
    assert len(set(published_ids(bench))) == 2
    assert bench.dead_letters() == []


def test_what_the_database_cannot_hold_is_a_dead_letter(make_bench: MakeBench) -> None:
    """PostgreSQL's text knows no NUL: such an id must not end the process."""
    bench = make_bench()
    bench.runner.process([bench.message(0, "a\0b"), bench.message(1, "good")])
    assert bench.effects() == ["good"]
    assert "NUL" in bench.dead_letters()[0]["dead-letter-reason"]


def test_offsets_of_64_bits(make_bench: MakeBench) -> None:
    bench = make_bench()
    far = 2**40
    bench.runner.process([bench.message(far)])
    assert bench.runner.start_offset(TOPIC, 0) == far + 1


def test_times_are_stored_in_utc(make_bench: MakeBench, url: str) -> None:
    """Whatever the server's own zone is; the columns hold none."""
    bench = make_bench()
    with bench.engine.connect() as connection:
        zone = connection.execute(text("SHOW timezone")).scalar()
    assert zone == "UTC"


def test_a_chunk_with_a_bad_message(tmp_path: Path, url: str) -> None:
    def on_rows(
        messages: Sequence[Message], deps: Deps
    ) -> Iterator[Event | DeadLetter]:
        for message in messages:
            if message.value == b"bad":
                yield DeadLetter(message, Reject("not a row"))
            else:
                deps.session.add(Effect(what=message.value.decode()))

    bench = Bench(tmp_path, [Chunk("observation-arrived", on_rows)], url=url)
    bench.runner.process(
        [
            Message("observation-arrived", 0, number, None, value, ())
            for number, value in enumerate([b"x", b"bad"])
        ]
    )
    assert bench.effects() == ["x"]
    assert len(bench.dead_letters()) == 1
    bench.end()


@pytest.mark.parametrize("service", SERVICES)
def test_tables_of_each_service(service: str, url: str) -> None:
    """They are created once, also by replicas that start at once, and found again."""
    app = pytest.importorskip(f"driftloop.{service}.app")
    tables = app.SERVICE.tables
    opened = []
    failures = in_parallel(
        *[lambda: opened.append(open_database(url, tables, service))] * 3
    )
    assert failures == []
    names = set(inspect(opened[0]).get_table_names())
    wanted = {table.__tablename__ for table in (*database.RUNTIME_TABLES, *tables)}
    assert names == wanted | {schema.FORM.name}
    for engine in opened:
        engine.dispose()


@pytest.mark.parametrize("service", SERVICES)
def test_all_steps_make_what_the_code_has(service: str, url: str) -> None:
    """A database of an earlier release comes to the same as a new one."""
    pytest.importorskip(f"driftloop.{service}.app")
    engine = create_engine(url)
    with engine.begin() as connection:
        schema.mark(connection, [])
        schema.bring_up_to_date(connection, service)
        names = names_of_tables("runtime") | names_of_tables(service)
        assert set(inspect(connection).get_table_names()) == names | {schema.FORM.name}
        assert differences(connection, names) == []
        connection.execute(text("ALTER TABLE runtime_inbox ADD COLUMN more INTEGER"))
        assert differences(connection, names)  # and one that does not is noticed
    engine.dispose()


def test_services_do_not_share_a_database(url: str) -> None:
    open_database(url, owner="registry").dispose()
    open_database(url, owner="registry").dispose()
    with pytest.raises(WrongDatabaseError, match="DRIFTLOOP_DEPLOYER_DATABASE_URL"):
        open_database(url, owner="deployer")


def test_a_plain_address_means_our_driver(url: str) -> None:
    engine = open_database(url.replace("postgresql+psycopg:", "postgresql:"))
    assert engine.driver == "psycopg"
    engine.dispose()


def test_a_wrong_password_is_said_and_kept_secret(url: str) -> None:
    with pytest.raises(OperationalError, match="password authentication failed") as got:
        open_database(
            make_url(url).set(password="wrong-secret").render_as_string(False)
        )
    assert "wrong-secret" not in str(got.value)


def test_each_service_finds_its_own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """One URL with a placeholder for all, or one for each; never in a printout."""
    monkeypatch.setenv("DRIFTLOOP_DATABASE_URL", "postgresql://u:pw@db/dl_{service}")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY_DATABASE_URL", "postgresql://u:pw@other/x")
    found = {
        service: load_settings(Settings, service).database_url_for(service)
        for service in ("registry", "deployer")
    }
    assert found == {
        "registry": "postgresql://u:pw@other/x",
        "deployer": "postgresql://u:pw@db/dl_deployer",
    }
    assert "pw" not in repr(load_settings(Settings, "registry"))


def test_time_limits_are_those_of_the_runtime(url: str) -> None:
    """Negative control of the tests that shorten them by the URL."""
    engine = open_database(url)
    started = time.monotonic()
    with engine.connect() as connection:
        shown = connection.execute(text("SHOW lock_timeout")).scalar()
    assert shown == f"{database.LOCK_TIMEOUT_S}s"
    assert time.monotonic() - started < database.CONNECT_TIMEOUT_S
    engine.dispose()
