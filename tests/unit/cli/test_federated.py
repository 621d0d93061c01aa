"""A site's part in a federation, from a log made by hand."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.federated.site import Rounds, event_id_of, rows_of, update_of
from driftloop.cli.federated.work import rules_of
from driftloop.cli.log import Entry
from driftloop.cli.publish import PublishFileError
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.federated import (
    FederatedColumn,
    FederatedEncoding,
    FederationRules,
)

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
RULES = FederationRules(rounds=3, site_count=2, min_sites=2)
HEAT = FederatedColumn(name="heat", type="number", centre=0, half_range=10)
ENCODING = FederatedEncoding(
    task="binary", target="y", classes=["no", "yes"], columns=[HEAT]
)


def opened(number: int, minutes: float = 60, pipeline: str = "rain"):
    return e.FederatedRoundOpened(
        pipeline=pipeline, federation_id="f", round=number, rules=RULES,
        encoding=ENCODING, weights=[0.0, 0.0],
        deadline=NOW + timedelta(minutes=minutes),
    )  # fmt: skip


def closed(number: int, *, is_last: bool = False):
    return e.FederatedRoundClosed(
        pipeline="rain", federation_id="f", round=number, outcome="averaged",
        detail="", is_last=is_last,
    )  # fmt: skip


def entry(event: Event) -> Entry:
    meta = Meta("id", NOW, "/s", Chain("c"))
    return Entry(event.with_meta(meta), meta)


def test_only_a_round_that_still_counts_waits_for_a_site() -> None:
    told = [
        opened(1), closed(1), opened(2, minutes=-1), opened(3),
        opened(1, pipeline="bikes"),
    ]  # fmt: skip
    for order in itertools.permutations(told):
        rounds = Rounds("rain")
        for event in order:
            rounds.take(entry(event))
        assert [one.round for one in rounds.waiting(NOW)] == [3]
        assert rounds.end_of("f") is None
    rounds.take(entry(closed(3, is_last=True)))
    assert rounds.waiting(NOW) == []
    end = rounds.end_of("f")
    assert end is not None
    assert end.round == 3


def test_an_update_says_how_many_rows_and_is_the_same_when_repeated() -> None:
    rows = pa.table(
        {"heat": [1.0, 5.0, -3.0], "y": ["yes", None, "no"], "name": [*"abc"]}
    )
    one, again = (update_of(opened(1), "north", rows) for _ in range(2))
    assert one == again
    assert one.row_count == 2
    assert one.update[0] > 0
    assert event_id_of(one) == event_id_of(again)
    ids = {event_id_of(update_of(opened(n), s, rows)) for n in (1, 2) for s in "ab"}
    assert len(ids) == 4


def test_a_file_that_does_not_fit_says_why(tmp_path) -> None:
    with pytest.raises(CommandError, match="no column 'heat'"):
        update_of(opened(1), "a", pa.table({"y": ["yes"]}))
    with pytest.raises(CommandError, match="no row has a y"):
        update_of(opened(1), "a", pa.table({"heat": [1.0], "y": pa.nulls(1)}))
    with pytest.raises(PublishFileError, match="cannot read"):
        rows_of(tmp_path / "none.csv")


def test_rules_are_read_and_wrong_ones_named() -> None:
    rules, span = rules_of(5, 3, ["trim_ratio=0.34", "epochs=2", "target_max=9"])
    assert (rules.rounds, rules.site_count, rules.min_sites) == (5, 3, 3)
    assert (rules.trim_ratio, rules.local.epochs, span) == (0.34, 2, (None, 9))
    for text, words in (
        ("epoch=2", "no such key; use min_sites"),
        ("target_max=high", "not a finite number"),
        ("min_sites=9", "min_sites 9 is above site_count 3"),
        ("learning_rate=fast", "local.learning_rate"),
    ):
        with pytest.raises(CommandError, match=words):
            rules_of(5, 3, [text])
