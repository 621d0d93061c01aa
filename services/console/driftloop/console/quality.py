"""What the validator found in the data of a pipeline, as the page shows it.

Like the board it comes out the same whatever the order of topics, and stays bounded:
counts in a :class:`~driftloop.console.timeline.Timeline`, and the newest of what is
shown singly.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from driftloop.console.timeline import Timeline
from driftloop.contracts import events as e

MAX_FINDINGS = 200
"""Checks by column; what more there are counts as :data:`OTHERS`."""
MAX_BATCHES = 8
MAX_FOUND_BATCHES = 20
SHOWN_FINDINGS = 12
OTHERS = ("others", "others")

Key = tuple[str, str, str]
"""Kind (``quarantine`` or ``warning``), column, check."""


@dataclass
class Finding:
    """What one check found in one column; detail and example are the newest."""

    rows: int = 0
    batches: int = 0
    rejected: int = 0
    latest: tuple[datetime, str, str, str | None] | None = None


@dataclass
class Batch:
    """One batch, from the event of what went on and that of what did not."""

    batch: str
    at: datetime
    shard: str
    kind: str
    start: datetime
    end: datetime
    good: int = 0
    bad: int = 0
    found: dict[Key, int] = field(default_factory=dict)
    is_rejected: bool = False
    places: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Topic, partition and offset of the two events, by topic."""


