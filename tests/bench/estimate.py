"""Estimated performance before labels: mean absolute error beside NannyML's.

The same streams, chunks, labels and delay for both. NannyML runs twice: fitted once on
the first labelled rows, as its documentation does, and fitted anew every few chunks on
the rows that ours rests on. ``docs/estimates.md`` gets the table.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from driftloop.models.columns import Floats
from driftloop.models.losses import measured
from driftloop.monitor.estimates.arrays import Rows, roc_auc, row_losses
from driftloop.monitor.estimates.closing import wanted_rows
from driftloop.monitor.estimates.combining import (
    Combined,
    Past,
    combined,
    scored,
    variance_of,
)
from driftloop.monitor.estimates.experts import opinions
from driftloop.monitor.estimates.judging import reason_unlike
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)

from tests.bench.examples import EXAMPLES, FILES
from tests.bench.figures import Figure

PART = "estimate"
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/estimates.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
FIRST_BEGIN, FIRST_END = "<!-- first: begin -->", "<!-- first: end -->"
WORLDS = range(70_000, 70_150)
"""Seeds of the worlds that are reported; nothing was set on them."""
JUMPS = ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.5))
"""In standard deviations of each moved input."""
PEER = "nannyml"
DELAY = 2
"""Chunks from a row to its label."""
SYNTHETIC_ROWS = 21_000
CHUNK = 500
FIRST = 2_500
SHIFT_FROM, SHIFT_OVER = 3_000, 9_000
TRAINED = 3_000
WIDTH = 5
COMPARED = {True: ("accuracy", "roc_auc"), False: ("mae",)}
PEER_TIMEOUT_S = 900
PEER_EVERY = 4
"""Chunks between two of its fits, each of which takes it seconds."""
PEER_HOW = ("once", "anew")
"""How it is fitted."""


@dataclass(frozen=True)
class Stream:
    """Rows that a frozen model answered, in order of time.

    Attributes
    ----------
    said : (n_rows,) predictions, or probabilities of the second class.
    first : labelled rows before anything is estimated.
    """

    name: str
    points: Floats
    said: Floats
    truth: Floats
    chunk: int
    first: int
    is_class: bool

    def starts(self) -> range:
        begin = self.first + DELAY * self.chunk
        return range(begin, len(self.truth) - self.chunk + 1, self.chunk)

    def rows(self, part: slice) -> Rows:
        said = self.said[part]
        if self.is_class:
            said = np.column_stack([1 - said, said])
            return Rows(self.points[part], said, self.truth[part].astype(np.int64))
        return Rows(self.points[part], said, self.truth[part])


# ── streams ─────────────────────────────────────────────────────────────────


def bikes() -> Stream:
    """Two years of bike rentals; the model has seen the first ninety days."""
    frame = pl.read_csv(EXAMPLES / "bike-demand" / FILES["bike-demand"])
    points = frame.drop("id", "time", "cnt").to_numpy().astype(np.float64)
    target = frame["cnt"].to_numpy().astype(np.float64)
    return _of_numbers("bike-demand", points, target, 2_160, 168, 1_344)


def rain() -> Stream:
    """Fifty years of weather; the model has seen the first ten."""
    frame = pl.read_csv(EXAMPLES / "rain" / FILES["rain"]).drop_nulls()
    points = frame.drop("id", "time", "weather").to_numpy().astype(np.float64)
    target = (frame["weather"] != "dry").to_numpy().astype(np.float64)
    return _of_classes("rain", points, target, 3_650, 365, 1_460)


def _drift() -> Floats:
    rows = np.arange(TRAINED + SYNTHETIC_ROWS)
    share = np.clip((rows - TRAINED - SHIFT_FROM) / SHIFT_OVER, 0, 1)
    return np.asarray(2.0 * share, dtype=np.float64)


def _normal(seed: int) -> tuple[np.random.Generator, Floats]:
    dice = np.random.default_rng(seed)
    return dice, dice.normal(size=(TRAINED + SYNTHETIC_ROWS, WIDTH))


def _drawn(dice: np.random.Generator, odds: Floats) -> Floats:
    return (dice.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(np.float64)


def shifted_classes() -> Stream:
    """The population walks to where the classes are otherwise; the law stays."""
    dice, x = _normal(1)
    x[:, 0] += _drift()
    x[:, 1] *= 1 + _drift() / 4
    odds = 2 * np.sin(1.5 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 3]
    return _of_classes("covariate shift, classes", x, _drawn(dice, odds), iterations=40)


def seasons_of_classes() -> Stream:
    """The population comes and goes, under a model that is far too sure."""
    dice, x = _normal(5)
    season = 1.2 * np.sin(np.arange(len(x)) / len(x) * 6 * np.pi)
    x[:, 0] += season
    x[:, 2] += season / 2
    odds = 1.5 * x[:, 0] * np.cos(x[:, 1]) + x[:, 2]
    return _of_classes("seasons, classes", x, _drawn(dice, odds), iterations=150)


def shifted_numbers() -> Stream:
    """The population walks to where the target is noisier; the law stays."""
    dice, x = _normal(2)
    x[:, 0] += _drift()
    noise = (0.3 + 0.7 * np.clip(x[:, 0], 0, 3)) * dice.normal(size=len(x))
    target = 3 * np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + noise
    return _of_numbers("covariate shift, numbers", x, target)


def _turn() -> Any:
    return np.arange(TRAINED + SYNTHETIC_ROWS) < TRAINED + SYNTHETIC_ROWS // 2


def turned_classes() -> Stream:
    """The law turns round; inputs and answers look as before."""
    dice, x = _normal(3)
    odds = 2 * x[:, 0] * np.where(_turn(), 1, -1) + x[:, 1] + 0.5 * x[:, 3]
    return _of_classes("concept drift, classes", x, _drawn(dice, odds), iterations=40)


def turned_numbers() -> Stream:
    """The law weakens; inputs and answers look as before."""
    dice, x = _normal(4)
    target = 3 * np.sin(x[:, 0]) * np.where(_turn(), 1, 0.3) + x[:, 1] * x[:, 2]
    target = target + 0.5 * dice.normal(size=len(x))
    return _of_numbers("concept drift, numbers", x, target)


def _of_classes(
    name: str,
    points: Floats,
    target: Floats,
    trained: int = TRAINED,
    chunk: int = CHUNK,
    first: int = FIRST,
    iterations: int = 100,
) -> Stream:
    model = HistGradientBoostingClassifier(random_state=0, max_iter=iterations)
    model.fit(points[:trained], target[:trained].astype(np.int64))
    said = model.predict_proba(points[trained:])[:, 1]
    return Stream(
        name, points[trained:], said, target[trained:], chunk, first, is_class=True
    )


def _of_numbers(
    name: str,
    points: Floats,
    target: Floats,
    trained: int = TRAINED,
    chunk: int = CHUNK,
    first: int = FIRST,
) -> Stream:
    model = HistGradientBoostingRegressor(random_state=0)
    model.fit(points[:trained], target[:trained])
    said = model.predict(points[trained:])
    return Stream(
        name, points[trained:], said, target[trained:], chunk, first, is_class=False
    )


STREAMS: tuple[Callable[[], Stream], ...] = (
    rain, bikes, shifted_classes, seasons_of_classes, shifted_numbers, turned_classes,
    turned_numbers,
)  # fmt: skip


# ── ours ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Ours:
    """What ours said of a stream's chunks, by metric."""

    past: dict[str, list[Past]]
    cpu_ms: float


