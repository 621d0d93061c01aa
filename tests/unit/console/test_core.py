"""The board shows the same whatever order the topics came in, and stays bounded."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from driftloop.console import core, standing
from driftloop.console.core import DECISIONS, Board, DeadLetter
from driftloop.contracts import alerts as a
from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.estimates import PerformanceEstimated, PerformanceSettled
from driftloop.contracts.identity import AuditAnchored, AuditNoted, TokenChanged
from driftloop.contracts.topics import TOPICS, produced_by

from tests.component import console_story
from tests.component.console_story import NAME, Story
from tests.unit.console.boards import board_of

WALL = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def story() -> list[Event]:
    return list(Story(WALL).events())


def shown(board: Board) -> str:
    state = board.since(0)
    del state["revision"]
    return json.dumps(state, sort_keys=True)


def test_order_of_topics_does_not_matter(story: list[Event]) -> None:
    """Each topic keeps its order, topics among each other have none."""
    expected = shown(board_of(story))
    for seed in range(3):
        dice = random.Random(seed)
        places = {topic.name: dice.random() for topic in TOPICS}
        shuffled = sorted(story, key=lambda event: places[event.topic()])
        assert shown(board_of(shuffled)) == expected


def test_a_repeated_decision_changes_nothing(story: list[Event]) -> None:
    repeated = [event for event in story if type(event) in DECISIONS]
    assert shown(board_of(story + repeated)) == shown(board_of(story))


def test_a_repeat_of_rows_is_not_counted_twice(story: list[Event]) -> None:
    """The log may hold a record twice; its copy comes soon after it."""
    twice = [event for event in story for _ in range(2)]
    assert shown(board_of(twice)) == shown(board_of(story))


def test_what_goes_on_is_told_and_what_is_over_is_not(story: list[Event]) -> None:
    whole = board_of(story).since(0)["pipelines"][NAME]
    assert [alert["condition"] for alert in whole["alerts"]] == [
        "estimate:v3", "fault/temp",
    ]  # fmt: skip
    windows = whole["windows"]
    newest, first = windows["shown"][-1], windows["shown"][0]
    assert (newest["verdict"], newest["measured"]) == ("degrading", None)
    assert first["measured"]["value"] == pytest.approx(first["estimate"]["value"] - 1.2)
    assert windows["labels"]["state"] == "awaited"
    assert windows["score"]["coverage"] == 0.94
    verdict = whole["verdict"]
    assert (verdict["confidence"], verdict["overruled"]) == (0.83, None)
    assert [one["signal"] for one in verdict["evidence"]] == ["error", "feature:hour"]


def told(event: Event, minutes: float, event_id: str) -> Event:
    at = WALL + timedelta(minutes=minutes)
    return event.with_meta(Meta(event_id, at, "/s", Chain("c")))


def raised(condition: str = "estimate:v1", *, can_end: bool = True) -> e.AlertRaised:
    return e.AlertRaised(
        pipeline="a", condition=condition, severity="warning", title="worse",
        detail="much", can_end=can_end,
    )  # fmt: skip


def over(condition: str = "estimate:v1") -> a.AlertResolved:
    return a.AlertResolved(pipeline="a", condition=condition, at=WALL, why="well")


def conditions(events: list[Event]) -> list[str]:
    board = board_of(events)
    return [x["condition"] for x in board.since(0)["pipelines"]["a"]["alerts"]]


def test_an_alert_goes_on_until_it_is_over() -> None:
    begun, again = told(raised(), 0, "1"), told(raised(), 1, "2")
    other = told(raised("labels_late"), 2, "3")
    assert conditions([begun, again, other]) == ["labels_late", "estimate:v1"]
    assert conditions([begun, again, other, told(over(), 3, "4")]) == ["labels_late"]
    returned = [begun, told(over(), 3, "4"), told(raised(), 4, "5")]
    assert conditions(returned) == ["estimate:v1"]
    seen = told(
        a.AlertAcknowledged(
            pipeline="a", alert_id="1", condition="estimate:v1", by="ada"
        ),
        2,
        "6",
    )
    (shown_,) = board_of([begun, again, seen]).since(0)["pipelines"]["a"]["alerts"]
    assert (shown_["times"], shown_["seen_by"]) == (2, "ada")


def test_an_alert_that_nothing_ends_is_open_for_a_week() -> None:
    day = 24 * 60
    begun = told(raised("training-failed/1", can_end=False), 0, "1")
    later = [told(raised(), minutes, "2") for minutes in (7 * day - 1, 7 * day)]
    assert "training-failed/1" in conditions([begun, later[0]])
    assert "training-failed/1" not in conditions([begun, later[1]])


def test_only_the_newest_windows_are_kept() -> None:
    windows = standing.Windows()
    for number in range(standing.MAX_WINDOWS + 20, 0, -1):  # the newest come first
        event = console_story.estimate_of(
            console_story.FIRST_WINDOW_DAY + 7 * (number - 1), 3
        )
        windows.take(event)
    numbers = [one["number"] for one in windows.as_json()["shown"]]
    assert numbers == list(range(21, standing.MAX_WINDOWS + 21))


def test_a_person_who_overrules_the_last_verdict_is_named(story: list[Event]) -> None:
    said = [x for x in story if isinstance(x, e.DriftDetected)]
    words = e.VerdictOverruled(
        pipeline=NAME, verdict_id=said[-1].meta.id, verdict_cause=said[-1].cause,
        cause="seasonality", overruled_by="ada", reason="a fair", since=said[-1].since,
        detected_at=said[-1].detected_at,
    )  # fmt: skip
    at = story[-1].meta.time
    event = words.with_meta(Meta("overruled", at, "/s", Chain("c")))
    verdict = board_of([*story, event]).since(0)["pipelines"][NAME]["verdict"]
    assert verdict["overruled"] == {
        "cause": "seasonality",
        "by": "ada",
        "reason": "a fair",
    }
    older = replace(event.meta, id="older")
    event = words.model_copy(update={"verdict_id": said[0].meta.id}).with_meta(older)
    verdict = board_of([*story, event]).since(0)["pipelines"][NAME]["verdict"]
    assert verdict["overruled"] is None


def test_pieces_add_up_to_the_whole(story: list[Event]) -> None:
    """Someone who asks again and again has what someone who asks once has."""
    board, revision = Board(), 0
    decisions: list[str] = []
    points: list[str] = []
    for number, event in enumerate(story):
        board.take(event)
        if number % 37 == 0 or event is story[-1]:
            news = board.since(revision)
            revision = news["revision"]
            part = news["pipelines"].get(NAME, {})
            decisions += [item["id"] for item in part.get("decisions", [])]
            points += [point["id"] for point in part.get("points", [])]
    whole = board.since(0)["pipelines"][NAME]
    assert sorted(decisions) == sorted(item["id"] for item in whole["decisions"])
    assert sorted(points) == sorted(point["id"] for point in whole["points"])
    assert board.since(revision)["pipelines"].get(NAME, {}).keys() <= {"event_time"}


def test_what_one_handler_tells_keeps_its_order(story: list[Event]) -> None:
    """Registered and rejected at the same moment: the version is rejected."""
    registered = next(x for x in story if isinstance(x, e.ModelRegistered))
    for event_id in ("0" * 36, "f" * 36):
        rejected = e.ModelRejected(
            pipeline=NAME, version=1, reasons=["poor"], rejected_by="gate"
        ).with_meta(replace(registered.meta, id=event_id))
        part = board_of([rejected, registered]).since(0)["pipelines"][NAME]
        assert part["versions"][0]["state"] == "rejected"
        assert [item["topic"] for item in part["decisions"]] == [
            "model-registered",
            "model-rejected",
        ]


def test_a_running_job_is_shown_until_it_ends(story: list[Event]) -> None:
    last = max(i for i, x in enumerate(story) if isinstance(x, e.TrainingProgressed))
    job = board_of(story[: last + 1]).since(0)["pipelines"][NAME]["job"]
    assert (job["step"], job["ratio"]) == ("judging", 0.9)
    assert board_of(story[: last + 2]).since(0)["pipelines"][NAME]["job"] is None


def test_event_time_is_that_of_the_data_of_the_moment(story: list[Event]) -> None:
    part = board_of(story).since(0)["pipelines"][NAME]
    deployed = [d for d in part["decisions"] if d["topic"] == "model-deployed"]
    assert [d["event_time"][:10] for d in deployed] == [
        "2011-02-15", "2011-11-27", "2012-03-08",
    ]  # fmt: skip
    assert part["decisions"][0]["event_time"] is None  # before any data


def test_labels_are_not_counted_as_rows(story: list[Event]) -> None:
    batch = next(x for x in story if isinstance(x, e.BatchIngested))
    other = replace(batch.meta, id="labels")
    labels = batch.model_copy(update={"kind": "labels"}).with_meta(other)
    counts = board_of([batch, labels]).since(0)["counts"][NAME]
    assert counts["batch-ingested"] == [2, 24]


def test_it_stays_bounded(story: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the log is; and what is kept is the newest."""
    for name in ("MAX_DECISIONS", "MAX_POINTS", "MAX_CLOCK", "MAX_SPANS"):
        monkeypatch.setattr(core, name, 20)
    monkeypatch.setattr(core, "MAX_DEAD_LETTERS", 3)
    board = board_of(story)
    for number in range(10):
        board.take_dead_letter(
            DeadLetter("trainer", "t", "bad", f"2026-01-0{number}", str(number))
        )
    found = board.pipelines[NAME]
    assert max(map(len, (found.decisions, found.points, found.clock))) <= 20
    assert board.dead_letter_counts["trainer"] == 10
    assert [x.position for x in board.dead_letters] == ["7", "8", "9"]
    part = board.since(0)["pipelines"][NAME]
    assert part["decisions"][-1]["topic"] == "alert-raised"


