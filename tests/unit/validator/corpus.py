"""Eleven months of an hourly weather station, with every kind of fault at known places.

The clean part has what raises false alarms in practice: seasons, days, skewed values,
calm hours, missing values and late batches within the limits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.checks import active_checks
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.validator.columns import Failure
from driftloop.validator.core import Checked, check, contract_of
from driftloop.validator.inspection import ShardState, Surroundings, inspect
from driftloop.validator.reference import Reference, reference_of

SEED = 20261121
ROWS = 8_000
FIRST_FAULT = 1_200
START = datetime(2026, 1, 1, tzinfo=UTC)

SPEC = parse_pipeline(
    """
name: weather
task: regression
data:
  target: demand
  features:
    temp: {min: -60, max: 400, unit: "°C"}
    hum: {min: 0, max: 100, unit: "%"}
    pressure: {unit: hPa}
    wind: {min: 0, unit: m/s}
    flow: {min: 0}
    noise: {}
    rain: {min: 0, nullable: true}
    sky: {type: category, values: [clear, mist, rain]}
    plate: {type: category, pattern: "[A-Z]{2}-[0-9]{4}"}
    casual: {type: integer, min: 0}
    registered: {type: integer, min: 0}
    total: {type: integer, min: 0}
checks:
  - {check: spikes, severity: quarantine}
  - {check: unit_slip, severity: quarantine}
  - {check: stuck, severity: quarantine}
  - {check: distribution, columns: [flow, sky]}
  - {check: null_ratio, columns: [rain], max_ratio: 0.6}
  - {check: unique, columns: [plate]}
  - {check: row_count, min: 6}
  - {check: freshness, max_age_hours: 12}
  - {check: monotonic, severity: quarantine}
  - {check: expression, sql: casual + registered = total}
