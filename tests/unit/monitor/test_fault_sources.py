"""Whose rows a fault of quality spoils: those who send the bad ones."""

from datetime import timedelta

import pytest
from driftloop.contracts.events import CAUSES, DriftDetected, RejectReason
from driftloop.monitor.faults import Checked, judge_quality
from driftloop.monitor.state import Watch
from driftloop.monitor.verdicts import faulty_of

from tests.unit.monitor.story import day, spec

ROWS = 24


def batch(number: int, source: str | None, bad: int) -> Checked:
    reason = RejectReason(
        check="range", field="size", row_count=max(bad, 1), detail="above 100"
    )
    end = day(number) + timedelta(hours=23)
    return Checked(day(number), end, ROWS, [reason] if bad else [], source)


def told(*of_a_day: tuple[str | None, int]) -> DriftDetected:
    """Tell the fault of a week in which sources send so many bad rows a day."""
    window = [batch(n, source, bad) for n in range(7) for source, bad in of_a_day]
    _, events = judge_quality(Watch(pipeline="shop"), window, spec(), "observations")
    [found] = [event for event in events if isinstance(event, DriftDetected)]
    return found


def test_the_source_that_sends_bad_rows_carries_the_fault() -> None:
    assert told(("north", 24), ("south", 0), ("west", 0)).sources == {"north": 1.0}


def test_a_few_bad_rows_of_another_source_are_not_of_the_fault() -> None:
    found = told(("north", 23), ("south", 1))
    assert found.sources == {"north": pytest.approx(0.958)}


def test_two_of_three_sources_share_it() -> None:
    found = told(("north", 18), ("south", 6), ("west", 0)).sources
    assert found == {"north": 0.75, "south": 0.25}


@pytest.mark.parametrize(
    "week", [(("north", 24),), (("north", 12), ("south", 12)), ((None, 24), ("b", 0))]
)
def test_where_all_are_alike_or_not_known_none_is_named(
    week: tuple[tuple[str | None, int], ...],
) -> None:
    """Negative control: then all rows of the time are left out."""
    assert told(*week).sources == {}


@pytest.mark.parametrize(
    ("kind", "faulty"), [("observations", "rows"), ("labels", "labels")]
)
def test_bad_labels_spoil_no_rows(kind: str, faulty: str) -> None:
    window = [batch(n, "north", 24) for n in range(7)]
    _, events = judge_quality(Watch(pipeline="shop"), window, spec(), kind)
    assert events[0].faulty == faulty


def test_only_faults_spoil_anything() -> None:
    found = {cause: faulty_of(cause) for cause in CAUSES if faulty_of(cause)}
    assert found == {
        "sensor_fault": "rows",
        "schema_change": "rows",
        "label_fault": "labels",
    }
