"""All measurements of a training: short for the event, whole for the package."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.measures import FitVerdict, Measures, Parity, SliceResult
from driftloop.contracts.pipeline import GateSection
from driftloop.trainer.evaluation import (
    calibration,
    changes,
    fairness,
    reproducibility,
    robustness,
    shapley,
    slices,
)
from driftloop.trainer.evaluation.shapley import Explained
from driftloop.trainer.evaluation.subject import Scene, rounded
from driftloop.trainer.losses import Floats

TOLD_SLICES = 10
"""Of the event; the package has all."""
SHOWN_ROWS = 3
"""Explained one by one: those with the lowest, the middle and the highest answer."""


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes
    ----------
    measures : for the event and the gate.
    report : JSON values; the content of ``evaluation.json``.
    explanation : JSON values; for ``explanation.json``.
    """

    measures: Measures
    report: dict[str, Any]
    explanation: dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What the training found out before: how it fitted, and how true the graph is.

    Attributes
    ----------
    validation_errors : (n,) prediction minus truth; empty for classification.
    rows : training rows, for training again.
    refit : returns the graph of the chosen candidate fitted on rows.
    """

    fit: FitVerdict
    parity: Parity | None
    validation_errors: Floats
    rows: pa.Table
    refit: Callable[[pa.Table], bytes]


def measure(scene: Scene, gate: GateSection, known: Known) -> Measured:
    """Measure everything that the gate and the model card ask about."""
    other = scene.baseline if scene.champion is None else scene.champion.losses()
    parts = slices.slices_of(scene.rows, scene.columns, gate.slices)
    found, metric = scene.candidate.losses(), scene.candidate.metric
    compared = slices.compare_slices(parts, found, other, metric)
    gaps, groups = fairness.measure(scene, gate.fairness.columns)
    bears, disturbed = robustness.measure(scene)
    right, bins = calibration.measure(scene, known.validation_errors)
    again = (
        reproducibility.check(known.rows, known.refit) if gate.reproducible else None
    )
    measures = Measures(
        slices=compared[:TOLD_SLICES],
        slice_count=len(compared),
        fairness=gaps,
        robustness=bears,
        calibration=right,
        fit=known.fit,
        parity=known.parity,
        reproducibility=again,
    )
    measures = Measures.model_validate(rounded(measures.model_dump(mode="json")))
    explanation = _explanation(scene, compared)
    report = {
        **measures.model_dump(mode="json"),
        "slices": [one.model_dump(mode="json") for one in compared],
        "intervals": slices.intervals_of(parts, found, metric),
        "fairness_groups": groups,
        "disturbances": {r: [asdict(d) for d in all_] for r, all_ in disturbed.items()},
        "reliability": bins,
    }
    return Measured(measures, rounded(report), rounded(explanation))


def _explanation(scene: Scene, compared: Sequence[SliceResult]) -> dict[str, Any]:
    index = shapley.rows_to_explain(scene.candidate)
    explained = {
        role: shapley.explain(subject, index, scene.seed)
        for role, subject in scene.subjects().items()
    }
    mine, theirs = explained["candidate"], explained.get("champion")
    importance = {role: one.importance() for role, one in explained.items()}
    words = changes.in_words(
        changes.disagreement(scene),
        not scene.candidate.target.classes,
        changes.shares(mine),
        None if theirs is None else changes.shares(theirs),
        compared,
    )
    return {
        "unit": "log odds" if mine.classes else "unit of the target",
        "row_count": len(index),
        "importance": importance,
        "rows": [_row(scene, mine, index, place) for place in _shown(mine)],
        "changes": words,
        "curves": [asdict(one) for one in changes.curves(scene, importance)],
    }


def _shown(explained: Explained) -> list[int]:
    order = np.argsort(explained.answers, kind="stable")
    places = np.linspace(0, len(order) - 1, SHOWN_ROWS).astype(int)
    return [int(order[place]) for place in dict.fromkeys(places.tolist())]


def _row(scene: Scene, explained: Explained, index: Any, place: int) -> dict[str, Any]:
    """Return one row's features, answer and contributions."""
    feeds = scene.candidate.feeds
    at = int(index[place])
    return {
        "features": {name: _plain(feeds[name][at, 0]) for name in explained.features},
        "answer": float(explained.answers[place]),
        "base": float(explained.base[place]),
        "class": explained.classes[place] if explained.classes else None,
        "contributions": dict(
            zip(explained.features, explained.values[place].tolist(), strict=True)
        ),
    }


def _plain(value: Any) -> float | str | None:
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None
