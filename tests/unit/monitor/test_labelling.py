"""Which rows people are asked to label, once a window, and when they leave."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchScored,
    BatchValidated,
    LabelsWanted,
    PipelineApplied,
    Span,
    WantedLabel,
)
from driftloop.contracts.pipeline import PipelineFileError, PipelineSpec, parse_pipeline
from driftloop.contracts.topics import BY_NAME
from driftloop.models.pairing import CLASSES_METADATA_KEY
from driftloop.monitor.labelling import queue
from driftloop.monitor.labelling.api import labels_router, queue_page
from driftloop.monitor.settings import MonitorSettings
from driftloop.monitor.tables import TABLES, MonitorWanted
from driftloop.monitor.turn import Packaged
from driftloop.runtime.database import open_database
from driftloop.runtime.http import http_app
from driftloop.runtime.state import StateView
from pydantic import SecretStr
from sqlmodel import Session, select

from tests.unit.monitor.story import EVALUATION, ROWS, InProcess, Shop, day, spec
from tests.unit.support import HttpClient

WINDOW_DAYS = 7
BUDGET = 10


def asking(**labelling: Any) -> PipelineSpec:
    content = spec().model_dump(exclude_defaults=True)
    content["labelling"] = {"budget_rows": BUDGET} | labelling
    return PipelineSpec.model_validate(content)


def monitor_of(shop: Shop, file: PipelineSpec) -> InProcess:
    found = InProcess(file, lambda _: Packaged(EVALUATION, shop.sample()))
    found.take(shop.deployed())
    return found


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def monitor(shop: Shop) -> Iterator[InProcess]:
    found = monitor_of(shop, asking())
    yield found
    found.close()


def unlabelled(shop: Shop, days: range, **columns: Any) -> Iterator[Event]:
    for number in days:
        yield shop.observed(number, **columns)
        yield shop.scored(number)


def ids_of(event: LabelsWanted) -> list[str]:
    return [wanted.row_id for wanted in event.wanted]


def waiting(monitor: InProcess, limit: int = 1000) -> list[str]:
    page = queue_page(monitor.session, "shop", timedelta(days=90), limit, None)
    return [row.row_id for row in page.items]


def test_a_window_of_scored_rows_is_asked_for_once(
    monitor: InProcess, shop: Shop
) -> None:
    """One event for each window, with rows of that window, each row once."""
    told = monitor.take_all(unlabelled(shop, range(WINDOW_DAYS - 1)))
    assert not [e for e in told if isinstance(e, LabelsWanted)]
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS - 1, 3 * WINDOW_DAYS)))
    events = monitor.of(LabelsWanted)
    assert [event.window for event in events] == [1, 2, 3]
    for number, event in enumerate(events):
        assert event.candidate_count == WINDOW_DAYS * ROWS
        assert len(event.wanted) == BUDGET
        first = day(number * WINDOW_DAYS)
        last = first + timedelta(days=WINDOW_DAYS)
        assert all(first <= wanted.event_time < last for wanted in event.wanted)
        assert event.span.start == first
    asked = [row_id for event in events for row_id in ids_of(event)]
    assert len(set(asked)) == len(asked)
    assert set(waiting(monitor)) == set(asked)


def test_without_a_budget_nothing_is_asked(shop: Shop) -> None:
    monitor = monitor_of(shop, spec())
    monitor.take_all(unlabelled(shop, range(2 * WINDOW_DAYS)))
    assert monitor.of(LabelsWanted) == []
    assert monitor.session.exec(select(MonitorWanted)).all() == []
    monitor.close()


def test_rows_scored_before_their_inputs_came_wait_for_them(
    monitor: InProcess, shop: Shop
) -> None:
    """The scorer may be ahead of the monitor's other topic."""
    for number in range(WINDOW_DAYS):
        monitor.take(shop.scored(number))
    assert monitor.of(LabelsWanted) == []
    for number in range(WINDOW_DAYS):
        monitor.take(shop.observed(number))
    (event,) = monitor.of(LabelsWanted)
    assert event.candidate_count == WINDOW_DAYS * ROWS


