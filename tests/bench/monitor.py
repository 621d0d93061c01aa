"""What watching 30 columns costs: rows a second, one window's report, memory.

The default detectors over a stream in windows: KS and PSI of each column, one
multivariate test, the error's own. Peers do the same test on the same rows, in the same
run; those that do not live with us, in an environment of their own. Beside the
detectors alone, the monitor's whole handlers, with all that they store.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.detection import errors, judging
from driftloop.detection.binned import Binned
from driftloop.detection.together import Together
from driftloop.monitor.feature_drift import movements
from scipy import stats

from tests.bench import detection, monitored
from tests.bench.figures import Figure
from tests.bench.throw_away import environment

PART = "monitor"
COLUMNS, WINDOW_ROWS, REFERENCE_ROWS = 30, 2000, 5000
BATCH_ROWS = 2000
STREAM_BATCHES = 200
LONG_ROWS = 10_000_000
PEER_ROWS = 20_000
HANDLED_ROWS = 80_000
BIKE_COPIES, DAY_ROWS = 5, 24
SEED = 20261127
REPEATS = 30
WRONG = 0.13
ALPHA = 0.001

Floats = npt.NDArray[np.float64]


class Watching:
    """All default detectors of a stream; what it keeps does not grow with it."""

    def __init__(self, reference: Floats, window_rows: int) -> None:
        names = [f"n{i}" for i in range(reference.shape[1])]
        self._binned = Binned.of(names, reference)
        self._together = Together.of(names, reference)
        self._counts = self._binned.counts(reference[:0])
        self._window_rows, self._rows = window_rows, 0
        self._errors = errors.Watched()
        self.moved = 0
        self.rises = 0

    def take(self, rows: Floats, wrong: npt.NDArray[np.bool_]) -> None:
        """Look at a batch; its end may be a window's."""
        self._counts = self._counts + self._binned.counts(rows)
        self._rows += len(rows)
        self._errors, rises = errors.observe(self._errors, wrong)
        self.rises += len(rises)
        if self._rows >= self._window_rows:
            self.moved += sum(c.verdict == "moved" for c in self.report(rows))
            self._counts, self._rows = self._counts * 0, 0

    def report(self, rows: Floats) -> list[judging.Comparison]:
        """Compare the window's counts, and its newest rows all together."""
        found = self._binned.compare(self._counts, ("KS", "PSI"), ALPHA)
        joint = self._together.discrepancy(self._together.standardised(rows), ALPHA)
        return judging.judged([*found, *([joint] if joint else [])], ALPHA)


def run() -> Iterator[Figure]:
    """Measure the part."""
    draw = np.random.default_rng(SEED)
    reference = draw.standard_normal((REFERENCE_ROWS, COLUMNS))
    batches = [draw.standard_normal((BATCH_ROWS, COLUMNS)) for _ in range(20)]
    wrong = [draw.random(BATCH_ROWS) < WRONG for _ in range(20)]
    yield from _reports(reference, batches[0])
    yield from _stream(reference, batches, wrong)
    yield from _messages()
    yield from _memory(reference, batches, wrong)


def _seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median CPU time of a call, the first one left out."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return float(np.median(taken))


# ── one window ──────────────────────────────────────────────────────────────


def _reports(reference: Floats, window: Floats) -> Iterator[Figure]:
    names = [f"n{i}" for i in range(COLUMNS)]
    binned, together = Binned.of(names, reference), Together.of(names, reference)

    def report() -> object:
        found = binned.compare(binned.counts(window), ("KS", "PSI"), ALPHA)
        joint = together.discrepancy(together.standardised(window), ALPHA)
        return judging.judged([*found, *([joint] if joint else [])], ALPHA)

    ours = 1e3 * _seconds(report)
    label = f"{WINDOW_ROWS:,} rows of {COLUMNS} columns"
    only_ks = 1e3 * _seconds(lambda: binned.compare(binned.counts(window), ("KS",)))

    def by_scipy() -> object:
        return [
            stats.ks_2samp(reference[:, at], window[:, at], method="asymp")
            for at in range(COLUMNS)
        ]

    scipy_ms = 1e3 * _seconds(by_scipy, 5)
    yield Figure(
        PART, f"{label}: KS of each", "CPU ms", only_ks, "scipy ks_2samp", scipy_ms
    )
    yield Figure(PART, f"{label}: KS + PSI + MMD, a report", "CPU ms", ours)
    columns = {n: window[:, at] for at, n in enumerate(names)}
    known = pa.table({n: reference[:, at] for at, n in enumerate(names)})
    kinds = dict.fromkeys(names, "number")
    table = pa.table(columns)
    exact = 1e3 * _seconds(lambda: movements(known, table, kinds, ALPHA))  # type: ignore[arg-type]
    yield Figure(
        PART, f"{label}: exact KS from Arrow, as the monitor", "CPU ms", exact,
        "scipy ks_2samp", scipy_ms,
    )  # fmt: skip
    yield Figure(
        PART, f"{label}: the reference, once", "CPU ms",
        1e3 * _seconds(lambda: (Binned.of(names, reference),
                                Together.of(names, reference)), 5),
    )  # fmt: skip
    yield from _peer_reports(reference, window, ours)


