"""Streams with one known drift, answered by a model that never learns again.

river's own generators, each with its usual noise, and two of our own: Gaussians whose
border turns, and inputs that move while the relation to the target stays.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from river.datasets import synth
from sklearn.ensemble import RandomForestClassifier

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Wrong = npt.NDArray[np.bool_]
Rows = tuple[Floats, Labels]
Make = Callable[[int, int, bool], Rows]
"""From a number of rows, a seed, and whether the concept is the second one."""

LEARNED_ROWS = 2000
BEFORE_ROWS, AFTER_ROWS = 3000, 3000
STILL_ROWS = 36_000
"""Of a stream without a drift. Walks take tens of thousands of rows to come to a false
alarm by themselves: streams as short as those with a drift would flatter them."""
TRANSITION_ROWS = 2000
RECURRING_ROWS = 1500
"""Of the second concept, each time; the first one lasts ``BEFORE_ROWS``."""
RUN_ROWS = 20_000
"""Rows between false alarms in the bound that delays are measured by."""
COLUMNS = 10
PROCESSES = 2


def _of_river(first: Callable[[int], object], second: Callable[[int], object]) -> Make:
    def make(count: int, seed: int, is_second: bool) -> Rows:
        pairs = list((second if is_second else first)(seed).take(count))  # type: ignore[attr-defined]
        rows = np.array([[*map(float, x.values())] for x, _ in pairs])
        return rows, np.array([int(y) for _, y in pairs])

    return make


def _sea(variant: int) -> Callable[[int], object]:
    return lambda seed: synth.SEA(variant=variant, noise=0.1, seed=seed)


def _agrawal(function: int) -> Callable[[int], object]:
    return lambda seed: synth.Agrawal(
        classification_function=function, perturbation=0.05, seed=seed
    )


def stagger(count: int, seed: int, is_second: bool) -> Rows:
    """STAGGER's attributes are numbers in river; a tenth of the labels is turned."""
    made = synth.STAGGER(classification_function=int(is_second), seed=seed).take(count)
    pairs = list(made)
    rows = np.array([[*map(float, x.values())] for x, _ in pairs])
    labels = np.array([int(y) for _, y in pairs])
    is_turned = np.random.default_rng(seed).random(count) < 0.1
    return rows, np.where(is_turned, 1 - labels, labels)


def led(count: int, seed: int, is_second: bool) -> Rows:
    """Seven segments of a digit, a tenth of them broken; two are swapped afterwards."""
    pairs = list(synth.LED(seed=seed, noise_percentage=0.1).take(count))
    rows = np.array([[*map(float, x.values())] for x, _ in pairs])
    if is_second:
        rows = rows[:, [1, 0, 2, 3, 4, 5, 6]]
    return rows, np.array([int(y) for _, y in pairs])


def _plane(seed: int, turn: float) -> Floats:
    """Return weights that are turned by an angle; the seed is that of the concept."""
    draw = np.random.default_rng(seed)
    one, other = draw.standard_normal((2, COLUMNS))
    one /= np.linalg.norm(one)
    other -= (other @ one) * one
    other /= np.linalg.norm(other)
    return np.asarray(math.cos(turn) * one + math.sin(turn) * other)


TURN = math.pi / 4


def _border(
    rows: Floats, turns: Floats, draw: np.random.Generator, noise: float
) -> Labels:
    one, other = _plane(1, 0.0), _plane(1, math.pi / 2)
    side = rows @ one * np.cos(turns) + rows @ other * np.sin(turns) > 0
    is_turned = draw.random(len(rows)) < noise
    return np.asarray(side ^ is_turned, dtype=np.int64)


def hyperplane(count: int, seed: int, is_second: bool) -> Rows:
    """Uniform rows on either side of a plane, 5 % of the labels turned."""
    draw = np.random.default_rng(seed)
    rows = draw.random((count, COLUMNS)) - 0.5
    return rows, _border(rows, np.full(count, TURN * is_second), draw, 0.05)