def realised(stream: Stream, start: int, metric: str) -> tuple[float, float]:
    """Return a chunk's true performance, and its variance by chance."""
    rows = stream.rows(slice(start, start + stream.chunk))
    if metric == "roc_auc":
        value = roc_auc(rows.said[:, 1], (rows.labels() == 1).astype(np.float64))
        return value or 0.5, variance_of(metric, value or 0.5, {}, stream.chunk)
    losses = row_losses(metric, rows)
    value = float(losses.mean()) if metric == "accuracy" else measured(metric, losses)
    spread = {metric: float(np.std(losses))}
    return value, variance_of(metric, value, spread, stream.chunk)


def by_us(stream: Stream) -> Ours:
    """Estimate each chunk from what is labelled by then, as the monitor does."""
    metric = "log_loss" if stream.is_class else "mae"
    past: dict[str, list[Past]] = {}
    waiting: list[tuple[int, list[Combined]]] = []
    began, count = time.process_time(), 0
    for start in stream.starts():
        end = start - DELAY * stream.chunk
        while waiting and waiting[0][0] + stream.chunk <= end:
            _settle(stream, past, *waiting.pop(0))
        part = slice(max(0, end - wanted_rows(stream.chunk)), end)
        ages = (end - 1 - np.arange(part.start, end)) // stream.chunk
        known = stream.rows(part)
        known = Rows(known.points, known.said, known.truth, ages.astype(np.float64))
        asked = stream.rows(slice(start, start + stream.chunk))
        said = combined(opinions(known, asked, metric), stream.chunk, past)
        waiting.append((start, said))
        count += 1
    cpu_ms = (time.process_time() - began) / count * 1000
    for one in waiting:
        _settle(stream, past, *one)
    return Ours(past, cpu_ms)


