"""What a candidate learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.trainer.graph import Floats, Matrix


@dataclass(frozen=True)
class Sample:
    """Training rows in order of event time.

    Attributes
    ----------
    matrix : (n_rows, width) float32, NaN where a value is missing.
    target : (n_rows,) float64 for regression, else int64 numbers of classes.
    classes : labels by number; empty for regression.
    threads : that a library may use.
    """

    matrix: Matrix
    target: npt.NDArray[Any]
    classes: tuple[str, ...]
    seed: int
    threads: int = 1

    def predictor(self, model: Any) -> Callable[[Matrix], Floats]:
        """Return a scikit-learn model's answer in the form that ``Core`` wants."""
        if self.classes:
            return lambda matrix: np.asarray(model.predict_proba(matrix))
        return lambda matrix: np.asarray(model.predict(matrix), dtype=np.float64)


class CandidateRefused(Exception):  # noqa: N818 - says what happened
    """A candidate cannot be used, and why; the training goes on with the others."""
