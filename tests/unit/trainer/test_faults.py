"""Stretches of faults: the same by whatever order they were told in."""

import random
from itertools import permutations
from typing import Any

import pytest
from driftloop.contracts.events import (
    Cause,
    DriftDetected,
    DriftEnded,
    FaultyStretch,
    Span,
    VerdictOverruled,
)
from driftloop.contracts.pipeline import TrainSection
from driftloop.trainer import core
from driftloop.trainer.faults import Faults, good_parts, within

from tests.unit.trainer.cases import NAME, START, day, drift, fault

HOUR = 1 / 24


def over(
    since: float, until: float, at: float | None, column: str = "a", **changes: Any
) -> DriftEnded:
    return DriftEnded.model_validate(
        {
            "pipeline": NAME,
            "cause": "sensor_fault",
            "features": [column],
            "since": day(since),
            "until": day(until),
            "detected_at": None if at is None else day(at),
        }
        | changes
    )


def ruling(
    verdict: str,
    cause: Cause,
    since: float,
    at: float,
    was: Cause = "sensor_fault",
    *,
    mended: bool = False,
) -> VerdictOverruled:
    return VerdictOverruled(
        pipeline=NAME, verdict_id=verdict, verdict_cause=was, cause=cause,
        overruled_by="ada", reason="I was there", since=day(since),
        detected_at=day(at), mended=mended,
    )  # fmt: skip


Told = DriftDetected | DriftEnded | VerdictOverruled


def faults(*events: tuple[str, Told]) -> Faults:
    known = Faults()
    for name, event in events:
        match event:
            case DriftDetected():
                known = known.with_verdict(event, name)
            case DriftEnded():
                known = known.with_end(event)
            case VerdictOverruled():
                known = known.with_ruling(event)
    return known


def only(known: Faults) -> FaultyStretch:
    [found] = known.stretches()
    return found


def test_a_fault_is_open_until_the_last_of_its_columns_is_right() -> None:
    told = ("v", fault(10, 12, features=["a", "b"], sources={"s2": 1.0}))
    found = only(faults(told))
    assert (found.start, found.end, found.sources) == (day(10), None, ["s2"])
    assert only(faults(told, ("", over(10, 15, 12)))).end is None
    both = faults(told, ("", over(10, 15, 12)), ("", over(11, 14, 12, "b")))
    assert only(both).end == day(15)


@pytest.mark.parametrize("cause", ["concept_drift", "traffic_mix", "not_enough_data"])
def test_a_verdict_that_is_no_fault_leaves_nothing_out(cause: Cause) -> None:
    assert faults(("v", drift(12, cause=cause))).stretches() == ()


def test_labels_that_stay_away_are_not_wrong() -> None:
    missing = drift(12, cause="label_fault", retrain_advised=False)
    assert missing.faulty is None
    assert faults(("v", missing)).stretches() == ()


def test_a_fault_that_is_inferred_counts_once_a_person_confirms_it() -> None:
    told = ("v", fault(10, 12, faulty=None))
    assert faults(told).stretches() == ()
    confirmed = ("", ruling("v", "sensor_fault", 10, 12))
    found = only(faults(told, confirmed))
    assert (found.faulty, found.start, found.end) == ("rows", day(10), None)
    assert only(faults(told, confirmed, ("", over(10, 15, 12)))).end == day(15)
    denied = ("", ruling("v", "concept_drift", 10, 12))
    assert faults(told, confirmed, denied).stretches() == ()


def test_another_end_of_the_same_column_is_not_this_faults() -> None:
    known = faults(
        ("v", fault(10, 12)), ("", over(10, 15, 12)), ("w", fault(14, 16)),
    )  # fmt: skip
    first, second = known.stretches()
    assert (first.verdict_id, first.end) == ("v", day(15))
    assert (second.verdict_id, second.end) == ("w", None)


def test_an_end_from_before_it_named_its_verdict_goes_by_its_start() -> None:
    told = [("v", fault(10, 12)), ("w", fault(20, 22))]
    first, second = faults(*told, ("", over(20, 25, None))).stretches()
    assert (first.end, second.end) == (None, day(25))


def test_a_persons_last_word_on_a_verdict_holds() -> None:
    told = ("v", fault(10, 12, sources={"s": 1.0}))
    assert faults(told, ("", ruling("v", "seasonality", 10, 12))).stretches() == ()
    again = faults(
        told,
        ("", ruling("v", "seasonality", 10, 12)),
        ("", ruling("v", "label_fault", 10, 12)),
    )
    found = only(again)
    assert (found.cause, found.faulty, found.sources) == (
        "label_fault",
        "labels",
        ["s"],
    )


def test_what_is_mended_is_read_again_once_the_fault_is_over() -> None:
    told = ("v", fault(10, 12))
    said = ("", ruling("v", "sensor_fault", 10, 12, mended=True))
    assert only(faults(told, said)).end is None
    assert faults(told, said, ("", over(10, 15, 12))).stretches() == ()
    assert only(faults(told, ("", over(10, 15, 12)))).end == day(15)
    alone = ruling("w", "sensor_fault", 10, 12, was="concept_drift", mended=True)
    assert faults(("", alone)).stretches() == ()