"""
)


@dataclass(frozen=True)
class Fault:
    """Where something is wrong, and which check has to say it.

    Attributes
    ----------
    rows : positions in the stream, end exclusive.
    """

    check: str
    field: str
    rows: range


@dataclass
class Corpus:
    """A stream as columns, what is wrong in it, and how it is cut and delivered."""

    columns: dict[str, list[Any]]
    faults: list[Fault] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)
    delayed: list[range] = field(default_factory=list)

    def spoil(self, check: str, name: str, rows: range, values: Sequence[Any]) -> None:
        """Overwrite values of one column and note it."""
        self.columns[name][rows.start : rows.stop] = list(values)
        self.faults.append(Fault(check, name, rows))

    def values(self, name: str, rows: range) -> np.ndarray:
        return np.array(self.columns[name][rows.start : rows.stop], dtype=float)


def clean_corpus() -> Corpus:
    """Return the stream as it should be."""
    rng = np.random.default_rng(SEED)
    hours = np.arange(ROWS)
    slow = np.zeros(ROWS)
    for n in range(1, ROWS):
        slow[n] = 0.97 * slow[n - 1] + rng.normal(scale=0.6)
    day = np.sin(2 * np.pi * (hours % 24 - 8) / 24)
    season = -np.cos(2 * np.pi * hours / (365 * 24))
    temp = 9 + 11 * season + 4 * day + slow
    casual = rng.poisson(5 + 4 * (season + 1), ROWS)
    registered = rng.poisson(40 + 25 * (day + 1), ROWS)
    rain = np.round(rng.gamma(0.3, 2.0, ROWS), 1)
    numbers = {
        "temp": np.round(temp, 1),
        "hum": np.round(np.clip(60 - 15 * day + 4 * slow, 3, 100), 0),
        "pressure": np.round(1013 + 6 * np.roll(slow, 40), 1),
        "wind": np.round(rng.weibull(2, ROWS) * 4, 1),
        "flow": np.round(rng.lognormal(2, 0.5, ROWS), 3),
        "noise": np.round(rng.normal(size=ROWS), 4),
        "casual": casual,
        "registered": registered,
        "total": casual + registered,
        "demand": np.round(100 + 50 * season + rng.normal(scale=9, size=ROWS), 1),
    }
    columns: dict[str, list[Any]] = {k: v.tolist() for k, v in numbers.items()}
    lacks = rng.random(ROWS) < 0.1
    columns["rain"] = [
        None if gone else value
        for gone, value in zip(lacks, rain.tolist(), strict=True)
    ]
    columns["sky"] = rng.choice(["clear", "mist", "rain"], ROWS).tolist()
    columns["plate"] = [f"{'ABCD'[n % 4]}X-{n:04d}" for n in range(ROWS)]
    columns["id"] = [f"r{n}" for n in range(ROWS)]
    columns["event_time"] = [START + timedelta(hours=n) for n in range(ROWS)]
    return Corpus(columns)


def faulty_corpus() -> Corpus:
    """Return the stream with four faults of each kind, none over another."""
    corpus = clean_corpus()
    free = iter(range(FIRST_FAULT, ROWS, 60))

    def span(length: int) -> range:
        start = next(free) + 7
        for _ in range(length // 60):
            next(free)
        return range(start, start + length)

    _spoil_values(corpus, span)
    _spoil_batches(corpus, span)
    _spoil_sensors(corpus, span)
    return corpus


def _spoil_values(corpus: Corpus, span: Any) -> None:
    """What one row alone shows."""
    for name, wrong in (("hum", "wet"), ("wind", "-"), ("total", "3.5"), ("temp", "x")):
        corpus.spoil("type", name, span(1), [wrong])
    for name in ("hum", "wind", "sky", "casual"):
        corpus.spoil("null", name, span(2), [None] * 2)
    for name, wrong in (("hum", 101.0), ("wind", -1.0), ("temp", -300.0), ("flow", -9)):
        corpus.spoil("range", name, span(3), [wrong] * 3)
    for wrong in ("Clear", "hail", "", "mist "):
        corpus.spoil("values", "sky", span(1), [wrong])
    for wrong in ("AX-123", "ax-1234", "AX-12345", "AX 1234\n"):
        corpus.spoil("pattern", "plate", span(1), [wrong])
    for back in (1, 2, 5, 700):
        rows = span(1)
        corpus.spoil("duplicate", "id", rows, [corpus.columns["id"][rows[0] - back]])
    for back in (1, 3, 8, 500):
        rows = span(1)
        before = corpus.columns["plate"][rows[0] - back]
        corpus.spoil("unique", "plate", rows, [before])
    for amount in (1, -1, 7, 100):
        rows = span(2)
        wrong = corpus.values("total", rows) + amount
        corpus.columns["total"][rows.start : rows.stop] = wrong.astype(int).tolist()
        corpus.faults.append(Fault("expression", "casual + registered = total", rows))
    for hours in (1.5, 3.0, 30.0, 240.0):
        rows = span(1)
        early = corpus.columns["event_time"][rows[0]] - timedelta(hours=hours)
        corpus.spoil("monotonic", "event_time", rows, [early])


def _spoil_batches(corpus: Corpus, span: Any) -> None:
    """What a batch as a whole shows."""
    for _ in range(4):
        rows = span(48)  # at least one whole batch of 24 lies in it
        corpus.spoil("null_ratio", "rain", rows, [None] * 48)
    for length in (1, 2, 3, 5):
        rows = span(length)
        corpus.cuts |= {rows.start, rows.stop}
        corpus.faults.append(Fault("row_count", "rows", rows))
    for _ in range(4):
        rows = span(24)
        corpus.delayed.append(rows)
        corpus.faults.append(Fault("freshness", "event_time", rows))


def _spoil_sensors(corpus: Corpus, span: Any) -> None:
    """What only the rows before show."""
    for name, change in (
        ("pressure", lambda x: x / 10),
        ("hum", lambda x: x / 100),
        ("wind", lambda x: x * 3.6 * 10),
        ("noise", lambda x: x * 1000),
        ("temp", lambda x: x * 1.8 + 32),
        ("temp", lambda x: x + 273.15),
    ):
        rows = span(72)
        corpus.spoil("unit_slip", name, rows, change(corpus.values(name, rows)))
    for name in ("pressure", "wind", "noise", "temp"):
        rows = span(72)
        corpus.spoil("stuck", name, rows, [corpus.columns[name][rows.start]] * 72)
    for name, wrong in (("pressure", 700), ("temp", 350), ("noise", -40), ("hum", 1e9)):
        rows = span(1)
        column = "flow" if name == "hum" else name
        corpus.spoil("spikes", column, rows, [float(wrong)])
    for factor in (0.5, 1.9):
        rows = span(240)
        changed = corpus.values("flow", rows) * factor
        corpus.spoil("distribution", "flow", rows, np.round(changed, 3))
    for sky in ("mist", "rain"):
        rows = span(240)
        often = [
            value if n % 3 else sky for n, value in enumerate(["clear", sky] * 120)
        ]
        corpus.spoil("distribution", "sky", rows, often)


# ── running it ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Alarm:
    """Rows that one check on one field found."""

    check: str
    field: str
    rows: list[int]


def run(
    corpus: Corpus, batch_rows: int, spec: PipelineSpec = SPEC
) -> Iterator[tuple[range, Checked, list[Alarm]]]:
    """Validate a corpus batch by batch, as the service does."""
    contract = contract_of(spec, "observations", spec.data.features, None)
    state, reference = ShardState(), None
    accepted: list[pa.RecordBatch] = []
    ids: set[str] = set()
    plates: set[str] = set()
    for rows in _batches(corpus, batch_rows):
        batch = _batch(corpus, rows)
        known = np.array([row_id in ids for row_id in batch.column("id").to_pylist()])
        further = _Further(spec, state, _around(corpus, rows, reference, plates))
        checked = check(batch, contract, known, further)
        state = further.state
        told = {(alarm.check, alarm.field) for alarm in further.alarms}
        alarms = further.alarms + [
            Alarm(r.check, r.field, list(rows))
            for r in checked.reasons
            if (r.check, r.field) not in told
        ]
        if checked.good is not None:
            ids |= set(checked.good.column("id").to_pylist())
            plates |= set(checked.good.column("plate").to_pylist())
            if reference is None:
                accepted.append(checked.good)
                table = pa.Table.from_batches(accepted)
                if table.num_rows >= spec.data.reference_rows:
                    reference = reference_of(table.slice(0, spec.data.reference_rows))
        yield rows, checked, alarms


class _Further:
    """The pipeline's checks on the good rows, and what they told."""

    def __init__(
        self, spec: PipelineSpec, state: ShardState, around: Surroundings
    ) -> None:
        self.spec, self.state, self.around = spec, state, around
        self.alarms: list[Alarm] = []

    def __call__(self, good: pa.RecordBatch) -> list[Failure]:
        checks = active_checks(self.spec.checks)
        found, self.state = inspect(good, checks, self.state, self.around)
        at = [int(text) for text in good.column("source").to_pylist()]
        self.alarms = [
            Alarm(f.check, f.field, [at[n] for n in np.flatnonzero(f.mask)])
            for f in found
            if f.verdict == "failed"
        ]
        return found


