"""PART=causes: why the error rose, or inputs changed: said against what was done.

Real rows of the examples go through the validator's rules and the monitor's handlers,
with a champion that driftloop trained; at a known moment one thing changes.
"""

import json
import os
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    BatchRejected,
    BatchScored,
    BatchValidated,
    DriftDetected,
    ModelDeployed,
    Span,
)
from driftloop.scorer.core import finite_answers, scored_rows
from driftloop.trainer import judging
from driftloop.validator.core import check, contract_of
from scipy.stats import binomtest

from tests.bench.cause_streams import (
    SOURCES,
    STRENGTHS,
    Case,
    Stream,
    World,
    bike,
    rain,
    streams,
)
from tests.bench.figures import Figure
from tests.unit.monitor.story import PACKAGE, InProcess

SEEDS = [int(seed) for seed in os.environ.get("CAUSE_SEEDS", "0").split(",")]
FAULT_SEEDS = [
    int(seed) for seed in os.environ.get("CAUSE_FAULT_SEEDS", "").split(",") if seed
]
"""Of these the faults of values and schema alone, moderate and strong: whether they
lead to trainings takes many of them to tell."""
RESULT, TABLES = Path("build/causes.json"), Path("build/causes.md")
LABEL_DELAY_DAYS = 1
OPEN = "not_enough_data"
FAULTS = ("sensor_fault", "schema_change", "label_fault")
VALUE_FAULTS = FAULTS[:2]
INTERVAL = 0.95
SURE = (0.0, 0.5, 0.7, 0.9, 1.01)
"""Edges of the confidences of the reliability table."""
HARM = 1.15
DAYS_AFTER_VERDICT = 4
"""In which a later verdict may still lead to a training."""
CAUSES = (
    "none", "not_enough_data", "sensor_fault", "schema_change", "seasonality",
    "population_shift", "concept_drift", "label_fault", "traffic_mix",
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What was said of one stream.

    Attributes
    ----------
    first : cause of the first verdict after the onset that says one.
    harm : mean loss of the rows after it to that of those before; where it is less than
        :data:`HARM` and no fault, it is right to say nothing.
    trained : whether a training was advised at any time after it.
    early : causes that were told before it, where nothing had changed.
    """

    world: str
    cause: str
    kind: str
    strength: str
    seed: int
    first: str
    confidence: float
    trained: bool
    early: list[str]
    harm: float
    is_right: bool
    days: float
    features: list[str]
    alerts: list[str]
    explanation: str = ""


class Watched:
    """One stream on its way through validator, champion and monitor."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        spec = stream.world.spec
        self._contracts = {
            kind: contract_of(spec, kind, spec.data.features, spec.data.classes)
            for kind in ("observations", "labels")
        }
        self._monitor = InProcess(spec, lambda _: stream.learned.packaged)
        self._numbers = count()

    def told(self, known: dict[str, bytes]) -> Iterator[tuple[int, Event]]:
        """Yield what the monitor tells, with the day on which it does.

        Parameters
        ----------
        known : state of the monitor just before the onset, by :attr:`Stream.key`;
            filled where it lacks this one.
        """
        stream = self._stream
        if stream.key in known:
            self._restore(known[stream.key])
            self._numbers = count(100_000)
        else:
            deployed = ModelDeployed(
                pipeline=stream.world.spec.name, rollout_id="r1", version=1,
                package=PACKAGE,
            )  # fmt: skip
            self._monitor.take(deployed)
            yield from self._days(range(stream.onset))
            known[stream.key] = self._saved()
        yield from self._days(range(stream.onset, len(stream.sent)))
        self._monitor.close()

    def _saved(self) -> bytes:
        saved: bytes = self._database().serialize()
        return saved

    def _restore(self, saved: bytes) -> None:
        self._database().deserialize(saved)

    def _database(self) -> sqlite3.Connection:
        connection = self._monitor.session.connection().connection
        found = connection.driver_connection
        self._monitor.session.commit()
        assert isinstance(found, sqlite3.Connection)
        return found

    def _days(self, days: range) -> Iterator[tuple[int, Event]]:
        stream = self._stream
        for day in days:
            rows = stream.sent[day]
            for source in SOURCES:
                of_source = rows[rows.source == source]
                for event, cause in self._observed(of_source, source):
                    yield from ((day, e) for e in self._monitor.take(event, cause))
                    if isinstance(event, BatchValidated):
                        scored = self._scored(event)
                        told = self._monitor.take(scored)
                        yield from ((day, e) for e in told)
            if day >= LABEL_DELAY_DAYS:
                labels = stream.labels[day - LABEL_DELAY_DAYS]
                for source in SOURCES:
                    late = self._labelled(labels[labels.source == source], source)
                    if late is not None:
                        yield from ((day, e) for e in self._monitor.take(late))

    def _observed(self, rows: Any, source: str) -> Iterator[tuple[Event, str]]:
        if not len(rows):
            return
        batch = pa.RecordBatch.from_pandas(rows, preserve_index=False)
        checked = check(batch, self._contracts["observations"])
        cause = f"b{next(self._numbers)}"
        bad = checked.bad.num_rows if checked.bad is not None else 0
        if checked.bad is not None:
            yield BatchRejected(
                **self._base(batch, source) | {"row_count": bad},
                batch_row_count=batch.num_rows, reasons=checked.reasons,
            ).with_rows(checked.bad), cause  # fmt: skip
        if checked.good is not None:
            base = self._base(checked.good, source)
            yield (
                BatchValidated(
                    **base, watermark=base["span"].start, quarantined_count=bad
                ).with_rows(checked.good),
                cause,
            )

    def _scored(self, event: BatchValidated) -> Event:
        learned = self._stream.learned
        rows = event.rows
        said = learned.model.predict(pa.Table.from_batches([rows]))
        answers = finite_answers(said.prediction, said.score, learned.classes, 0.0)
        base = self._base(rows, event.shard)
        return BatchScored(**base, duration_seconds=0.0, champion_version=1).with_rows(
            scored_rows(rows, answers, None, 0)
        )

    def _labelled(self, labels: Any, source: str) -> Event | None:
        if not len(labels):
            return None
        batch = pa.RecordBatch.from_pandas(labels, preserve_index=False)
        good = check(batch, self._contracts["labels"]).good
        if good is None:
            return None
        base = self._base(good, source) | {"kind": "labels"}
        return BatchValidated(**base, watermark=base["span"].start).with_rows(good)

    def _base(self, rows: pa.RecordBatch, source: str) -> dict[str, Any]:
        times = rows.column("event_time")
        return {
            "pipeline": self._stream.world.spec.name, "shard": source,
            "kind": "observations", "row_count": rows.num_rows,
            "span": Span(start=times[0].as_py(), end=times[-1].as_py()),
        }  # fmt: skip


def watched(
    case: Case, strength: int, seed: int, stream: Stream, known: dict[str, bytes]
) -> Told:
    """Send a stream through and return what was said of it.

    It ends :data:`DAYS_AFTER_VERDICT` after the first verdict.
    """
    verdicts: list[tuple[int, DriftDetected]] = []
    alerts = []
    last, harm = len(stream.sent), harm_of(stream)
    for day, event in Watched(stream).told(known):
        if day > last:
            break
        if isinstance(event, DriftDetected):
            verdicts.append((day, event))
            if day >= stream.onset and event.cause != OPEN:
                last = min(last, day + DAYS_AFTER_VERDICT)
        elif isinstance(event, AlertRaised) and day >= stream.onset:
            alerts.append(event.condition)
    after = [(day, event) for day, event in verdicts if day >= stream.onset]
    told = [event for _, event in after]
    first = next((e for e in told if e.cause != OPEN), told[0] if told else None)
    cause = first.cause if first else "none"
    is_harmless = case.cause not in FAULTS and harm < HARM
    return Told(
        world=stream.world.name, cause=case.cause, kind=case.kind,
        strength=STRENGTHS[strength], seed=seed, first=cause,
        confidence=getattr(first, "confidence", None) or 0.0,
        trained=any(e.retrain_advised for _, e in after),
        early=[e.cause for day, e in verdicts if day < stream.onset],
        harm=round(harm, 3),
        is_right=cause == case.cause
        or cause in case.also
        or (is_harmless and cause == "none"),
        days=(after[0][0] - stream.onset) if after else -1,
        features=first.features if first else [], alerts=alerts,
        explanation=first.explanation if first else "",
    )  # fmt: skip


def harm_of(stream: Stream) -> float:
    """Return the champion's mean loss after the onset to that before it."""
    means = []
    spec, learned = stream.world.spec, stream.learned
    for part in (slice(None, stream.onset), slice(stream.onset, None)):
        rows = pd.concat(stream.days[part])
        truth = pd.concat(stream.labels[part])
        if truth.empty:  # none comes any more
            return float("nan")
        rows = rows.set_index("id").loc[truth["id"]].reset_index()
        rows[stream.world.target] = truth[stream.world.target].to_numpy()
        table = pa.Table.from_pandas(rows, preserve_index=False)
        said = learned.model.predict(table)
        losses = judging.row_losses(spec, table, said, learned.classes)
        means.append(float(np.mean(losses)) if len(losses) else float("nan"))
    return means[1] / means[0]


def measure(worlds: tuple[World, ...]) -> list[Told]:
    """Run the whole matrix."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for world in worlds:
            known: dict[str, bytes] = {}
            drawn = chain(
                streams(world, SEEDS, Path(folder)),
                streams(world, FAULT_SEEDS, Path(folder), VALUE_FAULTS, (1, 2)),
            )
            for case, strength, seed, stream in drawn:
                found.append(watched(case, strength, seed, stream, known))
    return found


def run() -> Iterator[Figure]:
    """Measure and write ``build/causes.json`` and the tables of docs/causes.md."""
    found = measure((bike(), rain()))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([asdict(t) for t in found], indent=1) + "\n", "utf-8")
    TABLES.write_text(tables(found) + "\n", "utf-8")
    yield from figures(found)


def figures(found: list[Told]) -> Iterator[Figure]:
    """Return the shares that are promised."""
    for strength in STRENGTHS:
        mine = [t for t in found if t.strength == strength]
        if not mine:
            continue
        share = float(np.mean([t.is_right for t in mine]))
        yield Figure("causes", f"right verdicts, {strength}", "ratio", share)
    for label, strengths in (
        ("faults that led to a training, moderate and strong", STRENGTHS[1:]),
        ("faults that led to a training, all strengths", STRENGTHS),
    ):
        faults = [
            t.trained
            for t in found
            if t.cause in VALUE_FAULTS and t.strength in strengths
        ]
        if faults:
            tested = binomtest(sum(faults), len(faults))
            most = tested.proportion_ci(INTERVAL, method="exact").high
            yield Figure("causes", label, "ratio", float(np.mean(faults)))
            yield Figure("causes", f"{label}: at most", "ratio", float(most))
    calm = [t for t in found if t.cause == "none"]
    share = float(np.mean([t.first != "none" for t in calm]))
    yield Figure("causes", "verdicts where nothing changed", "ratio", share)


def tables(found: list[Told]) -> str:
    """Return the matrix, and the share right by kind and strength, as Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for told in found:
        counts[told.cause][told.first] += 1
    lines = ["| done \\ said | " + " | ".join(_words(c) for c in CAUSES) + " |"]
    lines.append("|---" * (len(CAUSES) + 1) + "|")
    for cause in CAUSES:
        if cause in counts:
            row = " | ".join(str(counts[cause][c] or "") for c in CAUSES)
            lines.append(f"| {_words(cause)} | {row} |")
    lines += ["", "| cause | how | " + " | ".join(STRENGTHS) + " | trainings |"]
    lines.append("|---|---|---|---|---|---|")
    for cause, kind in dict.fromkeys((t.cause, t.kind) for t in found):
        mine = [t for t in found if (t.cause, t.kind) == (cause, kind)]
        shares = []
        for strength in STRENGTHS:
            of = [t for t in mine if t.strength == strength]
            right = sum(t.is_right for t in of)
            shares.append(f"{right} of {len(of)}" if of else "")
        trained = sum(t.trained for t in mine)
        lines.append(f"| {_words(cause)} | {kind} | {' | '.join(shares)} | {trained} |")
    return "\n".join([*lines, "", *_reliability(found)])


def _reliability(found: list[Told]) -> list[str]:
    """Return how often verdicts were right by how sure they were.

    Those of faults that a check or a jump showed tell no confidence.
    """
    lines = ["| confidence | verdicts | mean confidence | right |", "|---|---|---|---|"]
    told = [t for t in found if t.first not in ("none", OPEN) and t.confidence > 0]
    for low, high in pairwise(SURE):
        mine = [t for t in told if low <= t.confidence < high]
        if mine:
            sure = np.mean([t.confidence for t in mine])
            right = np.mean([t.is_right for t in mine])
            lines.append(
                f"| {low:.0%} to {min(high, 1):.0%} | {len(mine)} | {sure:.0%} | "
                f"{right:.0%} |"
            )
    return lines


def _words(cause: str) -> str:
    return cause.replace("_", " ")