def test_rows_with_a_label_are_not_asked_for(monitor: InProcess, shop: Shop) -> None:
    """Negative control: the same days without labels are all candidates (above)."""
    monitor.take_all(shop.usual(range(WINDOW_DAYS - 1)))
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS - 1, WINDOW_DAYS)))
    (event,) = monitor.of(LabelsWanted)
    assert event.candidate_count == ROWS
    assert all(i.startswith(f"{WINDOW_DAYS - 1}-") for i in ids_of(event))


def test_a_window_of_labelled_rows_asks_for_none(
    monitor: InProcess, shop: Shop
) -> None:
    """Labels that came before the window closed leave nobody to ask for."""
    for number in range(WINDOW_DAYS):
        monitor.take(shop.labelled(number))
        monitor.take(shop.observed(number))
        monitor.take(shop.scored(number))
    assert monitor.of(LabelsWanted) == []


def test_a_label_takes_its_row_out(monitor: InProcess, shop: Shop) -> None:
    """The labelled row leaves, the others stay, and it is never asked for again."""
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS)))
    (event,) = monitor.of(LabelsWanted)
    number = ids_of(event)[0].split("-")[0]
    gone = {i for i in ids_of(event) if i.startswith(f"{number}-")}
    assert 0 < len(gone) < BUDGET
    monitor.take(shop.labelled(int(number)))
    assert set(waiting(monitor)) == set(ids_of(event)) - gone
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS)))  # corrections: scored anew
    asked = [row_id for e in monitor.of(LabelsWanted) for row_id in ids_of(e)]
    assert len(monitor.of(LabelsWanted)) == 2
    assert len(set(asked)) == len(asked)


def test_rows_beyond_the_horizon_expire(shop: Shop) -> None:
    """In event time, at once in what people see, and later in the table, too."""
    file = asking()
    short = file.data.model_copy(update={"label_horizon_days": 10})
    monitor = monitor_of(shop, file.model_copy(update={"data": short}))
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS)))
    horizon = timedelta(days=10)

    def seen() -> set[str]:
        page = queue_page(monitor.session, "shop", horizon, 1000, None)
        assert page.waiting_count == len(page.items)
        return {row.row_id for row in page.items}

    assert len(seen()) == BUDGET
    monitor.take(shop.observed(13))  # until 23:00 of the 14th day
    left = {i for i in ids_of(monitor.of(LabelsWanted)[0]) if int(i.split("-")[0]) > 3}
    assert 0 < len(left) < BUDGET
    assert seen() <= left | {i for i in seen() if i.startswith("3-23")}
    monitor.take(shop.observed(30))
    assert seen() == set()
    assert monitor.session.exec(select(MonitorWanted)).all() == []
    monitor.close()


def test_rows_of_a_broken_sensor_are_not_asked_for(
    monitor: InProcess, shop: Shop
) -> None:
    """Values that jumped teach a fault; people would label it."""
    monitor.take_all(unlabelled(shop, range(WINDOW_DAYS - 1)))
    number = WINDOW_DAYS - 1
    slipped = shop.size(number) * 41
    monitor.take_all(unlabelled(shop, range(number, number + 1), size=slipped))
    (event,) = monitor.of(LabelsWanted)
    assert not [i for i in ids_of(event) if i.startswith(f"{number}-")]


def test_random_draws_are_the_same_each_time_and_other_rows(shop: Shop) -> None:
    def story(strategy: str) -> LabelsWanted:
        monitor = monitor_of(shop, asking(strategy=strategy))
        monitor.take_all(unlabelled(shop, range(WINDOW_DAYS)))
        (event,) = monitor.of(LabelsWanted)
        monitor.close()
        return event

    assert story("random") == story("random")
    assert story("informative") == story("informative")
    assert set(ids_of(story("random"))) != set(ids_of(story("informative")))
    assert story("random").wanted[0].reasons == ["drawn at random"]


def test_no_value_of_a_row_is_told(shop: Shop) -> None:
    """A marker in the rows is in no event; the marker is found where it was put."""
    marker = "Ada Lovelace"
    monitor = monitor_of(shop, asking())
    colours = [marker] * ROWS
    for number in range(WINDOW_DAYS):
        monitor.take(shop.observed(number, colour=colours))
        monitor.take(shop.scored(number))
    (event,) = monitor.of(LabelsWanted)
    assert marker not in event.model_dump_json()
    assert "colour" in event.drifted
    assert marker in str(shop.observed(0, colour=colours).rows.to_pylist())
    monitor.close()