def _around(
    corpus: Corpus, rows: range, reference: Reference | None, plates: set[str]
) -> Surroundings:
    newest = max(corpus.columns["event_time"][rows.start : rows.stop])
    is_late = any(set(rows) & set(delayed) for delayed in corpus.delayed)
    return Surroundings(
        features=SPEC.data.features,
        came=len(rows),
        arrived_at=newest + timedelta(hours=30 if is_late else 2),
        reference=reference,
        known=lambda rule, texts: set(texts) & plates,
        imported=lambda rule, frame: (),
    )


def _batches(corpus: Corpus, batch_rows: int) -> Iterator[range]:
    ends = sorted({*range(0, ROWS + 1, batch_rows), *corpus.cuts, ROWS})
    # a cut must not leave other short batches: these are only the faults' own
    kept = [0]
    for end in ends[1:]:
        if end in corpus.cuts or end == ROWS or end - kept[-1] >= 8:
            kept.append(end)
    yield from (range(a, b) for a, b in pairwise(kept))


def _batch(corpus: Corpus, rows: range) -> pa.RecordBatch:
    arrays: dict[str, pa.Array] = {}
    for name, column in corpus.columns.items():
        values = column[rows.start : rows.stop]
        if any(isinstance(v, str) for v in values) and name in NUMBERS:
            values = [None if v is None else str(v) for v in values]  # as ingest does
        arrays[name] = pa.array(values)
    arrays["event_time"] = arrays["event_time"].cast(pa.timestamp("us", "UTC"))
    arrays["source"] = pa.array([str(n) for n in rows])  # the position, for scoring
    return pa.RecordBatch.from_pydict(arrays)


NUMBERS = [name for name, f in SPEC.data.features.items() if f.type != "category"]


GATHERED_ROWS = 240
"""After a fault, in which a verdict on distributions may still be about its rows."""


@dataclass
class Score:
    """How a check did."""

    caught: int = 0
    missed: int = 0
    false_alarms: int = 0


def score(corpus: Corpus, batch_rows: int) -> dict[str, Score]:
    """Count by check: faults caught and missed, and alarms where nothing is wrong.

    A fault is caught by an alarm of its check and field on one of its rows. An alarm
    is false when no fault of its field is there; distributions may tell one until the
    rows that were gathered with it are judged.
    """
    result = {fault.check: Score() for fault in corpus.faults}
    caught: set[int] = set()
    for _, _, alarms in run(corpus, batch_rows):
        for alarm in alarms:
            there = _faults_at(corpus, alarm)
            caught |= {n for n in there if corpus.faults[n].check == alarm.check}
            if not there:
                result[alarm.check].false_alarms += 1
    for number, fault in enumerate(corpus.faults):
        if number in caught:
            result[fault.check].caught += 1
        else:
            result[fault.check].missed += 1
    return result


def _faults_at(corpus: Corpus, alarm: Alarm) -> set[int]:
    reach = GATHERED_ROWS if alarm.check == "distribution" else 0
    return {
        number
        for number, fault in enumerate(corpus.faults)
        if fault.field == alarm.field
        and set(range(fault.rows.start, fault.rows.stop + reach)) & set(alarm.rows)
    }
