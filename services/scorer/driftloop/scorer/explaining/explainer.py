"""What a version needs to explain its answers: rows to compare with, and its pace."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.models.package import Manifest
from driftloop.runtime.telemetry import log
from driftloop.scorer.explaining.mixtures import Background, Floats, Ints, Question
from driftloop.scorer.explaining.shapley import MIN_VISITS, Seen, explain

REFERENCE_FILE = "reference.arrow"
BACKGROUND_ROWS = 32
"""Rows that an answer is compared with: the base is their mean answer."""
PACE_ROWS = 256
MAX_COLUMNS = 1000
"""A visit's mixtures are (4 n) rows of n columns: 4 million values."""
logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Why there is no explanation, in words."""

    reason: str
    timed_out: bool = False


@dataclass(frozen=True)
class Explainer:
    """Explains one version's answers; safe to use from several threads.

    Attributes
    ----------
    pace : seconds of the model for one of many rows.
    """

    model: OnnxModel
    manifest: Manifest
    background: Background
    pace: float

    @property
    def unit(self) -> str:
        """What base and contributions are numbers of."""
        if self.manifest.classes:
            return "probability of the predicted class"
        return self.manifest.target

    def question(
        self, feeds: Mapping[str, npt.NDArray[Any]], said: Predictions
    ) -> Question:
        """Return what is asked about rows that were answered.

        Parameters
        ----------
        feeds : each feature as (n_rows, 1); see :mod:`driftloop.scorer.feeds`.
        """
        outputs = outputs_of(said)
        of = np.zeros(len(outputs), np.int64)
        if said.score is not None:
            of = _predicted(said.prediction, outputs, self.manifest.classes)
        answers = outputs[np.arange(len(of)), of]
        inputs = {column.name: feeds[column.name] for column in self.manifest.inputs}
        return Question(inputs, answers, of)

    def explain(self, question: Question, until: float) -> Iterator[Seen]:
        """Yield better and better explanations; see :func:`shapley.explain`.

        Parameters
        ----------
        until : seconds of ``time.perf_counter``.
        """

        def outputs(feeds: dict[str, npt.NDArray[Any]], rows: int) -> Floats:
            return outputs_of(self.model.predict_arrays(feeds, rows))

        return explain(
            question, self.background, outputs, self.pace, until, time.perf_counter
        )


def explainer_of(
    model: OnnxModel, manifest: Manifest, reference: bytes | None
) -> Explainer | Unexplained:
    """Return a version's explainer, or why its answers cannot be explained.

    Parameters
    ----------
    reference : the package's ``reference.arrow``: rows that were learned from. Some of
        them, evenly over time, are what answers are compared with. They are what they
        are in the package: treated by the pipeline's ``data.privacy``.
    """
    try:
        return _explainer(model, manifest, reference)
    except Exception as error:  # noqa: BLE001 - the version answers all the same
        logger.warning("answers are not explained", error=str(error))
        return Unexplained(f"this version's answers are not explained: {error!s:.200}")


def _explainer(
    model: OnnxModel, manifest: Manifest, reference: bytes | None
) -> Explainer:
    columns = len(manifest.inputs)
    if columns > MAX_COLUMNS:
        raise ValueError(f"it has {columns} columns, more than {MAX_COLUMNS}")
    if reference is None:
        raise ValueError(f"its package has no {REFERENCE_FILE}: rows to compare with")
    feeds, count = _background(model, reference)
    if count < MIN_VISITS:
        raise ValueError(f"its {REFERENCE_FILE} has fewer than {MIN_VISITS} rows")
    said = outputs_of(model.predict_arrays(feeds, count))
    if not np.isfinite(said).all():
        raise ValueError(f"it has no finite answer to rows of its {REFERENCE_FILE}")
    index = np.arange(PACE_ROWS) % count
    many = {name: values[index] for name, values in feeds.items()}
    started = time.perf_counter()
    model.predict_arrays(many, PACE_ROWS)
    pace = (time.perf_counter() - started) / PACE_ROWS
    return Explainer(model, manifest, Background(feeds, said), pace)


def _background(
    model: OnnxModel, reference: bytes
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    try:
        with pa.ipc.open_stream(pa.py_buffer(reference)) as reader:
            rows = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"its {REFERENCE_FILE} cannot be read: {error}") from error
    spread = np.linspace(0, rows.num_rows - 1, min(BACKGROUND_ROWS, rows.num_rows))
    rows = rows.take(pa.array(np.unique(spread.astype(np.int64))))
    return model.feeds(rows), rows.num_rows


def outputs_of(said: Predictions) -> Floats:
    """Return (n_rows, n_outputs): predictions, or the probability of each class."""
    if said.score is None:
        return said.prediction.astype(np.float64)[:, None]
    score = said.score
    return np.column_stack([1 - score, score]) if score.ndim == 1 else score


def _predicted(
    prediction: npt.NDArray[Any], outputs: Floats, classes: Sequence[str]
) -> Ints:
    """Return (n_rows,) which class is the predicted one."""
    places = {name: place for place, name in enumerate(classes)}
    likeliest = outputs.argmax(axis=1)
    return np.array(
        [places.get(str(name), best)
         for name, best in zip(prediction.tolist(), likeliest.tolist(), strict=True)],
        np.int64,
    )  # fmt: skip