def test_pages_hold_while_rows_leave(monitor: InProcess, shop: Shop) -> None:
    """Newest window first, best row first; a cursor skips and repeats nothing."""
    monitor.take_all(unlabelled(shop, range(2 * WINDOW_DAYS)))
    first, second = (ids_of(event) for event in monitor.of(LabelsWanted))
    ninety = timedelta(days=90)
    page = queue_page(monitor.session, "shop", ninety, 6, None)
    assert [row.row_id for row in page.items] == second[:6]
    assert page.waiting_count == 2 * BUDGET
    queue.settle(monitor.session, "shop", [second[0], second[7]])
    rest = queue_page(monitor.session, "shop", ninety, 100, page.next_cursor)
    wanted = [i for i in second[6:] if i != second[7]]
    assert [row.row_id for row in rest.items] == [*wanted, *first]
    assert rest.next_cursor is None
    assert queue_page(monitor.session, "nobody", ninety, 6, None).items == []


def test_example_reads_as_an_event() -> None:
    assert BY_NAME["labels-wanted"].event is LabelsWanted
    assert BY_NAME["labels-wanted"].producers == ("monitor",)


@pytest.mark.parametrize(
    ("labelling", "said"),
    [
        ("{budget_rows: 0}", "labelling.budget_rows"),
        ("{budget_rows: 5000}", "labelling.budget_rows"),
        ("{budget: 5}", "did you mean 'budget_rows'"),
        ("{strategy: best}", "labelling.strategy"),
    ],
)
def test_wrong_sections_are_refused_by_name(labelling: str, said: str) -> None:
    file = "{{name: a, task: binary, data: {{target: y}}, labelling: {}}}"
    with pytest.raises(PipelineFileError, match=said):
        parse_pipeline(file.format(labelling))
    assert parse_pipeline(file.format("{budget_rows: 5}")).labelling.budget_rows == 5


def test_rows_that_nobody_can_find_are_not_asked_for() -> None:
    """Negative control: tokens can be read, so they may be asked for."""
    file = (
        "{{name: a, task: binary, data: {{target: y, features: {{x: {{}}}}, "
        "privacy: {{id: {}}}}}, labelling: {{budget_rows: 5}}}}"
    )
    with pytest.raises(PipelineFileError, match=r"privacy\.id to tokenise"):
        parse_pipeline(file.format("hash"))
    assert parse_pipeline(file.format("tokenise")).labelling.budget_rows == 5


# ── classes ─────────────────────────────────────────────────────────────────


def scored_classes(shop: Shop, number: int) -> BatchScored:
    """Sure of every row but the ones around noon."""
    hours = np.arange(ROWS)
    shares = np.where(np.abs(hours - 12) <= 2, 0.5 + (hours - 12) * 0.02, 0.98)
    field = pa.field(
        "champion_score",
        pa.float64(),
        metadata={CLASSES_METADATA_KEY: json.dumps(["no", "yes"]).encode()},
    )
    rows = shop.rows(number, {"champion_prediction": ["yes"] * ROWS})
    rows = pa.RecordBatch.from_arrays(
        [*rows.columns, pa.array(shares)], schema=rows.schema.append(field)
    )
    return BatchScored(
        pipeline=shop.name, shard="till", row_count=ROWS, champion_version=1,
        span=Span(start=day(number), end=day(number) + timedelta(hours=23)),
        duration_seconds=0.1,
    ).with_rows(rows)  # fmt: skip


def test_of_classes_the_unsure_rows_are_wanted(shop: Shop) -> None:
    """Negative control: by diversity alone the model's doubts do not matter."""
    found = {}
    for strategy in ("informative", "uncertainty", "diversity"):
        file = asking(strategy=strategy).model_copy(update={"task": "binary"})
        monitor = monitor_of(shop, file)
        for number in range(WINDOW_DAYS):
            monitor.take(shop.observed(number))
            monitor.take(scored_classes(shop, number))
        (event,) = monitor.of(LabelsWanted)
        monitor.close()
        hours = [int(row_id.split("-")[1]) for row_id in ids_of(event)]
        found[strategy] = sum(abs(hour - 12) <= 2 for hour in hours)
        if strategy == "uncertainty":
            margins = [1 - wanted.score for wanted in event.wanted]
            assert all(a <= b for a, b in itertools.pairwise(margins))
            assert "the model hesitates" in event.wanted[0].reasons[0]
    assert found["uncertainty"] == BUDGET
    assert found["informative"] > BUDGET // 2 > found["diversity"]