def test_what_only_a_person_calls_a_fault_lasts_until_it_was_told() -> None:
    said = ruling("v", "sensor_fault", 10, 12, was="concept_drift")
    found = only(faults(("v", drift(12)), ("", said)))
    assert (found.start, found.end, found.sources) == (day(10), day(12), [])


def test_any_order_of_the_topics_gives_the_same() -> None:
    told: list[tuple[str, Told]] = [
        ("v", fault(10, 12, features=["a", "b"])),
        ("w", fault(20, 22)),
        ("", over(10, 15, 12)),
        ("", over(10, 14, 12, "b")),
        ("", ruling("w", "seasonality", 20, 22)),
    ]
    found = {faults(*order).model_dump_json() for order in permutations(told)}
    assert len(found) == 1
    assert len(faults(*told[:-1]).stretches()) == 2  # and a word more tells


def test_what_is_remembered_survives_being_stored() -> None:
    known = faults(("v", fault(10, 12)), ("", over(10, 15, 12)))
    assert Faults.model_validate_json(known.model_dump_json()) == known


# ── time without them ───────────────────────────────────────────────────────


def stretch(
    start: float, end: float | None, *sources: str, name: str = "v"
) -> FaultyStretch:
    return FaultyStretch(
        verdict_id=name,
        cause="sensor_fault",
        faulty="rows",
        start=day(start),
        end=None if end is None else day(end),
        sources=list(sources),
    )


def parts(*stretches: FaultyStretch, end: float = 100) -> list[tuple[float, float]]:
    found = good_parts(Span(start=START, end=day(end)), stretches)
    return [((each.start - START).days, (each.end - START).days) for each in found]


def test_good_time_is_what_stretches_leave() -> None:
    assert parts() == [(0, 100)]
    assert parts(stretch(10, 20), stretch(15, 30)) == [(0, 10), (30, 100)]
    assert parts(stretch(15, 30), stretch(10, 40)) == [(0, 10), (40, 100)]
    assert parts(stretch(90, None)) == [(0, 90)]
    assert parts(stretch(0, 20), stretch(110, None)) == [(20, 100)]
    assert parts(stretch(0, None)) == []
    assert parts(stretch(0, None, "one source")) == [(0, 100)]


def test_only_stretches_that_meet_a_span_count() -> None:
    span = Span(start=day(10), end=day(20))
    found = within(
        (stretch(0, 5), stretch(0, 10), stretch(5, None), stretch(21, None)), span
    )
    assert [each.end for each in found] == [day(10), None]


def test_the_hold_out_is_its_share_of_good_time() -> None:
    labelled, train = Span(start=START, end=day(100)), TrainSection()
    assert core.plan(labelled, train)[0].end == day(80)
    training, holdout = core.plan(labelled, train, (stretch(85, 95),))
    assert holdout.end == day(100)
    assert training.end == day(72)  # 18 of 90 good days are judged on: 5 and 13
    training, holdout = core.plan(labelled, train, (stretch(50, None),))
    assert (training.end, holdout.end) == (day(40), day(50))


def test_a_window_ends_where_good_rows_end() -> None:
    labelled, train = Span(start=START, end=day(100)), TrainSection(window_days=20)
    training, holdout = core.plan(labelled, train, (stretch(60, None),))
    assert (training.start, training.end, holdout.end) == (day(40), day(56), day(60))


def test_where_nothing_is_good_the_spans_are_as_ever() -> None:
    """The training is refused then, and says why."""
    labelled, train = Span(start=START, end=day(100)), TrainSection()
    assert core.plan(labelled, train, (stretch(0, None),)) == core.plan(labelled, train)


def test_the_parts_of_a_plan_hold_for_any_faults() -> None:
    """The hold-out has its share of good time to a microsecond or two, at random."""
    draw = random.Random(7)
    for _ in range(300):
        labelled = Span(start=START, end=day(draw.uniform(5, 200)))
        found = []
        for _ in range(draw.randrange(5)):
            start = draw.uniform(-10, 200)
            is_open = draw.random() < 0.2
            found.append(
                stretch(start, None if is_open else start + draw.uniform(0, 60))
            )
        left = good_parts(labelled, tuple(found))
        if not left:
            continue
        train = TrainSection(holdout_ratio=draw.uniform(0.05, 0.6))
        training, holdout = core.plan(labelled, train, tuple(found))
        assert training.start <= training.end <= holdout.start <= holdout.end
        assert holdout.end == left[-1].end <= labelled.end
        judged = sum(
            max(0.0, (part.end - max(part.start, training.end)).total_seconds())
            for part in left
        )
        total = sum((part.end - part.start).total_seconds() for part in left)
        assert judged == pytest.approx(train.holdout_ratio * total, abs=1e-3)