class Quality:
    """Findings over event time, batches, and how rows arrive."""

    def __init__(self) -> None:
        self.revision = 0
        self.timeline = Timeline()
        self.findings: dict[Key, Finding] = {}
        self.arrival: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._newest: dict[str, Batch] = {}
        self._found: dict[str, Batch] = {}

    def batch(self, batch: str) -> Batch | None:
        """Return one of the batches that are shown."""
        return self._found.get(batch) or self._newest.get(batch)

    def ingested(self, event: e.BatchIngested) -> None:
        """Count how rows arrived."""
        self.arrival["batches"] += 1
        self.arrival[event.kind] += event.row_count
        self.arrival["duplicates"] += event.duplicate_count
        self.arrival["late"] += event.late_count
        self.arrival["out_of_order"] += event.out_of_order_count
        self.arrival["revised"] += event.revised_count

    def versioned(self, event: e.DatasetVersioned) -> None:
        """Count labels that came before their row."""
        self.arrival["early_labels"] += event.early_label_count

    def validated(self, event: e.BatchValidated) -> None:
        """Take the half of a batch that went on."""
        self._checked(event)
        warned = self._warned(event, event.warnings)
        for batch in self._halves(event, bool(event.quarantined_count or warned)):
            batch.good = event.row_count
            batch.found |= warned

    def rejected(self, event: e.BatchRejected) -> None:
        """Take the half of a batch that was quarantined."""
        self._checked(event)
        self.timeline.add(event.span.end, "quarantined", event.row_count)
        is_rejected = any(r.severity == "reject" for r in event.reasons)
        found: dict[Key, int] = {}
        for reason in event.reasons:
            key = ("quarantine", reason.field, reason.check)
            whole = int(reason.severity == "reject")
            found[self._note(event, key, reason, whole)] = reason.row_count
        found |= self._warned(event, event.warnings)
        for batch in self._halves(event, True):
            batch.bad = event.row_count
            batch.good = event.batch_row_count - event.row_count
            batch.found |= found
            batch.is_rejected = is_rejected

    def _checked(self, event: e.BatchValidated | e.BatchRejected) -> None:
        start, end = event.span.start, event.span.end
        self.first = min(self.first or start, start)
        self.last = max(self.last or end, end)
        self.timeline.add(end, "rows", event.row_count)

    def _warned(
        self, event: e.RowsEvent, warnings: list[e.BatchWarning]
    ) -> dict[Key, int]:
        """Note what failed; too little data to tell is no finding."""
        found: dict[Key, int] = {}
        for warning in warnings:
            if warning.verdict == "failed":
                key = ("warning", warning.field, warning.check)
                found[self._note(event, key, warning, 0)] = warning.row_count
        return found

    def _note(
        self,
        event: e.RowsEvent,
        key: Key,
        what: e.RejectReason | e.BatchWarning,
        whole: int,
    ) -> Key:
        if key not in self.findings and len(self.findings) >= MAX_FINDINGS:
            key = (key[0], *OTHERS)
        finding = self.findings.setdefault(key, Finding())
        finding.rows += what.row_count
        finding.batches += 1
        finding.rejected += whole
        told = (event.span.end, event.meta.id, what.detail, what.example)
        finding.latest = max(finding.latest or told, told, key=lambda one: one[:2])
        self.timeline.add(event.span.end, "/".join(key), what.row_count)
        return key

    def _halves(
        self, event: e.BatchValidated | e.BatchRejected, has_findings: bool
    ) -> list[Batch]:
        """Return the batch of an event where it is kept; both halves are or none."""
        name = event.meta.causation_id or event.meta.id
        kept = [(self._newest, MAX_BATCHES)]
        if has_findings:
            kept.append((self._found, MAX_FOUND_BATCHES))
        batches = []
        for batches_kept, limit in kept:
            batch = batches_kept.get(name)
            if batch is None:
                batch = batches_kept[name] = Batch(
                    name, event.meta.time, event.shard, event.kind,
                    event.span.start, event.span.end,
                )  # fmt: skip
            batch.at = max(batch.at, event.meta.time)
            batch.start = min(batch.start, event.span.start)
            batch.end = max(batch.end, event.span.end)
            meta = event.meta
            batch.places[event.topic()] = (meta.topic, meta.partition, meta.offset)
            batches.append(batch)
            if len(batches_kept) > limit:
                del batches_kept[min(batches_kept.values(), key=_order).batch]
        return batches

    def as_json(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        batches = sorted(
            (self._newest | self._found).values(), key=_order, reverse=True
        )
        return {
            "stretches": [at.isoformat() for at in self.timeline.starts()],
            "stretch_s": self.timeline.width_s,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "rows": self.timeline.counts("rows"),
            "quarantined": self.timeline.counts("quarantined"),
            "findings": [self._finding_json(key) for key in self._shown()],
            "more_findings": max(0, len(self.findings) - SHOWN_FINDINGS),
            "batches": [_batch_json(batch) for batch in batches],
            "arrival": dict(self.arrival),
        }

    def _shown(self) -> list[Key]:
        """Return the findings that matter most: quarantined before only warned of."""
        ordered = sorted(self.findings, key=lambda k: (k[0], -self.findings[k].rows, k))
        return ordered[:SHOWN_FINDINGS]

    def _finding_json(self, key: Key) -> dict[str, Any]:
        finding = self.findings[key]
        at, _, detail, example = finding.latest or (None, "", "", None)
        return {
            **_key_json(key),
            "rows": finding.rows,
            "batches": finding.batches,
            "rejected": finding.rejected,
            "last": at.isoformat() if at else None,
            "detail": detail,
            "example": example,
            "counts": self.timeline.counts("/".join(key)),
        }


def _order(batch: Batch) -> tuple[datetime, str]:
    return (batch.at, batch.batch)


def _key_json(key: Key) -> dict[str, str]:
    kind, column, check = key
    return {"kind": kind, "field": column, "check": check}


def _batch_json(batch: Batch) -> dict[str, Any]:
    return {
        "batch": batch.batch,
        "at": batch.at.isoformat(),
        "source": batch.shard,
        "kind": batch.kind,
        "start": batch.start.isoformat(),
        "end": batch.end.isoformat(),
        "good": batch.good,
        "bad": batch.bad,
        "rejected": batch.is_rejected,
        "found": [
            {**_key_json(key), "rows": rows}
            for key, rows in sorted(batch.found.items())
        ],
    }
