"""Which rows fall into which window of the views."""

from __future__ import annotations

from driftloop.monitor.views import counts_of

from tests.unit.monitor.story import START, Shop

DAY_S = 24 * 3600
FIRST = int(START.timestamp())


def test_rows_are_counted_in_their_own_windows() -> None:
    """A batch that spans two windows is split by its rows' event times."""
    found = counts_of(Shop().observed(0), DAY_S // 2)
    assert found == {
        ("validated", FIRST): 12,
        ("validated", FIRST + DAY_S // 2): 12,
    }


def test_measures_have_names_of_their_own() -> None:
    shop = Shop()
    assert counts_of(shop.labelled(0), DAY_S) == {("labels", FIRST): 24}
    assert counts_of(shop.scored(0), DAY_S) == {("scored", FIRST): 24}
    assert counts_of(shop.rejected(0, bad=5), DAY_S) == {
        ("quarantined", FIRST): 5,
        ("field:size", FIRST): 5,
    }


def test_an_empty_batch_counts_nothing() -> None:
    event = Shop().observed(0)
    assert counts_of(event.with_rows(event.rows.slice(0, 0)), DAY_S) == {}
