"""Models that are formulas, on rows whose truth is known: what is measured is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import InputColumn
from driftloop.trainer.evaluation.subject import Scene, Subject, spread_of
from driftloop.trainer.losses import Target, row_losses


@dataclass
class Formula:
    """In the place of a served graph: predictions from columns."""

    answer: Callable[[dict[str, np.ndarray]], np.ndarray]
    classes: tuple[str, ...] = ()
    calls: int = 0

    def predict_arrays(self, feeds: dict[str, np.ndarray], count: int) -> Predictions:
        self.calls += count
        found = np.asarray(
            self.answer({n: v[:, 0] for n, v in feeds.items()}), dtype=np.float64
        )
        if not self.classes:
            return Predictions(np.broadcast_to(found, (count,)).copy())
        full = np.column_stack([1 - found, found]) if found.ndim == 1 else found
        labels = np.array(self.classes)[full.argmax(axis=1)]
        return Predictions(labels, found)


def columns(**types: str) -> tuple[InputColumn, ...]:
    """Features of these types; ``?`` after the type: a row may lack it."""
    return tuple(
        InputColumn(name=n, type=t.rstrip("?"), nullable=t.endswith("?"))
        for n, t in types.items()
    )


def scene(
    values: dict[str, Any],
    truth: np.ndarray,
    candidate: Callable[..., np.ndarray],
    champion: Callable[..., np.ndarray] | None = None,
    *,
    types: dict[str, str] | None = None,
    classes: tuple[str, ...] = (),
    metric: str | None = None,
    features: dict[str, Any] | None = None,
) -> Scene:
    """A hold-out of these columns; no skill is the best constant on it."""
    rows = pa.table(values)
    kinds = types or {
        n: "category" if isinstance(v[0], str) else "number?" for n, v in values.items()
    }
    inputs = columns(**kinds)
    metric = metric or ("log_loss" if classes else "mae")
    feeds = {
        n: np.asarray(v, object if isinstance(v[0], str) else np.float32).reshape(-1, 1)
        for n, v in values.items()
    }
    target = Target(np.asarray(truth), classes)

    def subject(answer: Callable[..., np.ndarray] | None) -> Subject | None:
        if answer is None:
            return None
        return Subject(Formula(answer, classes), metric, target, feeds)  # type: ignore[arg-type]

    if classes:
        shares = np.array([np.mean(target.values == c) for c in classes])
        guess = Predictions(
            np.full(len(truth), classes[0]), np.tile(shares, (len(truth), 1))
        )
        deviation = 1.0
    else:
        guess = Predictions(np.full(len(truth), float(np.median(truth))))
        deviation = float(np.std(truth))
    spreads = {
        column.name: spread
        for column in inputs
        if column.type in ("number", "integer")
        and (
            spread := spread_of(
                feeds[column.name],
                (features or {}).get(column.name),
                is_whole=column.type == "integer",
            )
        )
    }
    return Scene(
        rows,
        inputs,
        subject(candidate),
        subject(champion),
        row_losses(metric, target, guess),
        spreads,
        deviation,
        0,
    )


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)
