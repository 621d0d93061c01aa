"""A batch becomes validated rows, quarantined rows and a dataset version."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.contracts.base import Chain, Event, Meta, derived_id
from driftloop.contracts.events import (
    BatchIngested,
    BatchRejected,
    BatchValidated,
    DatasetVersioned,
    PipelineApplied,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.contracts.topics import consumed_by
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from driftloop.validator.datasets import Datasets
from driftloop.validator.handlers import HANDLERS, ValidatorDeps, on_batch_ingested
from driftloop.validator.reference import Reference
from driftloop.validator.tables import TABLES, ReferenceRow
from sqlmodel import Session, select

DECLARED = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, features: "
    "{temp: {min: 0, max: 1}}}}"
)
CHECKED = parse_pipeline(
    "{name: checked, task: regression, data: {target: cnt, reference_rows: 100, "
    "features: {temp: {}}}, checks: [{check: row_count, min: 2}, "
    "{check: unique, columns: [temp, cnt]}, {check: unit_slip}, "
    "{function: 'bikes.checks:daily_total', severity: warn}]}"
)
OPEN = parse_pipeline("{name: open, task: regression, data: {target: cnt}}")
TIME = datetime(2011, 1, 1, tzinfo=UTC)


class Bench:
    """The handler with a database that can lose what was not committed."""

    def __init__(
        self, path: Path, *specs: PipelineSpec, url: str | None = None, partition=0
    ) -> None:
        self.path, self.partition = path, partition
        url = url or f"sqlite:///{path}/validator.db"
        self.engine = open_database(url, TABLES)
        applied = {
            spec.name: PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann")
            for spec in specs
        }
        self.pipelines = StateView(PipelineApplied, applied)
        self.offset = -1
        self.recorded = Recorded()

    def deps(self, session: Session) -> ValidatorDeps:
        datasets = Datasets(lambda pipeline, kind: str(self.path / pipeline / kind))
        return ValidatorDeps(
            session=session,
            pipelines=self.pipelines,
            datasets=datasets,
            recorded=self.recorded,
        )

    def handle(self, event: BatchIngested, *, killed: bool = False) -> list[Event]:
        """Handle one message; ``killed``: the process ends before the commit."""
        if not killed:
            self.offset += 1
        offset = self.offset + killed
        meta = Meta(
            "e", TIME, "/ingest", Chain("c"), None,
            "batch-ingested", self.partition, offset,
        )  # fmt: skip
        with Session(self.engine) as session:
            events = list(on_batch_ingested(event.with_meta(meta), self.deps(session)))
            if not killed:
                session.commit()
        return events


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, DECLARED, OPEN, CHECKED)
    yield bench
    bench.engine.dispose()


def ingested(
    ids: str, kind: str = "observations", pipeline: str = "bikes", **columns: object
) -> BatchIngested:
    names = list(ids)
    given = {
        "id": pa.array(names),
        "event_time": pa.array([TIME] * len(names), pa.timestamp("us", "UTC")),
        "source": pa.array(["s"] * len(names)),
    }
    given |= {name: pa.array(values) for name, values in columns.items()}
    return BatchIngested(
        pipeline=pipeline,
        shard="s",
        kind=kind,
        row_count=len(names),
        span=Span(start=TIME, end=TIME),
        watermark=TIME,
    ).with_rows(pa.RecordBatch.from_pydict(given))


def dataset(events: list[Event]) -> DatasetVersioned:
    (found,) = [event for event in events if isinstance(event, DatasetVersioned)]
    return found


def test_handlers_are_those_of_the_topic_table() -> None:
    table = handler_table(HANDLERS)
    assert set(table.topics) == {topic.name for topic in consumed_by("validator")}


def test_good_rows_go_on_and_are_a_version(bench: Bench) -> None:
    events = bench.handle(ingested("ab", temp=[0.1, 0.2], cnt=[None, 3.0]))
    assert [type(e) for e in events] == [BatchValidated, DatasetVersioned]
    version = dataset(events)
    assert (version.added_count, version.observation_count, version.label_count) == (
        2, 2, 1,
    )  # fmt: skip
    ref = version.dataset.observations
    table = DeltaTable(ref.uri, version=ref.version).to_pyarrow_table()
    assert table.column("temp").to_pylist() == [0.1, 0.2]


def test_bad_rows_are_quarantined_and_the_others_go_on(bench: Bench) -> None:
    events = bench.handle(ingested("abc", temp=["0.1", "warm", "40"]))
    good, bad, _ = events
    assert isinstance(good, BatchValidated)
    assert isinstance(bad, BatchRejected)
    assert good.rows.column("id").to_pylist() == ["a"]
    assert good.quarantined_count == 2
    assert bad.rows.column("reason").to_pylist() == [
        "temp: type (warm)",
        "temp: range (40)",
    ]
    assert (bad.row_count, bad.batch_row_count) == (2, 3)


@pytest.mark.parametrize("was_judged", [False, True])
def test_a_batch_that_was_judged_before_has_its_verdict(
    bench: Bench, was_judged: bool
) -> None:
    """With a database that is lost since; what the batch teaches is learned anew."""
    name = derived_id("e", "batch-rejected", 0)
    headers = (("ce_id", name.encode()), ("ce_source", b"/driftloop/validator"))
    told = Message("batch-rejected", 0, 0, b"bikes", b"rows", headers)
    bench.recorded = Recorded("/driftloop/validator", [BatchRejected])
    if was_judged:
        bench.recorded.add(told, FolderStore(bench.path / "store"))
    events = bench.handle(ingested("ab", temp=[0.5, 0.6]))
    assert any(isinstance(e, BatchValidated) for e in events) is not was_judged
    assert dataset(events).observation_count == 2


def test_a_batch_without_a_good_row_is_no_version(bench: Bench) -> None:
    (event,) = bench.handle(ingested("ab", temp=[40.0, 41.0]))
    assert isinstance(event, BatchRejected)


def test_a_quarantined_row_can_be_corrected_and_a_good_one_cannot(bench: Bench) -> None:
    bench.handle(ingested("ab", temp=[40.0, 0.2]))
    good, bad, version = bench.handle(ingested("ab", temp=[0.4, 0.9]))
    assert good.rows.column("id").to_pylist() == ["a"]
    assert isinstance(bad, BatchRejected)
    assert [(r.check, r.field) for r in bad.reasons] == [("duplicate", "id")]
    assert isinstance(version, DatasetVersioned)
    assert version.observation_count == 2


def test_rows_with_a_known_target_are_counted_once(bench: Bench) -> None:
    """Whether it came with the row, later, before, twice, or without a row."""

    def counts(event: BatchIngested) -> tuple[int, int, int, int]:
        version = dataset(bench.handle(event))
        return (
            version.observation_count, version.label_count,
            version.early_label_count, version.met_label_count,
        )  # fmt: skip

    three = ingested("abc", temp=[0.1] * 3, cnt=[1.0, None, None])
    assert counts(ingested("z", "labels", cnt=[1.0])) == (0, 0, 1, 0)
    assert counts(three) == (3, 1, 0, 0)
    assert counts(ingested("ab", "labels", cnt=[1.0, 2.0])) == (3, 2, 0, 0)
    assert counts(ingested("b", "labels", cnt=[3.0], revision=[1])) == (3, 2, 0, 0)
    assert counts(ingested("z", temp=[0.1])) == (4, 3, 0, 1)


def test_killed_between_append_and_commit_nothing_is_there_twice(bench: Bench) -> None:
    bench.handle(ingested("a", temp=[0.1]))
    event = ingested("bc", temp=[0.1, 7.0])
    first = bench.handle(event, killed=True)
    second = bench.handle(event)
    assert second == first
    assert [e.rows for e in second[:2]] == [e.rows for e in first[:2]]
    uri = dataset(second).dataset.observations.uri
    table = DeltaTable(uri).to_pyarrow_table()
    assert sorted(table.column("id").to_pylist()) == ["a", "b"]


def test_killed_at_the_very_first_batch(bench: Bench) -> None:
    event = ingested("ab", pipeline="open", x=[1, 2], sky=["a", "b"])
    assert bench.handle(event, killed=True) == bench.handle(event)


def test_a_contract_is_inferred_and_then_holds(bench: Bench) -> None:
    bench.handle(ingested("a", pipeline="open", x=["1"], sky=["mist"]))
    good, bad, version = bench.handle(
        ingested("bcd", pipeline="open", x=["2", "many", None], new=[1, 2, 3])
    )
    assert isinstance(good, BatchValidated)
    assert isinstance(bad, BatchRejected)
    assert isinstance(version, DatasetVersioned)
    schema = good.rows.schema
    assert schema.field("x").type == pa.float64()
    assert schema.field("sky").type == pa.string()
    assert good.rows.column("id").to_pylist() == ["b", "d"]
    assert good.rows.column("new").to_pylist() == [1.0, 3.0]
    ref = version.dataset.observations
    table = DeltaTable(ref.uri, version=ref.version).to_pyarrow_table()
    assert table.sort_by("id").column("new").to_pylist() == [None, 1.0, 3.0]


# ── checks ──────────────────────────────────────────────────────────────────


def steps(count: int, start: int = 0) -> tuple[list[str], list[float]]:
    numbers = range(start, start + count)
    return [f"r{n}" for n in numbers], [10 + (7 * n % 40) / 10 for n in numbers]


def checked_batch(ids: list[str], temp: list[float], **more: object) -> BatchIngested:
    return ingested(ids, pipeline="checked", temp=temp, **more)  # type: ignore[arg-type]


def warned(events: list[Event]) -> list[str]:
    return [
        w.check for w in getattr(events[0], "warnings", []) if w.check != "function"
    ]


def references(bench: Bench) -> list[tuple[str | None, int]]:
    with Session(bench.engine) as session:
        return [
            (row.profile, len(row.rows)) for row in session.exec(select(ReferenceRow))
        ]


def test_a_finding_travels_with_the_rows_that_go_on(bench: Bench) -> None:
    (good, _) = bench.handle(checked_batch(*steps(30)))
    (warning,) = good.warnings
    assert (warning.check, warning.row_count) == ("function", 30)
    assert "DRIFTLOOP_VALIDATOR_CHECK_MODULES" in warning.detail


def test_a_rejected_batch_is_no_version_and_has_its_warnings(bench: Bench) -> None:
    (event,) = bench.handle(checked_batch(["a"], [10.0]))
    assert isinstance(event, BatchRejected)
    assert [(r.check, r.severity) for r in event.reasons] == [("row_count", "reject")]
    assert [w.check for w in event.warnings] == ["function"]


def test_a_reference_is_taken_once_and_used_after_a_restart(
    bench: Bench, tmp_path: Path
) -> None:
    ids, values = steps(150)
    assert warned(bench.handle(checked_batch(ids[:60], values[:60]))) == []
    before = references(bench)
    assert before[0][0] is None
    bench.handle(checked_batch(ids[60:], values[60:]), killed=True)
    assert references(bench) == before
    bench.handle(checked_batch(ids[60:], values[60:]))
    ((profile, left),) = references(bench)
    assert profile is not None
    assert left == 0
    assert Reference.model_validate_json(profile).row_count == 100
    bench.engine.dispose()
    again = Bench(tmp_path, CHECKED)
    again.offset = bench.offset
    ids, values = steps(30, start=150)
    slipped = [value * 100 for value in values]
    assert warned(again.handle(checked_batch(ids, slipped))) == ["unit_slip"]
    assert references(again) == [(profile, 0)]
    again.engine.dispose()


def test_a_changed_file_takes_the_reference_anew(bench: Bench) -> None:
    bench.handle(checked_batch(*steps(120)))
    assert references(bench)[0][0] is not None
    data = CHECKED.data.model_copy(update={"reference_rows": 200})
    spec = CHECKED.model_copy(update={"data": data})
    applied = PipelineApplied(pipeline="checked", spec=spec, applied_by="ann")
    bench.pipelines = StateView(PipelineApplied, {"checked": applied})
    bench.handle(checked_batch(*steps(30, start=120)))
    assert references(bench)[0][0] is None


def test_keys_are_unique_in_the_whole_dataset(bench: Bench) -> None:
    spec = parse_pipeline(
        "{name: bikes, task: regression, data: {target: cnt, features: {temp: {}, "
        "plate: {type: category, nullable: true}}}, "
        "checks: [{check: unique, columns: [plate]}]}"
    )
    applied = PipelineApplied(pipeline="bikes", spec=spec, applied_by="ann")
    bench.pipelines = StateView(PipelineApplied, {"bikes": applied})
    first = ingested("abcd", temp=[1.0] * 4, plate=["x", "y", "x", None])
    good, bad, version = bench.handle(first, killed=True)
    assert bench.handle(first) == [good, bad, version]
    assert good.rows.column("id").to_pylist() == ["a", "b", "d"]
    assert version.observation_count == 3
    good, bad, version = bench.handle(
        ingested("efg", temp=[1.0] * 3, plate=["y", "z", None])
    )
    assert bad.rows.column("id").to_pylist() == ["e"]
    assert bad.rows.column("reason").to_pylist() == ["plate: unique (y)"]
    assert version.observation_count == 5
