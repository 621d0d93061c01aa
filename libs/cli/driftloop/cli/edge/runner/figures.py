"""Figures of what was answered, until they are reported: small, whatever the traffic.

Durations are counted in steps of a tenth (each bound is 1.1 times the one before), so a
quantile is at most 10 % too great and a report stays small.
"""

import heapq
import json
import math
import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from .unfamiliar import Unfamiliar

LEAST_SECONDS = 1e-6
STEP = 1.1
MAX_NAMED_COLUMNS = 50
MAX_NAME_CHARS = 200
LEAST_LOT = 1e-300
"""So that a lot of 0 does not end a draw."""
MAX_ROW_BYTES = 16 * 1024
"""Of a sampled row; a greater one is not kept."""

Row = dict[str, Any]


def text_of(moment: datetime) -> str:
    """Return a moment as it is written everywhere."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def step_of(seconds: float) -> int:
    """Return the number of the step that a duration falls into."""
    return max(
        0, math.ceil(math.log(max(seconds, LEAST_SECONDS) / LEAST_SECONDS, STEP))
    )


def quantile(steps: dict[int, int], share: float) -> float | None:
    """Return the duration within which a share of all ended; None: there were none."""
    wanted = share * sum(steps.values())
    reached = 0
    for step in sorted(steps):
        reached += steps[step]
        if reached >= wanted:
            return LEAST_SECONDS * STEP**step
    return None


class Figures:
    """Figures since the last report; thread-safe.

    Parameters
    ----------
    sample_rows : how many answered rows are kept, drawn at random; 0: none.
    """

    def __init__(self, sample_rows: int = 0) -> None:
        self._sample_rows = sample_rows
        self._lock = threading.Lock()
        self._lost = Counter[str]()
        self._changes = 0
        self._begin()

    def _begin(self) -> None:
        self.report_id = uuid4().hex
        self._since = datetime.now(UTC)
        self._counts = Counter[str]()
        self._columns = Counter[str]()
        self._steps = Counter[int]()
        self._drawn: list[tuple[float, int, Row]] = []

    @property
    def changes(self) -> int:
        """Grows with each call, so that what is unchanged need not be written."""
        return self._changes

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to report."""
        return not self._counts and not self._lost

    def answered(
        self,
        rows: int,
        seconds: float,
        unfamiliar: Sequence[Unfamiliar],
        unfamiliar_rows: int,
        failed: int = 0,
    ) -> None:
        """Count a request that was answered, but for ``failed`` of its rows."""
        with self._lock:
            self._changes += 1
            self._counts["request_count"] += 1
            self._counts["row_count"] += rows
            self._counts["error_count"] += failed
            self._counts["unfamiliar_row_count"] += unfamiliar_rows
            self._steps[step_of(seconds)] += 1
            for one in unfamiliar:
                self._columns[one.column] += one.row_count

    def failed(self, rows: int, seconds: float) -> None:
        """Count a request that was right and got no answer."""
        with self._lock:
            self._changes += 1
            self._counts["request_count"] += 1
            self._counts["row_count"] += rows
            self._counts["error_count"] += rows
            self._steps[step_of(seconds)] += 1

    def refused(self) -> None:
        """Count a request that was not right."""
        with self._lock:
            self._changes += 1
            self._counts["request_count"] += 1
            self._counts["refused_count"] += 1

    def lost(self, kind: str, count: int) -> None:
        """Count what was dropped because the spool was full: reports, or rows."""
        with self._lock:
            self._changes += 1
            self._lost[f"lost_{kind}_count"] += count

    def places(self, rows: int) -> list[tuple[float, int]]:
        """Draw which rows of a request are kept: their lots, and their positions.

        The rows with the least lots of all are kept, so that each row of the time has
        the same chance and only few are made into something to keep.
        """
        if not self._sample_rows:
            return []
        with self._lock:
            is_full = len(self._drawn) >= self._sample_rows
            bound = max(-self._drawn[0][0], LEAST_LOT) if is_full else 1.0
        if bound >= 1.0:
            lots = [(random.random(), at) for at in range(rows)]  # noqa: S311 - a sample
            return heapq.nsmallest(self._sample_rows, lots)
        found: list[tuple[float, int]] = []
        at = -1
        while True:  # skip to the next row whose lot is below the bound
            skip = math.log(1.0 - random.random()) / math.log1p(-bound)  # noqa: S311
            at += 1 + int(min(skip, rows))
            if at >= rows:
                return found
            found.append((random.random() * bound, at))  # noqa: S311 - a sample

    def keep(self, drawn: Sequence[tuple[float, Row]]) -> None:
        """Keep drawn rows with their lots, if these are still among the least."""
        with self._lock:
            for lot, row in drawn:
                if len(json.dumps(row)) > MAX_ROW_BYTES:
                    continue
                item = (-lot, self._changes, row)
                if len(self._drawn) < self._sample_rows:
                    heapq.heappush(self._drawn, item)
                elif item[0] > self._drawn[0][0]:
                    heapq.heapreplace(self._drawn, item)
                self._changes += 1  # also makes each item's second part unique

    def snapshot(self) -> tuple[dict[str, Any], list[Row]]:
        """Return the report so far, and the sampled rows."""
        with self._lock:
            return self._report(), [row for _, _, row in self._drawn]

    def close(self) -> tuple[dict[str, Any], list[Row]]:
        """Return the report and the sampled rows, and begin anew."""
        with self._lock:
            report, rows = self._report(), [row for _, _, row in self._drawn]
            self._lost.clear()
            self._begin()
        return report, rows

    def _report(self) -> dict[str, Any]:
        columns = self._columns.most_common(MAX_NAMED_COLUMNS)
        until = max(datetime.now(UTC), self._since)  # a clock may be put back
        names = ("request", "row", "refused", "error", "unfamiliar_row")
        return {
            "report_id": self.report_id,
            "since": text_of(self._since),
            "until": text_of(until),
            **{f"{name}_count": self._counts[f"{name}_count"] for name in names},
            "unfamiliar": {name[:MAX_NAME_CHARS]: count for name, count in columns},
            "latency_p50_seconds": quantile(self._steps, 0.5),
            "latency_p99_seconds": quantile(self._steps, 0.99),
            "sampled_row_count": len(self._drawn),
            "lost_report_count": self._lost["lost_report_count"],
            "lost_row_count": self._lost["lost_row_count"],
        }