def _settle(
    stream: Stream, past: dict[str, list[Past]], start: int, said: list[Combined]
) -> None:
    for one in said:
        past.setdefault(one.metric, []).append(
            Past(one, *realised(stream, start, one.metric))
        )


# ── windows that nothing was like ───────────────────────────────────────────


@dataclass(frozen=True)
class First:
    """The first estimate of a window after a jump of the inputs, and the truth.

    Attributes
    ----------
    jump : of each moved input, in standard deviations.
    narrow : upper end without what is added for rows further out.
    """

    jump: float
    narrow: float
    said: Combined
    realised: float


def first_windows(seeds: range, *, is_class: bool) -> Iterator[First]:
    """Draw worlds whose inputs jump; leave out those that estimates decline."""
    metric = "log_loss" if is_class else "mae"
    for seed in seeds:
        jump, known, window = _world(
            np.random.default_rng([seed, int(is_class)]), is_class
        )
        asked = Rows(window.points, window.said)
        found = opinions(known, asked, metric)
        if reason_unlike(known.count, found.alike_count):
            continue
        said = combined(found, window.count, {})[0]
        real = measured(metric, row_losses(metric, window))
        yield First(jump, said.high - found.unseen, said, real)


def _world(dice: np.random.Generator, is_class: bool) -> tuple[float, Rows, Rows]:
    """Return a jump, labelled rows of a frozen model, and a window after the jump.

    Some inputs of three to eight jump, in some worlds they are spread wider, too; the
    law is a wave, a product, a line and noise that grows with one input.
    """
    width, learned, count = int(dice.integers(3, 9)), TRAINED, FIRST + CHUNK
    points = dice.normal(size=(learned + count, width))
    points = points @ (np.eye(width) + 0.4 * dice.normal(size=(width, width)))
    points /= points.std(axis=0)
    last = slice(learned + FIRST, None)
    jump = float(dice.uniform(0, 2.5))
    moved = dice.random(width) < 0.5
    moved[dice.integers(width)] = True
    points[last] += jump * moved * dice.choice([-1, 1], width)
    if dice.random() < 0.3:
        points[last] *= dice.uniform(1, 1.8)
    line, pick = dice.normal(size=width), dice.integers(0, width, 4)
    wave = 2 * np.sin(dice.uniform(0.5, 1.5) * points[:, pick[0]])
    law = wave + points[:, pick[1]] * points[:, pick[2]]
    law = law + 0.5 * points @ line / np.sqrt(width)
    if is_class:
        truth = _drawn(dice, 1.2 * law)
        stream = _of_classes("", points, truth, learned)
    else:
        noise = 0.3 + dice.uniform(0, 0.8) * np.clip(points[:, pick[3]], 0, 4)
        stream = _of_numbers(
            "", points, law + noise * dice.normal(size=len(law)), learned
        )
    known = stream.rows(slice(0, FIRST))
    ages = (FIRST - 1 - np.arange(FIRST)) // CHUNK
    known = Rows(known.points, known.said, known.truth, ages.astype(np.float64))
    return jump, known, stream.rows(slice(FIRST, None))


