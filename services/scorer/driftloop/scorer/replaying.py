"""What two versions say of recorded rows, paired with the labels, as figures.

Pure. Rows and labels come in the order of the log, in whichever partitions they are;
an answer waits for its label and a label for its row, within a bound of memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import Measurement, PairedComparison, Span
from driftloop.models.columns import Floats
from driftloop.models.losses import measured, paired_over_time
from driftloop.models.pairing import (
    Label,
    Pair,
    Prediction,
    as_time,
    labelled,
    labels_of,
    predictions_of,
    within,
)
from driftloop.scorer.core import Answers, differing, scored_rows

MAX_WAITING = 100_000
"""Answers, and labels, that wait for each other: some 60 MB at most."""
W = TypeVar("W", Prediction, Label)
V = TypeVar("V", Prediction, Label)


@dataclass(frozen=True)
class Rules:
    """What is compared, and how.

    Attributes
    ----------
    horizon : event time for which a row's label is waited for.
    learned_until : rows up to this event time are left out.
    most_rows : that are scored; later ones are left out.
    tolerance : see :func:`core.differing`.
    """

    champion_version: int
    candidate_version: int
    metric: str
    target: str
    horizon: timedelta
    learned_until: datetime
    most_rows: int
    tolerance: float = 0.0
    most_waiting: int = MAX_WAITING


class Figures(NamedTuple):
    """What came of it; ``span`` is event time of the compared rows."""

    labelled_count: int
    span: Span | None
    measurements: list[Measurement]
    comparison: PairedComparison | None


class Replay:
    """Recorded rows before two versions; see the attributes for what is counted.

    Attributes
    ----------
    learned_count : rows left out, as one of the versions has learned them.
    row_count : rows that both versions were given.
    beyond_count : rows left out for a limit: of rows, or of answers that wait.
    error_count, champion_error_count : rows without a finite answer.
    compared_count, different_count : rows that both answered, and of those the ones
        where they differ.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._answers: dict[str, Prediction] = {}
        self._labels: dict[str, Label] = {}
        self._times: list[npt.NDArray[np.int64]] = []
        self._champion: list[Floats] = []
        self._candidate: list[Floats] = []
        self.learned_count = 0
        self.row_count = 0
        self.beyond_count = 0
        self.error_count = 0
        self.champion_error_count = 0
        self.compared_count = 0
        self.different_count = 0

    def to_score(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that neither version has learned; count the others."""
        cut = pa.scalar(self._rules.learned_until, pa.timestamp("us", "UTC"))
        newer = rows.filter(pc.greater(rows.column("event_time"), cut))
        self.learned_count += rows.num_rows - newer.num_rows
        room = self._rules.most_rows - self.row_count
        self.beyond_count += max(0, newer.num_rows - room)
        return newer.slice(0, max(0, room))

    def add(self, rows: pa.RecordBatch, champion: Answers, candidate: Answers) -> None:
        """Take what both versions said of rows, and the labels that came with them."""
        rules = self._rules
        self.row_count += rows.num_rows
        self.champion_error_count += champion.error_count
        self.error_count += candidate.error_count
        compared, different = differing(champion, candidate, rules.tolerance)
        self.compared_count += compared
        self.different_count += different
        said = scored_rows(rows, champion, candidate, rules.candidate_version)
        predictions = predictions_of(
            said, rules.champion_version, rules.candidate_version
        )
        pairs, rest = _met(predictions, self._labels)
        self._compare(pairs)
        self.beyond_count += _keep(self._answers, rest, rules.most_waiting)
        self.add_labels(rows)

    def add_labels(self, rows: pa.RecordBatch) -> None:
        """Take labels; the first one of a row that waits holds."""
        rules = self._rules
        found = labels_of(rows, rules.target, is_number=rules.metric != "log_loss")
        pairs, rest = _met(found, self._answers)
        self._compare([(said, label) for label, said in pairs])
        _keep(self._labels, rest, rules.most_waiting)

    def _compare(self, pairs: Sequence[Pair]) -> None:
        for rows in labelled(within(pairs, self._rules.horizon), self._rules.metric):
            if rows.candidate is not None:  # else the candidate failed: it is counted
                self._times.append(rows.times_us)
                self._champion.append(rows.champion)
                self._candidate.append(rows.candidate)

    def figures(self) -> Figures:
        """Compare the two on all rows with a label, in order of event time."""
        if not self._times:
            return Figures(0, None, [], None)
        times = np.concatenate(self._times)
        order = np.argsort(times, kind="stable")
        champion = np.concatenate(self._champion)[order]
        candidate = np.concatenate(self._candidate)[order]
        rules = self._rules
        return Figures(
            len(times),
            Span(start=as_time(times.min()), end=as_time(times.max())),
            [
                Measurement(
                    version=rules.champion_version, role="champion",
                    metric=rules.metric, value=measured(rules.metric, champion),
                ),
                Measurement(
                    version=rules.candidate_version, role="candidate",
                    metric=rules.metric, value=measured(rules.metric, candidate),
                ),
            ],
            paired_over_time(candidate, champion),
        )  # fmt: skip


def _met(
    arrived: Sequence[W], waiting: dict[str, V]
) -> tuple[list[tuple[W, V]], list[W]]:
    """Return pairs, taken out of ``waiting``, and the arrived without a partner."""
    by_id = {row.row_id: row for row in reversed(arrived)}
    pairs = [
        (by_id.pop(row_id), waiting.pop(row_id))
        for row_id in list(by_id)
        if row_id in waiting
    ]
    return pairs, list(by_id.values())


def _keep(waiting: dict[str, W], rows: Sequence[W], most: int) -> int:
    """Let rows wait; return how many of the oldest had to go for it."""
    for row in rows:
        waiting.setdefault(row.row_id, row)
    gone = max(0, len(waiting) - most)
    for _ in range(gone):
        del waiting[next(iter(waiting))]
    return gone