def test_drifted_rows_are_wanted_first(shop: Shop) -> None:
    """Rows beyond what was learned from, in a feature that drifted; they say so."""
    half = ROWS // 2
    heavy = np.append(np.linspace(50, 89, half), np.linspace(91, 130, half))

    def story(weight: float) -> tuple[LabelsWanted, set[str]]:
        file = asking(strategy="uncertainty", drift_weight=weight)
        monitor = monitor_of(shop, file.model_copy(update={"task": "binary"}))
        for number in range(WINDOW_DAYS):
            monitor.take(shop.observed(number, weight=heavy))
            monitor.take(scored_classes(shop, number))
        (event,) = monitor.of(LabelsWanted)
        monitor.close()
        told = {
            wanted.row_id
            for wanted in event.wanted
            if any("in weight, which drifted" in reason for reason in wanted.reasons)
        }
        return event, told

    event, told = story(5.0)
    assert event.drifted == ["weight"]
    assert {i for i in ids_of(event) if int(i.split("-")[1]) >= half} == told
    assert told == set(ids_of(event))
    assert len(story(0.0)[1]) < BUDGET  # negative control: drift does not matter


def test_near_duplicates_are_asked_for_once(shop: Shop) -> None:
    """Rows that are all the same give one row; so do those like one that waits."""
    file = asking()
    monitor = monitor_of(shop, file)
    alike = {"size": np.full(ROWS, 30.0), "weight": np.full(ROWS, 60.0)}
    same: dict[str, Any] = alike | {"colour": ["red"] * ROWS}
    for number in range(2 * WINDOW_DAYS):
        event: BatchValidated = shop.observed(number, **same)
        monitor.take(event)
        monitor.take(shop.scored(number))
    first, *more = monitor.of(LabelsWanted)
    assert len(first.wanted) == 1
    assert all(len(event.wanted) == 1 for event in more)
    monitor.close()


# ── HTTP ────────────────────────────────────────────────────────────────────


def test_the_queue_over_http(tmp_path: Path) -> None:
    """Paged, only with the token, in the OpenAPI document; unknown names are 404."""
    file = asking()
    engine = open_database(f"sqlite:///{tmp_path}/monitor.db", TABLES)
    wanted = [
        WantedLabel(row_id=f"r{n}", event_time=day(n), score=1 / n, reasons=["why"])
        for n in (1, 2, 3)
    ]
    event = LabelsWanted(
        pipeline="shop", window=1, span=Span(start=day(1), end=day(3)),
        candidate_count=3, strategy="informative", model_version=4, wanted=wanted,
    )  # fmt: skip
    with Session(engine) as session:
        queue.add(session, event)
        session.commit()
    applied = PipelineApplied(pipeline="shop", spec=file, applied_by="ada")
    view = StateView(PipelineApplied, {"shop": applied})
    settings = MonitorSettings(home=tmp_path, api_token=SecretStr("t"))
    app = http_app("monitor", settings, dict)
    app.include_router(labels_router(engine, view))
    url = "/v1/pipelines/shop/labels-wanted"
    client = HttpClient(app, {"Authorization": "Bearer t"})
    first = client.get(f"{url}?limit=2").json()
    assert first["waiting_count"] == 3
    assert first["items"][0] == {
        "row_id": "r1", "event_time": "2024-01-02T00:00:00Z", "score": 1.0,
        "reasons": ["why"], "window": 1, "model_version": 4,
    }  # fmt: skip
    rest = client.get(f"{url}?cursor={first['next_cursor']}").json()
    assert [row["row_id"] for row in rest["items"]] == ["r3"]
    assert rest["next_cursor"] is None
    assert client.get(f"{url}?limit=0").status_code == 422
    assert client.get(url.replace("shop", "bikes")).status_code == 404
    assert HttpClient(app).get(url).status_code == 401
    path = app.openapi()["paths"]["/v1/pipelines/{name}/labels-wanted"]["get"]
    assert {p["name"] for p in path["parameters"]} == {"name", "limit", "cursor"}
    assert path["security"]
    engine.dispose()
