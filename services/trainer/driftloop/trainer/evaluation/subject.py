"""A model on rows whose truth is known, and what happens when inputs are changed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.moments import EPOCH, FIRST_US, LAST_US, MICROSECOND
from driftloop.contracts.pipeline import Feature
from driftloop.models.onnx_model import MISSING_MOMENT, OnnxModel, Predictions
from driftloop.models.package import InputColumn
from driftloop.trainer import losses
from driftloop.trainer.losses import Floats, Target

Values = npt.NDArray[Any]
Feeds = Mapping[str, Values]
"""Inputs of a graph by feature, each (n_rows, 1)."""
DIGITS = 6
"""Significant digits of what is written down: float32 has no more."""
SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Subject:
    """A model, rows as its inputs, and the truth about them.

    Attributes
    ----------
    target : of ``n_rows`` rows; its classes are in the order of this model's scores.
    """

    model: OnnxModel
    metric: str
    target: Target
    feeds: Feeds

    @property
    def row_count(self) -> int:
        return len(self.target.values)

    def predict(self, changes: Feeds | None = None) -> Predictions:
        """Predict the rows, some features changed; those it does not know are left."""
        known = {n: v for n, v in (changes or {}).items() if n in self.feeds}
        return self.model.predict_arrays({**self.feeds, **known}, self.row_count)

    def losses(self, changes: Feeds | None = None) -> Floats:
        """Return (n_rows,) losses; NaN where there is no finite answer."""
        return losses.row_losses(self.metric, self.target, self.predict(changes))

    def take(self, index: npt.NDArray[np.int64]) -> "Subject":
        """Return the same model on some of the rows, or on rows repeated."""
        target = replace(self.target, values=self.target.values[index])
        feeds = {name: values[index] for name, values in self.feeds.items()}
        return replace(self, target=target, feeds=feeds)

    def outputs(self, predicted: Predictions, of: npt.NDArray[np.int64]) -> Floats:
        """Return (n_rows,) numbers to explain: predictions, or log odds of a class.

        Parameters
        ----------
        of : (n_rows,) the class whose log odds are wanted; ignored for regression.
        """
        if predicted.score is None:
            return predicted.prediction.astype(np.float64)
        score = two_dimensional(predicted.score)
        chance = score[np.arange(len(of)), of]
        chance = np.clip(chance, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        result: Floats = np.log(chance / (1 - chance))
        return result


@dataclass(frozen=True)
class Spread:
    """Where the training rows' values of a number, or a datetime, lie.

    Of a datetime all is in microseconds, the graph's own unit.

    Attributes
    ----------
    low, high : outside of them the validator lets no value through.
    """

    median: float
    deviation: float
    is_whole: bool = False
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Scene:
    """What every measurement looks at.

    Attributes
    ----------
    rows : the hold-out in order of time.
    columns : the candidate's features.
    champion : None where there is none that can answer these rows.
    baseline : (n_rows,) losses of no skill.
    spreads : of each number that varies in training.
    target_deviation : of the target in training; 1 for classification.
    """

    rows: pa.Table
    columns: tuple[InputColumn, ...]
    candidate: Subject
    champion: Subject | None
    baseline: Floats
    spreads: Mapping[str, Spread]
    target_deviation: float
    seed: int

    def thinned(self, most: int) -> "Scene":
        """Return the scene on at most so many rows, evenly over time."""
        count = self.rows.num_rows
        if count <= most:
            return self
        index = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
        champion = self.champion
        return replace(
            self,
            rows=self.rows.take(pa.array(index)),
            candidate=self.candidate.take(index),
            champion=None if champion is None else champion.take(index),
            baseline=self.baseline[index],
        )

    def subjects(self) -> dict[str, Subject]:
        """Return the models by role, the candidate first."""
        found = {"candidate": self.candidate}
        if self.champion is not None:
            found["champion"] = self.champion
        return found


def two_dimensional(score: Floats) -> Floats:
    """Return scores as (n_rows, n_classes), also of two classes."""
    return np.column_stack([1 - score, score]) if score.ndim == 1 else score


def spread_of(
    values: Values, feature: Feature | None, *, is_whole: bool
) -> Spread | None:
    """Return where a number's or datetime's values lie; None when they do not vary.

    Parameters
    ----------
    feature : of the pipeline file; None where the schema is inferred.
    """
    known = values[~missing(values)].astype(np.float64)
    deviation = float(np.std(known)) if len(known) else 0.0
    if deviation == 0:
        return None
    low, high = _ends(values, feature)
    return Spread(float(np.median(known)), deviation, is_whole, low, high)


def _ends(values: Values, feature: Feature | None) -> tuple[float, float]:
    if values.dtype == np.int64:
        first, last = feature.moment_limits if feature else (None, None)
        return (
            float(FIRST_US if first is None else (first - EPOCH) // MICROSECOND),
            float(LAST_US if last is None else (last - EPOCH) // MICROSECOND),
        )
    low, high = feature.number_limits if feature else (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def missing(values: Values) -> npt.NDArray[np.bool_]:
    """Return where numbers or datetimes have no value (that counts)."""
    found: npt.NDArray[np.bool_] = (
        values == MISSING_MOMENT if values.dtype == np.int64 else ~np.isfinite(values)
    )
    return found


def shifted(values: Values, by: Values) -> Values:
    """Return numbers moved by so much, or datetimes by so many microseconds."""
    if values.dtype != np.int64:
        return (values + by).astype(np.float32)
    moved = np.clip(values + np.rint(by).astype(np.int64), FIRST_US, LAST_US)
    return np.where(missing(values), values, moved)


def rounded(content: Any) -> Any:
    """Return content with every float at six significant digits.

    >>> rounded({"a": [1 / 3, 2]})
    {'a': [0.333333, 2]}
    """
    if isinstance(content, float | np.floating):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, Mapping):
        return {name: rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return content
