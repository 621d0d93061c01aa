"""What each model says about the rows, asked once for all policies.

A model is known by its package's digest; the same digest gives the same answers. They
are asked in stretches of rows and lie in a folder that all processes share.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.backtest.stream import Ints, Stream
from driftloop.backtest.trainings import Learned
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import Predictions
from driftloop.scorer.core import Answers, finite_answers
from driftloop.trainer import judging

STRETCH_ROWS = 4096
KEPT_STRETCHES = 16
"""In memory; a batch is in one or two, of the champion and of a candidate."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """A model's answers to some rows.

    Attributes
    ----------
    losses : (n_rows,) in the unit whose mean decides (squared for ``rmse``); NaN
        where the target is not known at all.
    """

    predicted: Predictions
    losses: Floats


class Desk:
    """Asks models, and remembers what they said."""

    def __init__(self, stream: Stream, spec: PipelineSpec, folder: Path) -> None:
        self._stream, self._spec, self._folder = stream, spec, folder
        self._kept: OrderedDict[tuple[str, int], Said] = OrderedDict()

    def said(self, model: Learned, numbers: Ints) -> Said:
        """Return a model's answers to rows, by their numbers in order."""
        first = int(numbers[0]) // STRETCH_ROWS
        last = int(numbers[-1]) // STRETCH_ROWS
        parts = []
        for stretch in range(first, last + 1):
            start = stretch * STRETCH_ROWS
            low, high = np.searchsorted(numbers, [start, start + STRETCH_ROWS])
            if low < high:
                parts.append(
                    _taken(self._stretch(model, stretch), numbers[low:high] - start)
                )
        return parts[0] if len(parts) == 1 else _together(parts)

    def losses(self, model: Learned, start: int) -> Floats:
        """Return the losses of all rows from number ``start`` on."""
        numbers = np.arange(start, self._stream.rows.num_rows)
        return self.said(model, numbers).losses if len(numbers) else np.empty(0)

    def _stretch(self, model: Learned, stretch: int) -> Said:
        key = (model.package.digest, stretch)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        path = self._folder / f"{model.package.digest}-{stretch}.npz"
        found = _read(path)
        if found is None:
            found = self._ask(model, stretch)
            _write(path, found)
        self._kept[key] = found
        while len(self._kept) > KEPT_STRETCHES:
            self._kept.popitem(last=False)
        return found

    def _ask(self, model: Learned, stretch: int) -> Said:
        start = stretch * STRETCH_ROWS
        rows = self._stream.rows.slice(start, STRETCH_ROWS)
        predicted = model.model.predict(rows)
        known = self._stream.is_labelled[start : start + rows.num_rows]
        losses = np.full(rows.num_rows, np.nan)
        if known.any():
            score = predicted.score
            losses[known] = judging.row_losses(
                self._spec,
                rows.filter(pa.array(known)),
                Predictions(
                    predicted.prediction[known], None if score is None else score[known]
                ),
                model.classes,
            )
        return Said(predicted, losses)


def answers_of(said: Said, classes: tuple[str, ...]) -> Answers:
    """Return answers as the scorer has them."""
    return finite_answers(said.predicted.prediction, said.predicted.score, classes, 0.0)


def _taken(said: Said, places: Ints) -> Said:
    score = said.predicted.score
    return Said(
        Predictions(
            said.predicted.prediction[places], None if score is None else score[places]
        ),
        said.losses[places],
    )


def _together(parts: list[Said]) -> Said:
    scores = [part.predicted.score for part in parts]
    known = [score for score in scores if score is not None]
    return Said(
        Predictions(
            np.concatenate([part.predicted.prediction for part in parts]),
            np.concatenate(known) if known else None,
        ),
        np.concatenate([part.losses for part in parts]),
    )


def _read(path: Path) -> Said | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            score = file["score"] if "score" in file.files else None
            return Said(Predictions(file["prediction"], score), file["losses"])
    except FileNotFoundError:
        return None


def _write(path: Path, said: Said) -> None:
    """Write whole or not at all: another process may ask for the same."""
    arrays = {"prediction": said.predicted.prediction, "losses": said.losses}
    if said.predicted.score is not None:
        arrays["score"] = said.predicted.score
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez(file, allow_pickle=False, **arrays)
    Path(file.name).replace(path)
