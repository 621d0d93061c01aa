"""Sample rows of a package and what the model must say about them.

``samples.json`` is ``{"inputs": {feature: [values]}, "prediction": [...],
"score": [...] or null}``. Whoever serves the package runs them first: a model that
answers otherwise here than where it was trained must not answer anyone.
"""

import json
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.moments import MOMENT_TYPE, moment_text, moments
from driftloop.models.onnx_model import OnnxModel, OutputRefused, Predictions
from driftloop.models.package import InputColumn

SAMPLES_FILE = "samples.json"
ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "category": pa.string(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "datetime": MOMENT_TYPE,
}
"""How each type of feature travels in validated rows."""
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-5
"""Single precision summed in another order (another processor) stays within."""


class SamplesRefused(ValueError):  # noqa: N818 - says what happened
    """Samples are missing or broken, or the model answers them otherwise."""


def samples_json(
    rows: pa.RecordBatch, inputs: list[InputColumn], said: Predictions
) -> bytes:
    """Return the content of ``samples.json``.

    Parameters
    ----------
    rows : (n_rows, n_columns) with at least the features; a few rows are enough.
    said : what the packaged ONNX model predicts for them.
    """
    columns = {c.name: [_plain(v) for v in rows.column(c.name).to_pylist()]
               for c in inputs}  # fmt: skip
    content = {
        "inputs": columns,
        "prediction": said.prediction.tolist(),
        "score": None if said.score is None else said.score.tolist(),
    }
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no NaN, and moments as text."""
    if isinstance(value, datetime):
        return moment_text(value)
    return None if value != value else value  # noqa: PLR0124 - NaN


def typed_rows(
    columns: dict[str, list[Any]], inputs: list[InputColumn]
) -> pa.RecordBatch:
    """Return (n_rows, n_features) rows of the types that the features have.

    Raises
    ------
    KeyError
        When a feature is missing.
    pa.ArrowException
        When values are not of a feature's type.
    """
    fields = [pa.field(c.name, ARROW_TYPES[c.type]) for c in inputs]
    arrays = [_typed(columns[field.name], field.type) for field in fields]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind != MOMENT_TYPE:
        return pa.array(values, type=kind)
    found, wrong = moments(values)
    if wrong is not None:
        raise pa.ArrowInvalid("values are no moments")
    return found


def check_samples(
    model: OnnxModel, inputs: list[InputColumn], samples: bytes
) -> pa.RecordBatch:
    """Run the samples and return their rows if the answers are the expected ones.

    Raises
    ------
    SamplesRefused
        Says which answer differs.
    """
    try:
        content = json.loads(samples)
        rows = typed_rows(content["inputs"], inputs)
        prediction, score = content["prediction"], content["score"]
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SamplesRefused(f"{SAMPLES_FILE} is not right: {error!r}") from error
    if not rows.num_rows:
        raise SamplesRefused(f"{SAMPLES_FILE} holds no rows")
    try:
        said = model.predict(rows)
    except OutputRefused as error:
        raise SamplesRefused(str(error)) from error
    if bad := said.non_finite_count():
        raise SamplesRefused(f"{bad} of {rows.num_rows} samples get no finite answer")
    _compare("prediction", said.prediction, prediction)
    if said.score is not None:
        _compare("score", said.score, score)
    return rows


def _compare(name: str, found: npt.NDArray[Any], expected: Any) -> None:
    wanted = np.asarray(expected)
    if wanted.shape != found.shape:
        raise SamplesRefused(f"{name} has shape {found.shape}, expected {wanted.shape}")
    if found.dtype.kind != "f":
        same = found == wanted.astype(str)
    elif wanted.dtype.kind in "fiu":
        same = np.isclose(found, wanted, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE)
    else:
        raise SamplesRefused(f"{name}: expected numbers, {SAMPLES_FILE} has text")
    if not same.all():
        first = int(np.flatnonzero(~same.reshape(len(same), -1).all(axis=1))[0])
        raise SamplesRefused(
            f"sample {first}: {name} is {found[first]}, expected {wanted[first]}"
        )