PEERS = {
    "nannyml_ks": ("nannyml", "NannyML KS"),
    "evidently": ("evidently", "Evidently KS preset"),
}


def _peer_reports(reference: Floats, window: Floats, ours: float) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as name:
        folder = Path(name)
        windows = np.array([window] * 3)
        np.savez(folder / "windows.npz", reference=reference, windows=windows)
        for peer, (project, shown) in PEERS.items():
            place = folder / "environments" / project
            try:
                python = environment(place, detection.PACKAGES[project])
                said = detection.asked(
                    "detection_window_peers.py", python, peer, folder
                )
            except subprocess.CalledProcessError as error:
                print(f"{shown} fails: {error.stderr[-300:]}")  # noqa: T201
                continue
            label = "the same window: ours with PSI and MMD"
            yield Figure(PART, label, "CPU ms", ours, shown, 1e3 * said["seconds"])


# ── a stream ────────────────────────────────────────────────────────────────


def _stream(
    reference: Floats, batches: list[Floats], wrong: list[npt.NDArray[np.bool_]]
) -> Iterator[Figure]:
    from river import drift

    for window_rows in (WINDOW_ROWS, 5 * WINDOW_ROWS):
        watching = Watching(reference, window_rows)
        began = time.process_time()
        for number in range(STREAM_BATCHES):
            watching.take(batches[number % 20], wrong[number % 20])
        seconds = time.process_time() - began
        rows = STREAM_BATCHES * BATCH_ROWS
        label = f"{COLUMNS} columns, all default detectors, windows of {window_rows:,}"
        adwins = [drift.ADWIN() for _ in range(COLUMNS)]
        began = time.process_time()
        for row in np.concatenate(batches)[:PEER_ROWS].tolist():
            for adwin, value in zip(adwins, row, strict=True):
                adwin.update(value)
        peer = PEER_ROWS / (time.process_time() - began)
        yield Figure(
            PART, label, "rows/CPU-s", rows / seconds, "river: an ADWIN a column", peer
        )
    watched = errors.Watched()
    began = time.process_time()
    for found in wrong * 10:
        watched, _ = errors.observe(watched, found)
    mine = 200 * BATCH_ROWS / (time.process_time() - began)
    adwin = drift.ADWIN()
    began = time.process_time()
    for value in np.concatenate(wrong).tolist():
        adwin.update(value)
    peer = 20 * BATCH_ROWS / (time.process_time() - began)
    yield Figure(PART, "the error alone", "rows/CPU-s", mine, "river's ADWIN", peer)


def _messages() -> Iterator[Figure]:
    """Let the whole handlers take rows and the answers to them, message by message."""
    wide = monitored.wide(COLUMNS, HANDLED_ROWS, WINDOW_ROWS, SEED)
    bikes = monitored.bikes(BIKE_COPIES)
    for served, what, message_rows in (
        (wide, f"{COLUMNS} columns, each message a window", BATCH_ROWS),
        (bikes, f"bike-demand {BIKE_COPIES} times over", BATCH_ROWS),
        (monitored.bikes(1), "bike-demand once", DAY_ROWS),
    ):
        with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
            rows, seconds = monitored.handled(served, message_rows, Path(folder))
        label = f"handlers, {what}, messages of {message_rows:,}"
        yield Figure(PART, label, "rows/CPU-s", rows / seconds)
        yield Figure(PART, label, "CPU ms", 1e3 * seconds * message_rows / rows)


def _memory(
    reference: Floats, batches: list[Floats], wrong: list[npt.NDArray[np.bool_]]
) -> Iterator[Figure]:
    """Watch ten million rows; what the process holds must not grow with them."""
    watching = Watching(reference, 5 * WINDOW_ROWS)
    count = LONG_ROWS // BATCH_ROWS
    early = 0
    for number in range(count):
        watching.take(batches[number % 20], wrong[number % 20])
        if number == count // 20:
            early = _peak_kib()
    grown = (_peak_kib() - early) / 1024
    yield Figure(PART, f"{LONG_ROWS:,} rows: growth after the first 5 %", "MiB", grown)


def _peak_kib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
