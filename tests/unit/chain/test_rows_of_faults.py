"""What the monitor tells of a fault takes just its rows out of the trainer's."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
from driftloop.contracts.events import DriftDetected, DriftEnded, LeftOut
from driftloop.monitor.turn import Packaged
from driftloop.trainer.dataset import without_faults
from driftloop.trainer.faults import Faults

from tests.unit.monitor.story import EVALUATION, InProcess, Shop, day, spec

DAYS, BROKEN = 40, range(20, 27)
Found = tuple[pa.Table, list[LeftOut], list[str]]


def told_by(monitor: InProcess) -> Faults:
    """What the trainer knows; ends first, as topics have no common order."""
    known = Faults()
    for end in monitor.of(DriftEnded):
        known = known.with_end(end)
    for number, verdict in enumerate(monitor.of(DriftDetected)):
        known = known.with_verdict(verdict, f"v{number}")
    return known


def kept(broken: range, unlabelled: range = range(0), days: int = DAYS) -> Found:
    """Play days of a shop, some with a weight in grams; read what verdicts leave."""
    shop = Shop()
    monitor = InProcess(spec(), lambda _: Packaged(EVALUATION, shop.sample()))
    monitor.take(shop.deployed())
    batches = []
    for number in range(days):
        columns = {}
        if number in broken:
            columns["weight"] = shop.features(number)["weight"] * 1000
        event = shop.observed(number, **columns)
        batches.append(event.rows)
        monitor.take(event)
        monitor.take(shop.scored(number))
        if number not in unlabelled:
            monitor.take(shop.labelled(number))
    rows = pa.Table.from_batches(batches)
    rows, left_out = without_faults(rows, told_by(monitor).stretches())
    causes = [verdict.cause for verdict in monitor.of(DriftDetected)]
    monitor.close()
    return rows, left_out, causes


def test_the_days_of_a_wrong_unit_are_left_out_and_no_others() -> None:
    rows, [left_out], _ = kept(BROKEN)
    assert left_out.start == day(BROKEN.start)
    assert left_out.end == day(BROKEN.stop)  # the first row that is right goes, too
    times = rows["event_time"].to_pylist()
    gone = {day(BROKEN.start) + timedelta(hours=n) for n in range(7 * 24 + 1)}
    assert not gone & set(times)
    assert left_out.row_count == len(gone)
    assert rows.num_rows == DAYS * 24 - len(gone)
    assert max(rows["weight"].to_pylist()) < 100


def test_while_it_lasts_all_newer_rows_are_left_out() -> None:
    rows, [left_out], _ = kept(range(BROKEN.start, DAYS))
    assert left_out.end is None
    assert max(rows["event_time"].to_pylist()) < day(BROKEN.start)


def test_of_labels_that_stay_away_no_row_is_left_out() -> None:
    """They are a fault of labels, and those that come are right."""
    rows, left_out, causes = kept(range(0), range(30, 60), days=60)
    assert causes == ["label_fault"]
    assert left_out == []
    assert rows.num_rows == 60 * 24


def test_without_a_fault_no_row_is_left_out() -> None:
    """Negative control."""
    rows, left_out, causes = kept(range(0))
    assert (left_out, causes) == ([], [])
    assert rows.num_rows == DAYS * 24
