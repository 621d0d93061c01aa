"""Who answers a row, what a scored batch holds, when figures are told."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.rows import read_rows, write_rows
from driftloop.scorer.core import (
    Plan,
    Tally,
    differing,
    finite_answers,
    is_candidates,
    no_answers,
    plan,
    scored_rows,
)

TIME = datetime(2011, 1, 1, tzinfo=UTC)
IDS = [f"row-{n}" for n in range(10_000)]


def rows(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array(IDS[:count]),
            pa.array([TIME] * count, pa.timestamp("us", "UTC")),
            pa.array(["s"] * count),
            pa.array([1.0] * count),
        ],
        names=["id", "event_time", "source", "temp"],
    )


def numbers(*values: float):
    return finite_answers(np.array(values), None, (), 0.01)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_candidate_gets_its_share_of_rows(share):
    drawn = sum(is_candidates(row, 2, share) for row in IDS)
    assert drawn / len(IDS) == pytest.approx(share, abs=0.02)


def test_shares_are_nested_and_other_for_another_version():
    few = {row for row in IDS if is_candidates(row, 2, 0.1)}
    many = {row for row in IDS if is_candidates(row, 2, 0.5)}
    other = {row for row in IDS if is_candidates(row, 3, 0.1)}
    assert few < many
    assert len(few & other) < 0.3 * len(few)


def test_no_share_and_the_whole_share():
    assert not any(is_candidates(row, 2, 0.0) for row in IDS)
    assert all(is_candidates(row, 2, 1.0) for row in IDS)


def test_what_is_not_finite_becomes_null_and_is_counted():
    said = numbers(1.0, np.nan, np.inf)
    assert said.prediction.to_pylist() == [1.0, None, None]
    assert said.error_count == 2
    assert said.detail == "no finite answer for 2 of 3 rows"
    assert numbers(1.0).detail == ""


def test_scores_that_are_not_finite_take_the_label_with_them():
    labels = np.array(["a", "b"])
    one = finite_answers(labels, np.array([0.5, np.nan]), ("a", "b"), 0.0)
    assert one.prediction.to_pylist() == ["a", None]
    assert one.score is not None
    assert one.score.to_pylist() == [0.5, None]
    three = np.array([[0.2, 0.3, 0.5], [0.1, np.inf, 0.2]])
    many = finite_answers(labels, three, ("a", "b", "c"), 0.0)
    assert many.score is not None
    assert many.score.to_pylist() == [[0.2, 0.3, 0.5], None]
    assert many.error_count == 1


def test_a_scored_batch_without_a_candidate():
    batch = scored_rows(rows(2), numbers(1.0, 2.0))
    assert batch.schema.names == ["id", "event_time", "champion_prediction"]


def test_a_scored_batch_with_a_candidate_in_shadow():
    batch = scored_rows(rows(2), numbers(1.0, 2.0), numbers(3.0, 4.0), 2, 0.0)
    assert batch.column("candidate_prediction").to_pylist() == [3.0, 4.0]
    assert batch.column("served_by").to_pylist() == ["champion", "champion"]


def test_a_row_on_which_the_candidate_fails_is_answered_by_the_champion():
    batch = scored_rows(rows(2), numbers(1.0, 2.0), numbers(3.0, np.nan), 2, 1.0)
    assert batch.column("served_by").to_pylist() == ["candidate", "champion"]
    raised = no_answers(2, (), 0.0, "boom")
    batch = scored_rows(rows(2), numbers(1.0, 2.0), raised, 2, 1.0)
    assert batch.column("served_by").to_pylist() == ["champion"] * 2
    assert batch.column("candidate_prediction").to_pylist() == [None, None]


def test_labels_of_a_score_travel_with_it():
    said = finite_answers(np.array(["no"]), np.array([0.2]), ("no", "yes"), 0.0)
    batch, _ = read_rows(write_rows(scored_rows(rows(1), said), b"{}"))
    field = batch.schema.field("champion_score")
    assert field.metadata == {b"classes": b'["no", "yes"]'}
    raised = scored_rows(rows(1), no_answers(1, ("no", "yes"), 0.0, "boom"))
    assert raised.schema.field("champion_score").type == pa.float64()


def test_figures_are_told_after_so_many_calls_or_at_the_first_error():
    tally = Tally()
    for _ in range(2):
        tally = tally.added(1, {1: ("champion", numbers(1.0))}, TIME)
    assert not tally.is_due(3)
    assert tally.added(1, {1: ("champion", numbers(1.0))}).is_due(3)
    assert tally.added(1, {1: ("champion", numbers(np.nan))}).is_due(3)


def test_figures_of_a_version_add_up():
    tally = Tally()
    for values in ([1.0, 2.0], [np.nan]):
        tally = tally.added(
            7, {1: ("champion", numbers(1.0)), 2: ("candidate", numbers(*values))}, TIME
        )
    assert Tally.model_validate_json(tally.model_dump_json()) == tally
    champion, candidate = tally.report()
    assert (champion.row_count, champion.error_count) == (2, 0)
    assert (candidate.row_count, candidate.error_count) == (3, 1)
    assert candidate.role == "candidate"
    assert candidate.latency_p99_seconds == pytest.approx(0.01)
    assert candidate.detail == "no finite answer for 1 of 1 rows"


def test_a_new_generation_begins_anew():
    tally = Tally().added(1, {1: ("champion", numbers(np.nan))})
    assert tally.added(2, {1: ("champion", numbers(1.0))}).report()[0].error_count == 0


@pytest.mark.parametrize(
    ("wanted", "loaded", "before", "expected"),
    [
        (Plan(2, 1), {1, 2}, 1, Plan(2, 1)),
        (Plan(2, 1), {1}, 1, Plan(1)),
        (Plan(1, 4), {1, 2}, 1, Plan(1)),
        (Plan(1, 2, 0.5), {1, 2}, 1, Plan(1, 2, 0.5)),
        (Plan(1, 2, 0.5), {2}, None, Plan(None)),
        (Plan(None), {1}, 1, Plan(None)),
        (Plan(3, 2), {1}, 1, Plan(1)),
        (Plan(3), {1}, 2, Plan(None)),
    ],
)
def test_what_answers_while_versions_are_loaded(wanted, loaded, before, expected):
    assert plan(wanted, frozenset(loaded), before) == expected


def test_a_candidate_is_told_of_sooner_than_a_champion_alone():
    alone = both = Tally()
    for _ in range(5):
        alone = alone.added(1, {1: ("champion", numbers(1.0))})
        both = both.added(
            1, {1: ("champion", numbers(1.0)), 2: ("candidate", numbers(1.0))}
        )
    assert both.is_due(24)
    assert not alone.is_due(24)


def test_rows_on_which_versions_differ_are_counted_for_the_candidate():
    tally = Tally()
    for said in ([1.0, 2.0], [5.0, np.nan]):
        champion, candidate = numbers(1.0, 2.0), numbers(*said)
        tally = tally.added(
            1,
            {1: ("champion", champion), 2: ("candidate", candidate)},
            compared=differing(champion, candidate, 0.5),
        )
    old, new = tally.report()
    assert (old.compared_count, old.differing_count) == (0, 0)
    assert (new.compared_count, new.differing_count) == (3, 1)
    assert new.call_count == 2
    assert new.latency_p50_seconds == pytest.approx(new.latency_p99_seconds)
