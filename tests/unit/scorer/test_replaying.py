"""Recorded rows before two versions: what is paired, what is left out, what is said."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.models.losses import paired_over_time
from driftloop.scorer.core import Answers, finite_answers
from driftloop.scorer.replaying import Figures, Replay, Rules

START = datetime(2011, 3, 1, tzinfo=UTC)
RULES = Rules(
    champion_version=1,
    candidate_version=2,
    metric="mae",
    target="cnt",
    horizon=timedelta(days=1),
    learned_until=START - timedelta(hours=1),
    most_rows=1000,
)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def rows(ids: list[str], first: int = 0, **columns: Any) -> pa.RecordBatch:
    times = [hour(first + place) for place in range(len(ids))]
    found = {"id": ids, "event_time": pa.array(times, pa.timestamp("us", "UTC"))}
    return pa.RecordBatch.from_pydict(found | columns)


def said(*values: float) -> Answers:
    return finite_answers(np.array(values), None, (), 0.0)


def shares(*values: float) -> Answers:
    score = np.array(values)
    labels = np.where(score > 0.5, "yes", "no")
    return finite_answers(labels, score, ("no", "yes"), 0.0)


def losses(figures: Figures) -> tuple[float, ...]:
    return tuple(measurement.value for measurement in figures.measurements)


def test_labels_of_the_rows_themselves_are_compared() -> None:
    replay = Replay(RULES)
    replay.add(rows(["a", "b"], cnt=[10.0, 20.0]), said(12.0, 26.0), said(10.0, 22.0))
    found = replay.figures()
    assert found.labelled_count == 2
    assert losses(found) == (4.0, 1.0)
    assert found.comparison is not None
    assert found.comparison.mean_difference == -3.0
    assert found.span is not None
    assert (found.span.start, found.span.end) == (hour(0), hour(1))


@pytest.mark.parametrize("is_late", [True, False])
def test_labels_meet_rows_by_id_in_either_order(is_late: bool) -> None:
    replay = Replay(RULES)
    labels = rows(["b", "x", "b"], cnt=[20.0, 0.0, 99.0])  # the first word holds
    if not is_late:
        replay.add_labels(labels)
    replay.add(rows(["a", "b"]), said(12.0, 26.0), said(10.0, 22.0))
    if is_late:
        replay.add_labels(labels)
    found = replay.figures()
    assert found.labelled_count == 1
    assert losses(found) == (6.0, 2.0)


def test_classes_are_compared_by_their_shares() -> None:
    rules = dataclasses.replace(RULES, metric="log_loss")
    replay = Replay(rules)
    replay.add(rows(["a", "b"], cnt=["yes", "no"]), shares(0.5, 0.5), shares(0.9, 0.6))
    assert losses(replay.figures()) == pytest.approx(
        (-np.log(0.5), -(np.log(0.9) + np.log(0.4)) / 2)
    )
    assert replay.different_count == 2


def test_rows_that_a_version_has_learned_are_left_out() -> None:
    rules = dataclasses.replace(RULES, learned_until=hour(1))
    replay = Replay(rules)
    kept = replay.to_score(rows(["a", "b", "c"], cnt=[1.0, 2.0, 3.0]))
    assert kept.column("id").to_pylist() == ["c"]
    assert replay.learned_count == 2


def test_no_more_rows_are_scored_than_the_limit() -> None:
    replay = Replay(dataclasses.replace(RULES, most_rows=3))
    for first in (0, 2):
        kept = replay.to_score(rows(["a", "b"], first))
        values = [1.0] * kept.num_rows
        replay.add(kept, said(*values), said(*values))
    assert (replay.row_count, replay.beyond_count) == (3, 1)


def test_the_oldest_answers_go_when_too_many_wait() -> None:
    replay = Replay(dataclasses.replace(RULES, most_waiting=2))
    replay.add(rows(["a", "b", "c"]), said(1.0, 2.0, 3.0), said(1.0, 2.0, 3.0))
    assert replay.beyond_count == 1
    replay.add_labels(rows(["a", "b", "c"], cnt=[1.0, 2.0, 3.0]))
    assert replay.figures().labelled_count == 2


def test_rows_on_which_the_candidate_fails_are_counted_and_not_compared() -> None:
    replay = Replay(RULES)
    both = rows(["a", "b", "c"], cnt=[1.0, 2.0, 3.0])
    replay.add(both, said(1.0, 2.0, np.nan), said(np.nan, 2.0, 3.0))
    assert (replay.error_count, replay.champion_error_count) == (1, 1)
    assert replay.different_count == 0
    assert replay.figures().labelled_count == 1


def test_a_label_beyond_the_horizon_is_not_used() -> None:
    replay = Replay(RULES)
    replay.add(rows(["a", "b"]), said(1.0, 2.0), said(1.0, 2.0))
    replay.add_labels(rows(["a", "b"], first=24, cnt=[1.0, 2.0]))
    # a's label is a day after a; b's label is a day after b: both are in time
    assert replay.figures().labelled_count == 2
    replay = Replay(RULES)
    replay.add(rows(["a", "b"]), said(1.0, 2.0), said(1.0, 2.0))
    replay.add_labels(rows(["a", "b"], first=25, cnt=[1.0, 2.0]))
    assert replay.figures().labelled_count == 0


def test_without_labels_there_is_nothing_to_compare() -> None:
    replay = Replay(RULES)
    replay.add(rows(["a"]), said(1.0), said(2.0))
    assert replay.figures() == Figures(0, None, [], None)
    assert replay.different_count == 1


def test_the_order_of_the_log_changes_nothing() -> None:
    """Partitions come in any order; the runs of the standard error are in time."""
    chance = np.random.default_rng(7)
    truth, walk = chance.normal(size=400), np.cumsum(chance.normal(size=400))
    parts = [
        (rows([f"r{n}" for n in range(first, first + 50)], first,
              cnt=truth[first : first + 50]),
         said(*truth[first : first + 50]),
         said(*(truth + walk)[first : first + 50]))
        for first in range(0, 400, 50)
    ]  # fmt: skip
    told = []
    for order in (parts, parts[::-1]):
        replay = Replay(RULES)
        for part in order:
            replay.add(*part)
        told.append(replay.figures())
    assert told[0] == told[1]


def test_neighbours_that_resemble_each_other_make_it_less_certain() -> None:
    chance = np.random.default_rng(7)
    walk = np.cumsum(chance.normal(size=400))
    still = np.zeros(400)
    apart = paired_over_time(chance.permutation(walk), still).standard_error
    assert paired_over_time(walk, still).standard_error > 2 * apart


def test_one_row_is_one_run() -> None:
    found = paired_over_time(np.array([3.0]), np.array([1.0]))
    assert (found.mean_difference, found.standard_error) == (2.0, 2.0)
