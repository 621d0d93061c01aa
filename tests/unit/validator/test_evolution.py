"""A schema is inferred, proposed, accepted; data that leave it get a verdict."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    AlertRaised,
    BatchIngested,
    BatchRejected,
    BatchValidated,
    DatasetVersioned,
    PipelineApplied,
    SchemaAccepted,
    SchemaProposed,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.runtime.database import open_database
from driftloop.runtime.state import StateView
from driftloop.validator.datasets import Datasets
from driftloop.validator.evolution import MAX_NEW_VALUES
from driftloop.validator.handlers import ValidatorDeps, on_batch_ingested
from driftloop.validator.inference import FIRST_ROWS
from driftloop.validator.schemas import AUTOMATIC
from driftloop.validator.tables import TABLES
from sqlmodel import Session

TIME = datetime(2011, 1, 1, tzinfo=UTC)
OPEN = "{name: open, task: regression, data: {target: cnt}}"
DECLARED = (
    "{name: open, task: regression, data: {target: cnt, features: {"
    "count: {type: integer}, sky: {type: category, values: [clear, mist]}, "
    "hum: {nullable: true}, temp: {}}}}"
)
AUTO = "{name: open, task: regression, data: {target: cnt, evolution: accept}}"


class Desk:
    """The handler on a database and a dataset of its own."""

    def __init__(self, path: Path) -> None:
        self.engine = open_database(f"sqlite:///{path}/validator.db", TABLES)
        self.pipelines = StateView(PipelineApplied)
        self.schemas = StateView(SchemaAccepted)
        self.datasets = Datasets(lambda pipeline, kind: str(path / pipeline / kind))
        self.number = 0

    def apply(self, text: str) -> PipelineSpec:
        spec = parse_pipeline(text)
        event = PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann")
        self.pipelines.put(event)
        return spec

    def send(self, count: int = 1, /, **columns: list[object]) -> list[Event]:
        """Handle a batch of new rows; a column's values are repeated to fit."""
        ids = [f"r{self.number + n}" for n in range(count)]
        self.number += count
        given = {
            "id": pa.array(ids),
            "event_time": pa.array([TIME] * count, pa.timestamp("us", "UTC")),
            "source": pa.array(["s"] * count),
        }
        for name, values in columns.items():
            given[name] = pa.array([values[n % len(values)] for n in range(count)])
        meta = Meta("e", TIME, "/i", Chain("c"), None, "batch-ingested", 0, self.number)
        event = BatchIngested(
            pipeline="open",
            shard="s",
            kind="observations",
            row_count=count,
            span=Span(start=TIME, end=TIME),
            watermark=TIME,
        ).with_rows(pa.RecordBatch.from_pydict(given))
        with Session(self.engine) as session:
            deps = ValidatorDeps(
                session=session,
                pipelines=self.pipelines,
                datasets=self.datasets,
                schemas=self.schemas,
            )
            events = list(on_batch_ingested(event.with_meta(meta), deps))
            session.commit()
        return events

    def accept(self, proposed: SchemaProposed) -> None:
        self.schemas.put(
            SchemaAccepted(
                pipeline="open",
                version=proposed.version,
                columns=proposed.columns,
                accepted_by="ann",
            )
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.engine.dispose()


def proposed(events: list[Event]) -> SchemaProposed:
    (found,) = [event for event in events if isinstance(event, SchemaProposed)]
    return found


def told(events: list[Event]) -> list[tuple[str, str]]:
    """Return what the proposals among the events are about."""
    return [
        (change.column, change.kind)
        for event in events
        if isinstance(event, SchemaProposed)
        for change in event.changes
    ]


def rows_of(events: list[Event], kind: type[Event]) -> int:
    return sum(e.rows.num_rows for e in events if isinstance(e, kind))


def first(desk: Desk, text: str = OPEN) -> SchemaProposed:
    """Return the schema that is proposed after the first rows."""
    desk.apply(text)
    few = {"temp": [0.0, 20.0], "sky": ["clear", "mist"], "cnt": [1.0]}
    assert told(desk.send(10, **few)) == []
    return proposed(desk.send(FIRST_ROWS, **few))


def test_a_schema_is_proposed_after_the_first_rows(desk: Desk) -> None:
    found = first(desk)
    assert (found.version, found.changes, found.row_count) == (1, [], FIRST_ROWS + 10)
    assert set(found.columns) == {"temp", "sky"}
    temp = found.columns["temp"]
    assert (temp.feature.min, temp.feature.max, temp.feature.nullable) == (0, 30, False)
    assert temp.profile is not None
    assert temp.profile.spread is not None
    assert found.columns["sky"].feature.values == ["clear", "mist"]
    again = desk.send(10, temp=[1.0], sky=["clear"])
    assert not any(isinstance(event, SchemaProposed) for event in again)


def test_a_schema_holds_from_when_it_is_accepted(desk: Desk) -> None:
    found = first(desk)
    strange = {"temp": [50.0], "sky": ["fog"]}
    assert rows_of(desk.send(2, **strange), BatchValidated) == 2
    desk.accept(found)
    events = desk.send(2, **strange)
    assert rows_of(events, BatchValidated) == 0
    (bad,) = [event for event in events if isinstance(event, BatchRejected)]
    assert [(r.field, r.check) for r in bad.reasons] == [
        ("temp", "range"),
        ("sky", "values"),
    ]


def test_new_values_are_proposed_once_and_pass_once_accepted(desk: Desk) -> None:
    desk.accept(first(desk))
    events = desk.send(3, temp=[1.0], sky=["clear", "fog"])
    assert told(events) == [("sky", "values_added")]
    assert rows_of(events, BatchRejected) == 1
    assert told(desk.send(3, temp=[1.0], sky=["fog"])) == []
    more = desk.send(1, temp=[1.0], sky=["hail"])
    change = proposed(more)
    assert change.version == 3
    assert change.columns["sky"].feature.values == ["clear", "mist", "fog", "hail"]
    desk.accept(change)
    assert rows_of(desk.send(2, temp=[1.0], sky=["fog", "hail"]), BatchValidated) == 2


def test_a_new_column_is_kept_and_proposed(desk: Desk) -> None:
    desk.accept(first(desk))
    events = desk.send(20, temp=[1.0], sky=["mist"], wind=[3.5])
    assert told(events) == [("wind", "new_column")]
    good, version, change = events
    assert isinstance(good, BatchValidated)
    assert good.rows.column("extra")[0].as_py() == '{"wind": 3.5}'
    assert isinstance(change, SchemaProposed)
    assert change.columns["wind"].feature.type == "number"
    assert change.columns["wind"].profile is not None
    assert "kept in extra" in change.changes[0].detail
    desk.accept(change)
    (good, version) = desk.send(1, temp=[1.0], sky=["mist"], wind=[3.5])
    assert isinstance(good, BatchValidated)
    assert good.rows.column("wind").to_pylist() == [3.5]
    assert isinstance(version, DatasetVersioned)


def test_a_missing_column_is_told_once_until_it_comes_again(desk: Desk) -> None:
    desk.apply(DECLARED)
    full = {"count": [1], "sky": ["mist"], "temp": [0.5]}

    def alerts(count: int, /, **columns: list[object]) -> list[str]:
        events = desk.send(count, **columns)
        return [e.detail for e in events if isinstance(e, AlertRaised)]

    assert alerts(19, **full) == []  # hum may be null, and these are few rows
    (detail,) = alerts(20, **full)
    assert "hum does not come any more; it may be null, so the rows go on" in detail
    assert alerts(20, **full) == []
    events = desk.send(20, **full, hum=[0.1])
    assert not [e for e in events if isinstance(e, AlertRaised)]
    (over,) = [e for e in events if isinstance(e, AlertResolved)]
    assert over.condition.startswith("missing_column/hum/")
    assert not [e for e in desk.send(9, **full) if isinstance(e, AlertResolved)]
    assert len(alerts(20, **full)) == 1
    without = {"count": [1], "sky": ["mist"], "hum": [0.1]}
    (detail,) = alerts(1, **without)
    assert "temp does not come any more and may not be null" in detail
    assert rows_of(desk.send(1, **without), BatchRejected) == 1


def test_whole_numbers_that_get_fractions(desk: Desk, tmp_path: Path) -> None:
    """Quarantined and proposed; once the file says so, the dataset is widened."""
    desk.apply(DECLARED)
    right = {"sky": ["mist"], "temp": [0.5], "hum": [0.5]}
    desk.send(2, count=[3], **right)
    events = desk.send(2, count=[1, 2.5], **right)
    assert told(events) == [("count", "type_widened")]
    assert (rows_of(events, BatchValidated), rows_of(events, BatchRejected)) == (1, 1)
    assert proposed(events).columns["count"].feature.type == "number"
    desk.apply(DECLARED.replace("{type: integer}", "{type: number}"))
    events = desk.send(1, count=[2.5], **right)
    assert rows_of(events, BatchValidated) == 1
    table = DeltaTable(tmp_path / "open" / "observations")
    assert sorted(table.to_pyarrow_table()["count"].to_pylist()) == [1, 2.5, 3, 3]
    desk.apply(DECLARED)  # the old file again: its whole numbers fit as numbers
    assert rows_of(desk.send(1, count=[7], **right), BatchValidated) == 1
    old = DeltaTable(tmp_path / "open" / "observations", version=1)
    assert old.to_pyarrow_table()["count"].to_pylist() == [3, 3]


def test_what_is_wrong_is_no_evolution(desk: Desk) -> None:
    """Negative control: text among numbers, a value out of range, a flood of values."""
    desk.apply(DECLARED)
    right = {"sky": ["mist"], "temp": [0.5], "hum": [0.5]}
    assert told(desk.send(2, **right, count=["1", "many"])) == []
    flood = [f"v{n}" for n in range(MAX_NEW_VALUES + 1)]
    assert told(desk.send(30, **(right | {"sky": flood}), count=[1])) == []
    assert told(desk.send(2, **right, count=["1", "2"])) == []


def test_a_declared_pipeline_gets_proposals_for_its_file(desk: Desk) -> None:
    desk.apply(DECLARED)
    right = {"count": [1], "temp": [0.5], "hum": [0.5]}
    extra = ['{"wind": 3.5, "tags": ["a"]}', None]
    one = proposed(desk.send(2, **right, sky=["mist"], extra=extra))
    assert [change.column for change in one.changes] == ["wind", "tags"]
    two = proposed(desk.send(2, **right, sky=["snow"], extra=extra))
    assert two.columns["sky"].feature.values == ["clear", "mist", "snow"]
    assert "wind" in two.columns  # what was proposed before is still proposed
    # an accepted event does not overrule a file that names features
    desk.accept(two)
    assert rows_of(desk.send(1, **right, sky=["snow"]), BatchRejected) == 1


def test_without_a_person_changes_hold_at_once(desk: Desk) -> None:
    desk.apply(AUTO)
    few = {"temp": [0.0, 20.0], "sky": ["clear", "mist"]}
    events = desk.send(FIRST_ROWS, **few)
    assert proposed(events).columns["temp"].feature.max is None
    (accepted,) = [event for event in events if isinstance(event, SchemaAccepted)]
    assert (accepted.version, accepted.accepted_by) == (1, AUTOMATIC)
    events = desk.send(20, temp=[99.0], sky=["fog"], wind=[1.0])
    assert [c for c, _ in told(events)] == ["wind"]
    assert rows_of(events, BatchValidated) == 20
    (good,) = [event for event in events if isinstance(event, BatchValidated)]
    assert good.rows.column("wind").to_pylist() == [1.0] * 20
    assert told(desk.send(20, temp=[1.0], sky=["fog"], wind=[1.0])) == []


def test_evolution_accept_is_for_inferred_schemas() -> None:
    with pytest.raises(ValueError, match="leave evolution out"):
        parse_pipeline(
            "{name: a, task: regression, data: {target: y, evolution: accept, "
            "features: {x: {}}}}"
        )


PRIVATE = (
    "{name: open, task: regression, data: {target: cnt, features: {"
    "sky: {type: category, values: [clear]}, city: {type: category, values: [x]}}, "
    "privacy: {phone: {action: mask, keep_last: 2}, city: hash}}}"
)


def test_values_of_private_columns_are_in_no_proposal(desk: Desk) -> None:
    """Nor the word that ingest puts in place of others; the control is proposed."""
    desk.apply(PRIVATE)
    treated = {"phone": ["***17", "***99"], "city": ["0f1e2d"], "cnt": [1.0]}
    told = desk.send(40, sky=["clear", "[redacted]"], **treated)
    assert not [x for x in told if isinstance(x, SchemaProposed)]
    told = desk.send(40, sky=["clear", "mist", "[redacted]"], other=["a"], **treated)
    (proposed,) = [x for x in told if isinstance(x, SchemaProposed)]
    assert proposed.columns["sky"].feature.values == ["clear", "mist"]
    assert set(proposed.columns) == {"sky", "city", "other"}
    assert "***" not in proposed.model_dump_json()
    assert "0f1e2d" not in proposed.model_dump_json()
