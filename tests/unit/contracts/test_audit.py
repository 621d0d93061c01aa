"""A trail that was tampered with is found out, and where; an untouched one passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from driftloop.contracts.audit import (
    Anchor,
    Entry,
    breaks_in,
    following,
    hash_of,
)

LENGTH = 6


def noted(number: int) -> dict[str, Any]:
    return {"event_id": f"e{number}", "subject": "ann", "action": "approve"}


def trail(length: int = LENGTH, *, start: list[Entry] | None = None) -> list[Entry]:
    entries = list(start or [])
    while len(entries) < length:
        last = entries[-1] if entries else None
        entries.append(following(last, noted(len(entries) + 1)))
    return entries


ENTRIES = trail()
NOTES = [noted(number) for number in range(1, LENGTH + 1)]
ANCHORS = [Anchor(e.position, e.hash, f"a{e.position}") for e in ENTRIES[1::2]]


def kinds(entries: list[Entry], *, logged: bool = True) -> list[tuple[int, str]]:
    found = breaks_in(entries, ANCHORS, NOTES if logged else None)
    return [(each.position, each.kind) for each in found]


def test_untouched_trail_is_whole() -> None:
    """Negative control of all that follows; also empty, and with repeats of anchors."""
    assert breaks_in(ENTRIES, [*ANCHORS, *ANCHORS], NOTES) == []
    assert breaks_in([]) == []


@pytest.mark.parametrize("position", range(1, LENGTH + 1))
def test_altered_entry(position: int) -> None:
    """One changed word is found where it is."""
    entries = list(ENTRIES)
    old = entries[position - 1]
    content = {**old.content, "subject": "eve"}
    entries[position - 1] = replace(old, content=content)
    assert (position, "altered") in kinds(entries, logged=False)
    assert {where for where, _ in kinds(entries, logged=False)} == {position}


@pytest.mark.parametrize("position", range(1, LENGTH + 1))
def test_altered_entry_with_a_hash_to_match(position: int) -> None:
    """The next entry does not follow it; of the last one the anchor says."""
    entries = list(ENTRIES)
    old = entries[position - 1]
    content = {**old.content, "subject": "eve"}
    new = hash_of(old.previous, position, content)
    entries[position - 1] = replace(old, content=content, hash=new)
    found = kinds(entries, logged=False)
    assert found
    assert found[0][0] in (position, position + 1)
    assert {kind for _, kind in found} == {"forked"}


@pytest.mark.parametrize("position", range(1, LENGTH + 1))
def test_removed_entry(position: int) -> None:
    """A gap is found; the end is missed by an anchor, or by the log."""
    entries = [e for e in ENTRIES if e.position != position]
    assert (position, "removed") in kinds(entries)


def test_removed_and_renumbered() -> None:
    """Closing the gap breaks the hashes."""
    entries = [
        replace(e, position=number)
        for number, e in enumerate(ENTRIES[:2] + ENTRIES[3:], 1)
    ]
    assert kinds(entries, logged=False)[0][0] == 3


def test_removed_end_without_an_anchor() -> None:
    """The log has what the trail has not."""
    entries, anchors = ENTRIES[:-1], ANCHORS[:-1]
    assert breaks_in(entries, anchors) == []  # only the log can tell
    found = breaks_in(entries, anchors, NOTES)
    assert [(b.position, b.kind) for b in found] == [(LENGTH, "removed")]


def test_forked_trail() -> None:
    """A trail that is whole in itself, and another one from an entry on."""
    start = [*ENTRIES[:2], following(ENTRIES[1], noted(99))]
    fork = trail(LENGTH, start=start)
    assert breaks_in(fork) == []  # hashes alone cannot tell
    assert kinds(fork, logged=False) == [(4, "forked"), (6, "forked")]
    assert (3, "not_in_log") in kinds(fork)


def test_forked_anchors() -> None:
    """Two registries with two trails have both anchored: that is told as well."""
    anchors = [*ANCHORS, Anchor(2, "f" * 64, "other")]
    found = breaks_in(ENTRIES, anchors)
    assert [(b.position, b.kind) for b in found] == [(2, "forked")]


def test_entry_that_the_log_has_not() -> None:
    """An entry added by hand, with a right hash."""
    entries = [*ENTRIES, following(ENTRIES[-1], noted(99))]
    assert kinds(entries) == [(LENGTH + 1, "not_in_log")]