def gaussian(count: int, seed: int, is_second: bool) -> Rows:
    """Normal rows on either side of a plane, a fifth of the labels turned."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((count, COLUMNS))
    return rows, _border(rows, np.full(count, TURN * is_second), draw, 0.2)


CONCEPTS: dict[str, Make] = {
    "SEA": _of_river(_sea(2), _sea(3)),
    "STAGGER": stagger,
    "Agrawal": _of_river(_agrawal(0), _agrawal(1)),
    "LED": led,
    "Hyperplane": hyperplane,
    "Gaussian": gaussian,
    "Mixed": _of_river(
        lambda seed: synth.Mixed(classification_function=0, seed=seed),
        lambda seed: synth.Mixed(classification_function=1, seed=seed),
    ),
}
GRADUAL = ("SEA", "STAGGER", "LED", "Hyperplane")
RECURRING = ("SEA", "STAGGER", "LED")
SCENARIOS = (
    *((name, "abrupt") for name in CONCEPTS),
    *((name, "gradual") for name in GRADUAL),
    ("Hyperplane", "incremental"),
    *((name, "recurring") for name in RECURRING),
)


@dataclass(frozen=True)
class Stream:
    """A model's wrong answers.

    Attributes
    ----------
    wrong : (n_rows,) after the rows that the model has learned.
    starts : rows at which the other concept begins; empty: it never does.
    ends : of each such stretch.
    bound : the least delay that can be, by Lorden; infinite without a sudden drift.
    """

    name: str
    kind: str
    seed: int
    wrong: Wrong
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    bound: float = math.inf


def stream(name: str, kind: str, seed: int) -> Stream:
    """Make one stream; ``kind`` may be ``still`` for one without a drift."""
    make = CONCEPTS[name]
    draw = np.random.default_rng(seed + 1_000_003)
    model = RandomForestClassifier(
        n_estimators=10, min_samples_leaf=5, random_state=0, n_jobs=1
    ).fit(*make(LEARNED_ROWS, 10 * seed, False))
    after = RECURRING_ROWS if kind == "recurring" else AFTER_ROWS
    lengths = {
        "recurring": (BEFORE_ROWS, after, BEFORE_ROWS, after),
        "still": (STILL_ROWS, 0),
    }.get(kind, (BEFORE_ROWS, AFTER_ROWS))
    count = sum(lengths)
    bounds = [0, *itertools.accumulate(lengths)]
    starts, ends = bounds[1:-1:2], bounds[2::2]
    place = np.arange(count)
    if kind == "incremental":
        rows, _ = make(count, 10 * seed + 1, False)
        turns = TURN * np.clip((place - BEFORE_ROWS) / TRANSITION_ROWS, 0, 1)
        truth = _border(rows, turns, draw, 0.05)
    else:
        is_second = np.zeros(count, dtype=bool)
        for start, end in zip(starts, ends, strict=True):
            is_second[start:end] = kind != "still"
        if kind == "gradual":
            passed = (place - BEFORE_ROWS) / TRANSITION_ROWS
            is_second = draw.random(count) < passed
        rows, truth = make(count, 10 * seed + 1, False)
        if is_second.any():
            rows, truth = rows.copy(), truth.copy()
            others = make(int(is_second.sum()), 10 * seed + 2, True)
            rows[is_second], truth[is_second] = others
    wrong = np.asarray(model.predict(rows) != truth)
    if kind == "still":
        return Stream(name, kind, seed, wrong)
    bound = math.inf
    if kind in ("abrupt", "recurring"):
        bound = least_delay(
            float(wrong[~is_second].mean()), float(wrong[is_second].mean())
        )
    return Stream(name, kind, seed, wrong, tuple(starts), tuple(ends), bound)


def least_delay(before: float, after: float) -> float:
    """Return Lorden's bound in rows, for the share of wrong answers alone.

    Source: Lorden (1971), Annals of Mathematical Statistics 42: the logarithm of the
    run length by the Kullback-Leibler divergence, when both shares are known.

    >>> round(least_delay(0.13, 0.2))
    520
    """
    before = min(max(before, 1 / RUN_ROWS), 1 - 1 / RUN_ROWS)
    after = min(max(after, 1 / RUN_ROWS), 1 - 1 / RUN_ROWS)
    gained = after * math.log(after / before)
    gained += (1 - after) * math.log((1 - after) / (1 - before))
    return max(1.0, math.log(RUN_ROWS) / gained) if gained > 0 else math.inf


def streams(wanted: list[tuple[str, str, int]]) -> Iterator[Stream]:
    """Make many, on two cores."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        yield from pool.map(_made, wanted, chunksize=4)


def _made(wanted: tuple[str, str, int]) -> Stream:
    return stream(*wanted)


# ── inputs ──────────────────────────────────────────────────────────────────

SHIFT = 1.0
"""Standard deviations that one of the columns moves."""
CORRELATION = 0.6
"""Of two columns afterwards; of the same ones before: none."""


LEARNED_INPUTS = 5000
"""Rows of the reference sample."""


def inputs(kind: str, count: int, seed: int) -> Floats:
    """Return normal rows: as learned (``still``), moved, or turned to each other."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((count, COLUMNS))
    if kind == "shift":
        rows[:, 0] += SHIFT
    if kind == "correlation":
        rest = math.sqrt(1 - CORRELATION**2)
        rows[:, 1] = CORRELATION * rows[:, 0] + rest * rows[:, 1]
    return rows


def wrong_on_inputs(kind: str, seed: int) -> Wrong:
    """Return a model's wrong answers, when columns without a say in the target move."""
    draw = np.random.default_rng(seed)
    learned = inputs("still", LEARNED_INPUTS, 10 * seed)
    rows = np.concatenate(
        [
            inputs("still", BEFORE_ROWS, 10 * seed + 1),
            inputs(kind, AFTER_ROWS, 10 * seed + 2),
        ]
    )
    weights = _plane(1, 0.0) * (np.arange(COLUMNS) >= 2)

    def labels(found: Floats) -> npt.NDArray[np.bool_]:
        return np.asarray((found @ weights > 0) ^ (draw.random(len(found)) < 0.1))

    model = RandomForestClassifier(
        n_estimators=10, min_samples_leaf=5, random_state=0, n_jobs=1
    ).fit(learned, labels(learned))
    return np.asarray(model.predict(rows) != labels(rows))
