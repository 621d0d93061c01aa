"""Every kind of fault at known places: caught, missed, and alarms for nothing."""

import pytest
from driftloop.contracts.checks import CHECKS, kind_of

from tests.unit.validator.corpus import (
    Corpus,
    Score,
    clean_corpus,
    faulty_corpus,
    run,
    score,
)

IMPORTED = {"function", "pandera"}
DILUTED = {"null_ratio": 2, "distribution": 4}
"""Missed in batches of 500: 48 rows without rain are no high share of these, and 240
rows no other distribution. Batches of a day see them."""


@pytest.fixture(scope="module")
def faulty() -> Corpus:
    return faulty_corpus()


def test_there_is_a_fault_of_every_kind(faulty: Corpus) -> None:
    kinds = {kind_of(check) for check in CHECKS} - IMPORTED
    of_columns = {"type", "null", "range", "values", "pattern", "duplicate"}
    assert {fault.check for fault in faulty.faults} == kinds | of_columns


@pytest.mark.parametrize("batch_rows", [24, 120, 500])
def test_faults_are_caught_and_nothing_else(faulty: Corpus, batch_rows: int) -> None:
    """66 faults, at least four of a kind, told apart from seasons and noise."""
    missed = DILUTED if batch_rows == 500 else {}
    counts: dict[str, int] = {}
    for fault in faulty.faults:
        counts[fault.check] = counts.get(fault.check, 0) + 1
    assert min(counts.values()) >= 4
    assert score(faulty, batch_rows) == {
        check: Score(caught=count - missed.get(check, 0), missed=missed.get(check, 0))
        for check, count in counts.items()
    }


@pytest.mark.parametrize("batch_rows", [24, 120, 500])
def test_eleven_clean_months_raise_no_alarm(batch_rows: int) -> None:
    alarms = [a for _, _, found in run(clean_corpus(), batch_rows) for a in found]
    assert alarms == []


def test_rows_out_of_every_fault_go_on(faulty: Corpus) -> None:
    """What is taken out is the fault, and at most the day around its ends."""
    spoilt = {row for fault in faulty.faults for row in fault.rows}
    near = {row + n for row in spoilt for n in range(-24, 25)}
    for rows, checked, _ in run(faulty, 24):
        bad = set() if checked.bad is None else set(checked.bad["source"].to_pylist())
        assert {int(row) for row in bad} <= near, rows