def first_lines() -> Iterator[str]:
    """Yield how often the interval held, by the size of the jump."""
    for is_class in (False, True):
        found = list(first_windows(WORLDS, is_class=is_class))
        name = "classes, log_loss" if is_class else "numbers, mae"
        for low, high in JUMPS:
            part = [one for one in found if low <= one.jump < high]
            held = [one.said.low <= one.realised <= one.said.high for one in part]
            narrow = [one.said.low <= one.realised <= one.narrow for one in part]
            above = [one.realised > one.said.high for one in part]
            yield (
                f"| {name} | {low:g} to {high:g} | {len(part)} "
                f"| {np.mean(narrow):.0%} | {np.mean(held):.0%} "
                f"| {np.mean(above):.0%} |"
            ).replace("%", " %")


# ── NannyML ─────────────────────────────────────────────────────────────────


def peers_environment(home: Path) -> Path:
    """Return an interpreter that has NannyML.

    ``DRIFTLOOP_BENCH_NANNYML`` may name one that is there.
    """
    given = os.environ.get("DRIFTLOOP_BENCH_NANNYML")
    if given:
        return Path(given)
    folder = home / "venv-nannyml"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    install = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet", "--python", python]
    # It imports statsmodels and does not name it.
    subprocess.run([*install, PEER, "statsmodels"], check=True, stderr=subprocess.PIPE)
    return python


def by_peer(python: Path, stream: Stream, home: Path) -> dict[str, Any]:
    """Return what NannyML says of the stream's chunks."""
    file = home / "stream.npz"
    np.savez(
        file, points=stream.points, said=stream.said, truth=stream.truth,
        chunk=stream.chunk, first=stream.first, delay=DELAY, every=PEER_EVERY,
        is_class=stream.is_class, most=wanted_rows(stream.chunk),
    )  # fmt: skip
    program = Path(__file__).with_name("estimate_peer.py")
    quiet = {"PATH": "/usr/bin:/bin", "NML_DISABLE_USAGE_LOGGING": "1"}
    done = subprocess.run(
        [python, program, file], check=True, capture_output=True, text=True, env=quiet,
        timeout=PEER_TIMEOUT_S,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


# ── all of it ───────────────────────────────────────────────────────────────


def run() -> Iterator[Figure]:
    """Measure the part, and write the page's table."""
    lines = []
    version = ""
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        home = Path(folder)
        python = peers_environment(home)
        for make in STREAMS:
            stream = make()
            ours, theirs = by_us(stream), by_peer(python, stream, home)
            version = theirs["version"]
            yield Figure(PART, f"{stream.name}: one window", "CPU ms", ours.cpu_ms)
            for metric in COMPARED[stream.is_class]:
                past = ours.past[metric]
                true = np.array([one.realised for one in past])
                score = scored(past)
                mine = score.mean_absolute_error or 0.0
                off = {how: _off(theirs[how][metric], true) for how in PEER_HOW}
                label = f"{stream.name}, {metric}: mean absolute error"
                for how, error in off.items():
                    peer = f"NannyML {version}, fitted {how}"
                    yield Figure(PART, label, metric, mine, peer, error)
                what = f"{stream.name}, {metric}"
                yield Figure(PART, f"{what}: coverage", "", score.coverage or 0.0)
                lines.append(
                    f"| {stream.name} | {metric} "
                    f"| {true.mean():.4g} ± {true.std():.2g} "
                    f"| **{mine:.3g}** | {off['once']:.3g} | {off['anew']:.3g} "
                    f"| {score.level_error or 0.0:.3g} "
                    f"| {(score.coverage or 0.0) * 100:.0f} % |"
                )
    write_table(version, lines)
    write_first(list(first_lines()))


def _off(said: list[float], true: Floats) -> float:
    return float(np.nanmean(np.abs(np.array(said) - true)))


def write_table(version: str, lines: list[str]) -> None:
    """Put the measured table into the page."""
    head = [
        BEGIN,
        "",
        "| stream | metric | true, over chunks | driftloop "
        f"| NannyML {version}, fitted once | fitted anew | the last labels "
        "| interval held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    _put(END, [*head, *lines, "", END])


def write_first(lines: list[str]) -> None:
    """Put how often the first intervals held into the page."""
    head = [
        FIRST_BEGIN,
        "",
        "| worlds | jump | windows | held without it | held | above it |",
        "|---|---|---|---|---|---|",
    ]
    _put(FIRST_END, [*head, *lines, "", FIRST_END])


def _put(end: str, table: list[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(table[0])
    after = rest.split(end)[1]
    PAGE.write_text(before + "\n".join(table) + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit("run it by: make bench PART=estimate")
