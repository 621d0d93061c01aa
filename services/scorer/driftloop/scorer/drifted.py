"""Which columns have drifted, by the monitor's verdicts that hold now.

Columns of a verdict on the error hold for the version that it speaks of, until a newer
one on that version. Wrong values (a sensor fault) are the data's, whichever version
answers, until the monitor says that they are right again. Which of two topics is read
first does not matter: what counts is when the monitor wrote.
"""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from driftloop.contracts.events import DriftDetected, DriftEnded

DRIFTED_HEADER = "x-driftloop-drifted"
FAULTS = frozenset({"sensor_fault", "schema_change"})
"""Causes by which values are wrong, whichever version answers."""
SHIFTS = frozenset({"population_shift", "concept_drift", "traffic_mix"})
"""Causes that say of a version which of its columns are others now; what is wrong with
labels, or not known yet, says nothing of columns."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """A column of which the monitor says that its values are others now.

    Attributes
    ----------
    since : event time.
    """

    column: str
    cause: str
    since: datetime

    def __str__(self) -> str:
        what = "wrong" if self.cause in FAULTS else "drifted"
        return f"{self.column}: {what} since {self.since:%Y-%m-%d}, by the monitor"


@dataclass
class _Verdicts:
    """Of one pipeline; ``ended`` is by column when its fault was last said to be over.

    ``latest`` is by version the last verdict on its error.
    """

    faults: dict[str, DriftDetected] = field(default_factory=dict)
    ended: dict[str, datetime] = field(default_factory=dict)
    latest: dict[int | None, DriftDetected] = field(default_factory=dict)


class Drifts:
    """The verdicts that hold; written by the topics' follower, read by requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: dict[str, _Verdicts] = {}

    def detected(self, event: DriftDetected) -> None:
        """Take a verdict."""
        with self._lock:
            found = self._verdicts.setdefault(event.pipeline, _Verdicts())
            if event.cause in FAULTS:
                for column in event.features:
                    found.faults[column] = _newer(found.faults.get(column), event)
            elif event.cause in SHIFTS:
                version = event.model_version
                found.latest[version] = _newer(found.latest.get(version), event)

    def ended(self, event: DriftEnded) -> None:
        """Take the end of a fault."""
        with self._lock:
            found = self._verdicts.setdefault(event.pipeline, _Verdicts())
            for column in event.features:
                before = found.ended.get(column, event.meta.time)
                found.ended[column] = max(before, event.meta.time)

    def of(
        self, pipeline: str, version: int, columns: Collection[str]
    ) -> Sequence[Drifted]:
        """Return those of a version's columns that have drifted, by name."""
        if pipeline not in self._verdicts:
            return ()
        with self._lock:
            found = self._verdicts[pipeline]
            held = {}
            verdict = found.latest.get(version)
            for column in verdict.features if verdict else ():
                held[column] = verdict
            for column, fault in found.faults.items():
                over = found.ended.get(column)
                if over is None or over < fault.meta.time:
                    held[column] = fault
        return [
            Drifted(column, event.cause, event.since)
            for column, event in sorted(held.items())
            if event is not None and column in columns
        ]


def _newer(before: DriftDetected | None, event: DriftDetected) -> DriftDetected:
    is_older = before is not None and before.meta.time > event.meta.time
    return before if before is not None and is_older else event


def drifted_headers(found: Sequence[Drifted]) -> dict[str, str]:
    """Return the header of an answer: the columns' names, percent-encoded."""
    if not found:
        return {}
    return {DRIFTED_HEADER: ", ".join(quote(one.column, safe="") for one in found)}