def test_every_decision_of_the_table_is_shown() -> None:
    """Negative control of the list: what is left out is data, state or progress."""
    left_out = {topic.event for topic in TOPICS} - set(DECISIONS)
    assert left_out == {
        e.ObservationArrived, e.LabelArrived, e.BatchIngested, e.BatchValidated,
        e.BatchRejected, e.BatchScored, e.DatasetVersioned, e.PerformanceMeasured,
        PerformanceEstimated, PerformanceSettled,
        e.RequestsAnswered, e.TrainingProgressed, e.ServingDesired, e.ScorerReported,
        e.EdgeReported, e.FederatedRoundOpened,
        e.FederatedUpdateSubmitted, s.ScoringProgressed,
        e.TrackingChanged, e.LineageReported, TokenChanged, AuditNoted, AuditAnchored,
    }  # fmt: skip
    assert produced_by("console") == ()


def test_what_is_before_production_is_told_apart(story: list[Event]) -> None:
    """Its champion, and that a version ended there; production's figures stay."""
    board = board_of(story)
    before = board.since(0)["pipelines"][NAME]
    last = next(x for x in reversed(story) if isinstance(x, e.ServingDesired))
    registered = [x for x in story if isinstance(x, e.ModelRegistered)]
    version = registered[-1].version + 1
    newer = registered[-1].model_copy(update={"version": version})
    applied = next(x for x in story if isinstance(x, e.PipelineApplied))
    content = applied.spec.model_dump(mode="json")
    content["rollout"]["environments"] = [{"name": "staging"}]
    spec = type(applied.spec).model_validate(content)
    step = e.RolloutAdvanced(
        pipeline=NAME, rollout_id="r", version=version, environment="staging",
        step="watching", verdict="failed", detail="worse",
    )  # fmt: skip
    measured = next(x for x in story if isinstance(x, e.PerformanceMeasured))
    scored = next(x for x in story if isinstance(x, e.BatchScored))
    later: list[Event] = [
        applied.model_copy(update={"spec": spec}),
        newer,
        last.model_copy(update={"environment": "staging", "generation": 99}),
        measured.model_copy(update={"environment": "staging"}),
        scored.model_copy(update={"environment": "staging"}),
        step,
    ]
    for number, event in enumerate(later):
        meta = replace(last.meta, id=f"later-{number}", time=WALL.replace(year=2027))
        board.take(event.with_meta(meta))
    after = board.since(0)["pipelines"][NAME]
    assert after["serving"] == before["serving"]
    assert after["points"] == before["points"]
    (staging,) = after["environments"]
    assert (staging["name"], staging["serving"]["generation"]) == ("staging", 99)
    shown = after["versions"][0]
    assert (shown["version"], shown["state"]) == (version, "rolled back")
    assert shown["detail"] == "staging: worse"
    rows = board_of(story).since(0)["counts"][NAME]["batch-scored"][1]
    assert board.since(0)["counts"][NAME]["batch-scored"][1] == rows
