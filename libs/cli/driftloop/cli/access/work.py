"""What the commands about rights and their use do: ask the registry, read the log."""

from typing import Any

from driftloop.cli.context import Installation, every
from driftloop.cli.log import read_log
from driftloop.contracts.audit import Anchor, Break, Entry, breaks_in
from driftloop.contracts.identity import AuditAnchored, AuditNoted

PAGE = 500


def create(
    installation: Installation,
    name: str,
    roles: list[str],
    subject: str | None,
    days: int,
) -> dict[str, Any]:
    """Make a token; the answer is the only place that has it."""
    body = {"name": name, "roles": roles, "subject": subject, "days": days}
    answer: dict[str, Any] = installation.request("POST", "/tokens", json=body)
    return answer


def tokens(installation: Installation) -> list[dict[str, Any]]:
    """Return the tokens that one may see, newest first."""
    found: list[dict[str, Any]] = installation.request("GET", "/tokens")["items"]
    return found


def revoke(installation: Installation, token_id: str) -> dict[str, Any]:
    """Take a token back."""
    answer: dict[str, Any] = installation.request("DELETE", f"/tokens/{token_id}")
    return answer


def me(installation: Installation) -> dict[str, Any]:
    """Return who one is to the registry."""
    answer: dict[str, Any] = installation.request("GET", "/me")
    return answer


def entries_after(installation: Installation, position: int) -> list[Entry]:
    """Return the audit trail's entries after a position."""
    items = every(installation, "/audit", cursor=position, limit=PAGE)
    return [Entry(**item) for item in items]


def verify(installation: Installation) -> dict[str, Any]:
    """Check the registry's audit trail against the log, here.

    The registry hands over its entries; hashes, anchors and the log's own notes are
    read and compared by this process, so that a registry that lies is found out. One
    that is behind the log is asked to check for itself first, which it does once it has
    read as far: a slow one has lost nothing.

    Raises
    ------
    CommandError
        When the registry does not come to read the log, among others.
    """
    entries = entries_after(installation, 0)
    before = len(entries)
    notes, anchors = _logged(installation)
    if _end_of(entries) < len(notes):
        installation.request("GET", "/audit/verify")
        entries += entries_after(installation, _end_of(entries))
    entries = entries[: max(before, len(notes))]
    breaks: list[Break] = breaks_in(entries, anchors, notes)
    return {
        "whole": not breaks,
        "entry_count": len(entries),
        "anchor_count": len(anchors),
        "breaks": [each.as_json() for each in breaks],
    }


def _end_of(entries: list[Entry]) -> int:
    return entries[-1].position if entries else 0


def _logged(
    installation: Installation,
) -> tuple[list[dict[str, Any]], list[Anchor]]:
    topics = (AuditNoted.topic(), AuditAnchored.topic())
    found = read_log(
        installation.bootstrap,
        topics,
        installation.store,
        config=installation.settings.kafka_config,
    )
    found.sort(key=lambda entry: entry.meta.offset)
    notes: dict[str, dict[str, Any]] = {}
    anchors: list[Anchor] = []
    for entry in found:
        if isinstance(entry.event, AuditNoted):
            notes.setdefault(entry.meta.id, entry.event.as_entry())
        elif isinstance(entry.event, AuditAnchored):
            anchor = entry.event
            anchors.append(Anchor(anchor.position, anchor.hash, entry.meta.id))
    return list(notes.values()), anchors
