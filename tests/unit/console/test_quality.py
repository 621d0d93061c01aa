"""What the page shows of the data: findings over time, batches, versions, schemas."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from driftloop.console import datasets, quality, timeline
from driftloop.console.core import Board
from driftloop.console.timeline import Timeline
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.pipeline import Feature, parse_pipeline
from driftloop.contracts.schema import SchemaChange, SchemaColumn

NAME = "bikes"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_pipeline("{name: bikes, task: regression, data: {target: cnt}}")
TEMP = e.RejectReason(
    check="range", field="temp", row_count=6, detail="at most 1", example="24"
)
WHOLE = e.RejectReason(
    check="unique", field="id", row_count=10, detail="no", severity="reject"
)
STUCK = e.BatchWarning(check="stuck", field="hum", row_count=3, detail="the same")
UNKNOWN = e.BatchWarning(
    check="drift", field="hum", verdict="not_enough_data", row_count=3, detail="few"
)


def told(event: Event, name: str, cause: str | None = None, second: int = 0) -> Any:
    at = NOW + timedelta(seconds=second)
    return event.with_meta(Meta(name, at, "/s", Chain("c"), cause))


def batch(
    number: int,
    good: int,
    reasons: list[e.RejectReason] | None = None,
    warnings: list[e.BatchWarning] | None = None,
) -> list[Event]:
    """Return a batch's events, of a day each."""
    start = NOW + timedelta(days=number)
    common: dict[str, Any] = {
        "pipeline": NAME,
        "shard": "city",
        "span": e.Span(start=start, end=start + timedelta(hours=23)),
    }
    end, bad = common["span"].end, sum(r.row_count for r in reasons or [])
    name = f"b{number}"
    ingested = e.BatchIngested(
        row_count=good + bad, duplicate_count=1, late_count=2, out_of_order_count=3,
        revised_count=4, watermark=end, **common,
    )  # fmt: skip
    made = [told(ingested, name, None, number)]
    if good:
        validated = e.BatchValidated(
            row_count=good, quarantined_count=bad, watermark=end,
            warnings=warnings or [], **common,
        )  # fmt: skip
        made.append(told(validated, f"v{number}", name, number))
    if reasons:
        rejected = e.BatchRejected(
            row_count=bad, batch_row_count=good + bad, reasons=reasons, **common
        )
        made.append(told(rejected, f"r{number}", name, number))
    return made


def seen(*events: Event) -> dict[str, Any]:
    board = Board()
    for event in events:
        board.take(event)
    part: dict[str, Any] = board.since(0)["pipelines"][NAME]
    return part


def test_findings_are_told_by_column_check_and_time() -> None:
    """Quarantined before warned of; too little data to tell is no finding."""
    found = seen(
        *batch(0, 10), *batch(1, 4, [TEMP]), *batch(2, 10, None, [STUCK, UNKNOWN]),
        *batch(3, 0, [WHOLE]),
    )["quality"]  # fmt: skip
    by_field = {(f["kind"], f["field"]): f for f in found["findings"]}
    assert list(by_field) == [
        ("quarantine", "id"), ("quarantine", "temp"), ("warning", "hum"),
    ]  # fmt: skip
    temp = by_field["quarantine", "temp"]
    assert (temp["rows"], temp["batches"], temp["rejected"]) == (6, 1, 0)
    assert (temp["detail"], temp["example"]) == ("at most 1", "24")
    assert temp["counts"] == [0, 6, 0, 0]
    assert by_field["quarantine", "id"]["rejected"] == 1
    assert found["rows"] == [10] * 4
    assert found["quarantined"] == [0, 6, 0, 10]
    assert (found["first"][:10], found["last"][:10]) == ("2026-01-01", "2026-01-04")


def test_batches_tell_what_was_found_in_them() -> None:
    found = seen(*batch(0, 10), *batch(1, 4, [TEMP]), *batch(2, 0, [WHOLE]))
    last, middle, first = found["quality"]["batches"]
    assert (first["batch"], first["good"], first["bad"]) == ("b0", 10, 0)
    assert first["found"] == []
    assert (middle["good"], middle["bad"], middle["rejected"]) == (4, 6, False)
    assert middle["found"] == [
        {"kind": "quarantine", "field": "temp", "check": "range", "rows": 6}
    ]
    assert (last["good"], last["bad"], last["rejected"]) == (0, 10, True)


def test_arrival_is_counted() -> None:
    found = seen(*batch(0, 10), *batch(1, 4, [TEMP]))["quality"]["arrival"]
    assert found == {
        "batches": 2, "observations": 20, "duplicates": 2, "late": 4,
        "out_of_order": 6, "revised": 8,
    }  # fmt: skip


