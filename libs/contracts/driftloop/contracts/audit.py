"""The audit trail: entries that hold each other by their hashes.

The hash of an entry covers the hash of the one before it, so whoever changes, removes
or adds one has to make all later hashes anew. Anchors (position and hash, published
as events) say which hashes there were, so that this shows, too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

START = "0" * 64
"""Hash before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail.

    Attributes
    ----------
    position : counts from 1, without gaps.
    content : what happened, as plain JSON values.
    """

    position: int
    content: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the hash at a position was when it was published."""

    position: int
    hash: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Break:
    """Where the trail is not what it was.

    Attributes
    ----------
    kind : ``altered``, ``removed``, ``forked`` or ``not_in_log``.
    """

    position: int
    kind: str
    detail: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return JSON with one form for each value: sorted names, no spaces, UTF-8.

    Contents hold texts, whole numbers and null only; for these it is the form of
    RFC 8785.

    >>> canonical({"b": 1, "a": "é"}).decode()
    '{"a":"é","b":1}'
    """
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return text.encode()


def hash_of(previous: str, position: int, content: Mapping[str, Any]) -> str:
    """Return the hash of an entry: SHA-256 over position, previous hash and content."""
    head = f"{position}\n{previous}\n".encode()
    return hashlib.sha256(head + canonical(content)).hexdigest()


def following(last: Entry | None, content: Mapping[str, Any]) -> Entry:
    """Return the entry after ``last``; None: it is the first one.

    >>> first = following(None, {"action": "approve"})
    >>> second = following(first, {"action": "operate"})
    >>> second.position, second.previous == first.hash
    (2, True)
    """
    position = 1 if last is None else last.position + 1
    previous = START if last is None else last.hash
    return Entry(position, content, previous, hash_of(previous, position, content))


def breaks_in(
    entries: Sequence[Entry],
    anchors: Iterable[Anchor] = (),
    logged: Sequence[Mapping[str, Any]] | None = None,
) -> list[Break]:
    """Return where a trail is broken; empty: it is whole.

    Parameters
    ----------
    entries : by position.
    logged : contents that the log holds, in its order, without repeats; None: the log
        is not asked.
    """
    found = _broken_links(entries)
    found += _against_anchors({e.position: e.hash for e in entries}, anchors)
    if logged is not None:
        found += _against_log(entries, logged)
    return sorted(found, key=lambda each: (each.position, each.kind))


def _broken_links(entries: Sequence[Entry]) -> list[Break]:
    found: list[Break] = []
    position, previous = 0, START
    for entry in entries:
        position += 1
        if entry.position != position:
            gap = f"entries {position} to {entry.position - 1} are missing"
            found.append(Break(position, "removed", gap))
            position, previous = entry.position, entry.previous
        if entry.previous != previous:
            detail = "it does not follow the entry that is before it"
            found.append(Break(position, "forked", detail))
        if entry.hash != hash_of(entry.previous, entry.position, entry.content):
            detail = "its content is not what its hash was made of"
            found.append(Break(position, "altered", detail))
        previous = entry.hash
    return found


def _against_anchors(
    hashes: Mapping[int, str], anchors: Iterable[Anchor]
) -> list[Break]:
    found: list[Break] = []
    anchored: dict[int, str] = {}
    for anchor in anchors:
        position = anchor.position
        if anchored.setdefault(position, anchor.hash) != anchor.hash:
            detail = f"the log anchors two hashes ({anchor.event_id} is the later)"
            found.append(Break(position, "forked", detail))
        elif position not in hashes:
            detail = f"the log anchors it ({anchor.event_id}), the trail has it not"
            found.append(Break(position, "removed", detail))
        elif hashes[position] != anchor.hash:
            detail = f"the log anchors another hash ({anchor.event_id})"
            found.append(Break(position, "forked", detail))
    return found


def _against_log(
    entries: Sequence[Entry], logged: Sequence[Mapping[str, Any]]
) -> list[Break]:
    for entry in entries:
        if entry.position > len(logged):
            detail = "the log holds no such entry"
            return [Break(entry.position, "not_in_log", detail)]
        if canonical(entry.content) != canonical(logged[entry.position - 1]):
            detail = "the log holds another entry at this place"
            return [Break(entry.position, "not_in_log", detail)]
    if len(logged) > len(entries):
        count = len(logged) - len(entries)
        detail = f"the log holds {count} more, the trail has them not"
        return [Break(len(entries) + 1, "removed", detail)]
    return []
