"""The model on ONNX Runtime, and the test of its answers to the samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime

from .columns import DATETIME, FLOAT32_MAX, STRINGS, Array, Column, Feeds, feeds_of
from .errors import BadRequest, ModelFailed, Refused

FLOAT, STRING, INT64 = "tensor(float)", "tensor(string)", "tensor(int64)"


@dataclass(frozen=True)
class Predictions:
    """What the model says about ``n_rows`` rows.

    Attributes
    ----------
    prediction : (n_rows,) float64 for regression, else labels.
    score : None for regression; (n_rows,) of the second of two classes, or
        (n_rows, n_classes).
    """

    prediction: Array
    score: Array | None = None


class Model:
    """A model ready to answer; safe to use from several threads.

    Parameters
    ----------
    model : bytes that were verified.
    threads : of one call.

    Raises
    ------
    Refused
        When ONNX Runtime cannot run it, or it takes something else than the inputs.
    """

    def __init__(
        self, model: bytes, inputs: Sequence[Column], threads: int = 1
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no class in common
            raise Refused(
                f"ONNX Runtime {onnxruntime.__version__} cannot run the model: "
                f"{error!s:.500}"
            ) from error
        self.inputs = inputs
        self._outputs = [output.name for output in self._session.get_outputs()]
        graph = {i.name: i.type for i in self._session.get_inputs()}
        wanted = {column.name: _element(column.type) for column in inputs}
        if graph != wanted:
            raise Refused(f"the graph takes {graph}, the manifest says {wanted}")
        if "prediction" not in self._outputs:
            raise Refused(f"the graph gives {self._outputs}, no 'prediction'")

    def predict(self, feeds: Feeds, row_count: int) -> Predictions:
        """Return the answer to each row; see :func:`non_finite`.

        Raises
        ------
        ModelFailed
            When the graph fails, or gives another number of answers.
        """
        if row_count == 0:
            kind = "f8" if "score" not in self._outputs else str
            return Predictions(np.empty(0, dtype=kind))
        try:
            answers = self._session.run(None, feeds)
        except Exception as error:  # its errors have no class in common
            raise ModelFailed(f"the model cannot answer: {error!s:.300}") from error
        return _predictions(dict(zip(self._outputs, answers, strict=True)), row_count)


def _element(kind: str) -> str:
    if kind in STRINGS:
        return STRING
    return INT64 if kind == DATETIME else FLOAT


def _predictions(named: dict[str, Any], row_count: int) -> Predictions:
    prediction = np.asarray(named["prediction"]).reshape(-1)
    if len(prediction) != row_count:
        raise ModelFailed(f"{len(prediction)} answers to {row_count} rows")
    score = named.get("score")
    if score is None:
        return Predictions(prediction.astype(np.float64))
    score = np.asarray(score, dtype=np.float64)
    if score.shape[0] != row_count:
        raise ModelFailed(f"{score.shape[0]} scores to {row_count} rows")
    if score.ndim == 2 and score.shape[1] == 1:
        score = score[:, 0]
    return Predictions(prediction.astype(str), score)


def non_finite(said: Predictions) -> Array:
    """Return (n_rows,) which rows have no finite answer."""
    bad = np.zeros(len(said.prediction), dtype=bool)
    if said.prediction.dtype.kind == "f":
        bad |= ~np.isfinite(said.prediction)
    if said.score is not None:
        finite = np.isfinite(said.score)
        bad |= ~(finite if finite.ndim == 1 else finite.all(axis=1))
    return bad


def check_samples(
    model: Model, samples: Mapping[str, Any], tolerance: Mapping[str, float]
) -> int:
    """Let the model answer its samples; return how many rows these are.

    Raises
    ------
    Refused
        When there are none, or names the first answer that is not the expected one.
    """
    # A sample may lack a value even where requests may not.
    lenient = [replace(column, nullable=True) for column in model.inputs]
    try:
        columns = {
            column.name: [_sample(value) for value in samples["inputs"][column.name]]
            for column in model.inputs
        }
        feeds, rows = feeds_of(columns, lenient)
        expected = {name: samples[name] for name in ("prediction", "score")}
    except (KeyError, TypeError, BadRequest) as error:
        raise Refused(f"the samples are not right: {error}") from error
    if not rows:
        raise Refused("there are no samples to try the model with")
    try:
        said = model.predict(feeds, rows)
    except ModelFailed as error:
        raise Refused(f"its samples: {error}") from error
    if bad := int(non_finite(said).sum()):
        raise Refused(f"{bad} of {rows} samples get no finite answer")
    _compare("prediction", said.prediction, expected["prediction"], tolerance)
    if said.score is not None:
        _compare("score", said.score, expected["score"], tolerance)
    return rows


def _sample(value: Any) -> Any:
    """Return a value as it was learned: what float32 cannot hold is missing."""
    too_great = isinstance(value, float) and not abs(value) <= FLOAT32_MAX
    return None if too_great else value


def _compare(
    name: str, found: Array, expected: Any, tolerance: Mapping[str, float]
) -> None:
    wanted = np.asarray(expected)
    if wanted.shape != found.shape:
        raise Refused(f"samples: {name} has shape {found.shape}, not {wanted.shape}")
    if found.dtype.kind != "f":
        same = found == wanted.astype(str)
    elif wanted.dtype.kind in "fiu":
        near = (tolerance["relative"], tolerance["absolute"])
        same = np.isclose(found, wanted, *near)
    else:
        raise Refused(f"samples: {name}: expected numbers, found text")
    if not same.all():
        first = int(np.flatnonzero(~same.reshape(len(same), -1).all(axis=1))[0])
        raise Refused(
            f"sample {first}: {name} is {found[first]}, expected {wanted[first]}; "
            "this machine answers otherwise than the one that trained the model"
        )