def test_it_stays_bounded_and_the_same_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many batches; topics keep their own order and have none together."""
    monkeypatch.setattr(timeline, "MAX_STRETCHES", 5)
    monkeypatch.setattr(quality, "MAX_BATCHES", 3)
    monkeypatch.setattr(quality, "MAX_FOUND_BATCHES", 2)
    events = [
        event
        for number in range(60)
        for event in batch(number, 4, [TEMP] if number % 10 == 1 else None)
    ]
    expected = seen(*events)["quality"]
    assert len(expected["stretches"]) <= 5
    assert sum(expected["findings"][0]["counts"]) == 36
    names = [b["batch"] for b in expected["batches"]]
    assert names == ["b59", "b58", "b57", "b51", "b41"]
    for topics in (
        ["batch-validated", "batch-rejected", "batch-ingested"],
        ["batch-rejected", "batch-ingested", "batch-validated"],
    ):
        shuffled = sorted(events, key=lambda event: topics.index(event.topic()))
        assert seen(*shuffled)["quality"] == expected


def test_many_findings_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MAX_FINDINGS", 3)
    reasons = [TEMP.model_copy(update={"field": f"f{n}"}) for n in range(9)]
    found = seen(*batch(0, 4, reasons))["quality"]["findings"]
    assert sum(one["rows"] for one in found) == 54
    assert ("others", "others") in {(f["field"], f["check"]) for f in found}
    assert len(found) == 4


def test_a_stretch_follows_from_the_data_alone() -> None:
    """And one row of the year 1970 takes one stretch."""
    dice = random.Random(3)
    times = [NOW + timedelta(minutes=dice.randrange(10**6)) for _ in range(500)]
    times.append(datetime(1970, 1, 2, tzinfo=UTC))
    lines = []
    for order in (times, sorted(times), sorted(times, reverse=True)):
        line = Timeline()
        for at in order:
            line.add(at, "rows", 1)
        lines.append((line.width_s, line.starts(), line.counts("rows")))
    assert lines[0] == lines[1] == lines[2]
    width, starts, counts = lines[0]
    assert timeline.MAX_STRETCHES / 2 < len(starts) <= timeline.MAX_STRETCHES
    assert sum(counts) == 501
    assert width % timeline.FIRST_WIDTH_S == 0


def versioned(observations: int, labels: int) -> Event:
    dataset = e.DatasetRef(
        observations=e.TableRef(uri="o", version=observations),
        labels=e.TableRef(uri="l", version=labels) if labels else None,
    )
    event = e.DatasetVersioned(
        pipeline=NAME,
        kind="observations",
        dataset=dataset,
        added_count=1,
        observation_count=observations + 1,
        label_count=labels,
        early_label_count=1,
        span=e.Span(start=NOW, end=NOW),
    )
    return told(event, f"d{observations}.{labels}", None, observations + labels)


def test_the_newest_versions_and_those_of_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "SHOWN_VERSIONS", 2)
    old = versioned(0, 0)
    learned = told(
        e.TrainingStarted(
            pipeline=NAME,
            job_id="j",
            trigger=e.Trigger(event_id="x", event_type="t", reason="first_model"),
            dataset=old.dataset,
            train_span=e.Span(start=NOW, end=NOW),
            holdout_span=e.Span(start=NOW, end=NOW),
        ),
        "t",
    )
    registered = told(
        e.ModelRegistered(
            pipeline=NAME,
            version=7,
            job_id="j",
            package=e.PackageRef(uri="a", digest="a" * 64, signer="k"),
            algorithm="linear",
            evaluation=e.Evaluation(
                metric="mae",
                holdout_span=e.Span(start=NOW, end=NOW),
                holdout_row_count=1,
                candidate=1,
                baseline=2,
                comparison=e.PairedComparison(
                    mean_difference=-1, standard_error=0, row_count=1
                ),
            ),
            gate=[],
        ),
        "m",
    )
    events = [old, *(versioned(n, n) for n in range(1, 5)), learned, registered]
    for order in (events, events[::-1]):
        found = seen(*order)
        shown = [(v["version"], v["models"]) for v in found["datasets"]["shown"]]
        assert shown == [("4.4", []), ("3.3", []), ("0.0", [7])]
        assert found["quality"]["arrival"]["early_labels"] == 5


def proposed(version: int, feature: Feature, *changes: SchemaChange) -> Event:
    return told(
        e.SchemaProposed(
            pipeline=NAME,
            version=version,
            columns={"temp": SchemaColumn(feature=feature)},
            changes=list(changes),
            row_count=40,
        ),
        f"p{version}",
        None,
        version,
    )


def test_a_proposed_schema_waits_until_it_is_accepted() -> None:
    applied = told(
        e.PipelineApplied(pipeline=NAME, spec=SPEC, applied_by="ann"), "applied"
    )
    first = proposed(1, Feature(min=0, max=1))
    waits = seen(applied, first)["proposal"]
    assert (waits["version"], waits["rows"], waits["differences"]) == (1, 40, [])
    assert waits["command"].startswith("driftloop schema accept bikes --version 1")
    accepted = told(
        e.SchemaAccepted(
            pipeline=NAME, version=1, columns=first.columns, accepted_by="ann"
        ),
        "a",
        None,
        2,
    )
    assert seen(applied, first, accepted)["proposal"] is None
    change = SchemaChange(column="temp", kind="type_widened", detail="is wider")
    second = proposed(2, Feature(min=0, max=2), change)
    second = second.with_meta(replace(second.meta, time=NOW + timedelta(seconds=9)))
    waits = seen(second, applied, first, accepted)["proposal"]
    assert waits["differences"] == ["temp: max 1 → 2"]
    assert waits["reasons"] == ["temp is wider"]


def test_a_pipeline_file_that_says_so_settles_a_proposal() -> None:
    text = (
        "{name: bikes, task: regression, "
        "data: {target: cnt, features: {temp: {min: 0, max: %s}}}}"
    )
    second = proposed(2, Feature(min=0, max=2))

    def waiting(top: int) -> Any:
        spec = parse_pipeline(text % top)
        event = e.PipelineApplied(pipeline=NAME, spec=spec, applied_by="ann")
        return seen(told(event, "x"), second)["proposal"]

    assert waiting(1)["differences"] == ["temp: max 1 → 2"]
    assert waiting(2) is None


def test_everything_is_plain_json() -> None:
    text = json.dumps(seen(*batch(1, 4, [TEMP], [STUCK]), versioned(1, 1)))
    assert "at most 1" in text
