"""How a model bears inputs that are noisy, missing, or far outside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from driftloop.contracts.measures import Degradation, Robustness
from driftloop.models.onnx_model import MISSING_MOMENT
from driftloop.trainer import losses
from driftloop.trainer.evaluation import adversarial
from driftloop.trainer.evaluation.subject import (
    Feeds,
    Scene,
    Spread,
    Subject,
    Values,
    shifted,
)
from driftloop.trainer.losses import Floats

MAX_ROWS = 300
MAX_FEATURES = 40
"""Of the first ones each is taken away, and thrown outside, alone."""
NOISE_SPREADS = 0.1
NOISE_REPEATS = 2
OUTLIER_SPREADS = 10.0
"""Far beyond every real value, as a sensor with a slipped unit would send."""


@dataclass(frozen=True)
class Disturbed:
    """What one disturbance did: for one feature, or all (``feature`` None)."""

    kind: str
    feature: str | None
    loss: float
    lost: float
    non_finite_count: int


def measure(scene: Scene) -> tuple[Robustness | None, dict[str, list[Disturbed]]]:
    """Return how both models bear disturbed inputs, short and in full.

    None for a candidate without skill: it has nothing to lose.

    The same disturbances for both models. Noise: to every number and datetime that
    varies, normal with a tenth of its standard deviation in training; integers stay
    whole. Missing:
    one feature at a time; the worst one counts of those that a row may lack, as rows
    without another one are quarantined. Outliers: one number at a time, ten standard
    deviations above or below its median in training or at the end of its range in
    the pipeline file, the worse of the two.

    Source: Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to
    Common Corruptions, for measuring by kinds of corruption relative to a reference.
    """
    scene = scene.thinned(MAX_ROWS)
    found = {
        role: list(_disturbed(subject, scene))
        for role, subject in scene.subjects().items()
    }
    may_lack = {column.name for column in scene.columns if column.nullable}
    mine, champions = (
        [d for d in found.get(role, []) if d.kind != "missing" or d.feature in may_lack]
        for role in ("candidate", "champion")
    )
    if not found["candidate"]:
        return None, found
    flips = adversarial.flip_ratios(scene)
    worst = {
        kind: _worst(kind, mine, champions) for kind in ("noise", "missing", "outliers")
    }
    short = Robustness(
        row_count=scene.rows.num_rows,
        noise=worst["noise"],
        missing=worst["missing"],
        outliers=worst["outliers"],
        flip_ratio=flips.get("candidate"),
        champion_flip_ratio=flips.get("champion"),
    )
    return short, found


def _worst(
    kind: str, mine: list[Disturbed], champions: list[Disturbed]
) -> Degradation | None:
    of_kind = [one for one in mine if one.kind == kind]
    if not of_kind:
        return None
    worst = max(of_kind, key=lambda one: one.lost)
    theirs = [one.lost for one in champions if one.kind == kind]
    return Degradation(
        lost=worst.lost,
        champion_lost=max(theirs, default=None),
        feature=worst.feature,
        non_finite_count=sum(one.non_finite_count for one in of_kind),
    )


def _disturbed(subject: Subject, scene: Scene) -> Iterator[Disturbed]:
    """Yield what each disturbance costs; nothing for a model without skill."""
    clean = losses.metric_value(subject.metric, subject.losses())
    worth = losses.metric_value(subject.metric, scene.baseline) - clean
    if not worth > 0:
        return

    def cost(kind: str, feature: str | None, changed: list[Feeds]) -> Disturbed:
        rows: list[Floats] = [subject.losses(one) for one in changed]
        counted = [row[np.isfinite(row)] for row in rows]
        each = [losses.metric_value(subject.metric, r) for r in counted if len(r)]
        loss = (np.mean(each) if kind == "noise" else max(each)) if each else clean
        bad = sum(len(row) - len(good) for row, good in zip(rows, counted, strict=True))
        lost = (float(loss) - clean) / worth
        return Disturbed(kind, feature, float(loss), lost, bad)

    if scene.spreads:
        yield cost("noise", None, noisy(subject.feeds, scene.spreads, scene.seed))
    for name in [
        c.name for c in scene.columns[:MAX_FEATURES] if c.name in subject.feeds
    ]:
        yield cost("missing", name, [{name: without(subject.feeds, name)}])
        if spread := scene.spreads.get(name):
            yield cost("outliers", name, outside(subject.feeds, name, spread))


def noisy(feeds: Feeds, spreads: Mapping[str, Spread], seed: int) -> list[Feeds]:
    """Return all numbers with noise, a few times."""
    draw = np.random.default_rng(seed)
    return [
        {
            name: shifted(feeds[name], _noise(draw, feeds[name].shape, spread))
            for name, spread in spreads.items()
            if name in feeds
        }
        for _ in range(NOISE_REPEATS)
    ]


def _noise(draw: np.random.Generator, shape: tuple[int, ...], spread: Spread) -> Floats:
    noise = draw.normal(scale=NOISE_SPREADS * spread.deviation, size=shape)
    return (np.rint(noise) if spread.is_whole else noise).astype(np.float32)


def without(feeds: Feeds, name: str) -> Values:
    """Return a feature as it is where every row lacks it."""
    values = feeds[name]
    if values.dtype == np.int64:
        return np.full_like(values, MISSING_MOMENT)
    return np.full_like(values, "" if values.dtype == object else np.nan)


def outside(feeds: Feeds, name: str, spread: Spread) -> list[Feeds]:
    """Return a number far above, and far below, where the validator lets it by."""
    reach = OUTLIER_SPREADS * spread.deviation
    return [
        {name: np.full_like(feeds[name], np.rint(end) if spread.is_whole else end)}
        for end in (
            min(spread.median + reach, spread.high),
            max(spread.median - reach, spread.low),
        )
    ]
