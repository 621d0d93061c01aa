"""Predictions of a packaged model on ONNX Runtime, from Arrow rows.

The graph has one input per feature of shape (n_rows, 1): float32 for numbers,
integers and booleans (a null is NaN), string for categories and texts (a null is ""),
int64 for datetimes: microseconds since 1970 in UTC (a null is the least int64, numpy's
NaT).
Its outputs are ``prediction`` and, for classification, ``score``.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.formats import MODEL_FILE, check_onnx
from driftloop.models.package import (
    STRINGS,
    ColumnType,
    InputColumn,
    Manifest,
    Package,
)

FLOAT_INPUT = "tensor(float)"
STRING_INPUT = "tensor(string)"
INT64_INPUT = "tensor(int64)"
MISSING_MOMENT = np.iinfo(np.int64).min
"""A datetime's null in the graph; numpy's NaT is the same number."""
onnxruntime.disable_telemetry_events()


_INPUTS: dict[str, str] = {
    **dict.fromkeys(STRINGS, STRING_INPUT), "datetime": INT64_INPUT,
}  # fmt: skip


class InputRefused(ValueError):  # noqa: N818 - says what happened
    """Rows lack a feature or hold it in a wrong type; names the column."""


class OutputRefused(ValueError):  # noqa: N818 - says what happened
    """A model answered something that is not a finite prediction a row."""


@dataclass(frozen=True)
class Predictions:
    """What a model says about ``n_rows`` rows.

    Attributes
    ----------
    prediction : (n_rows,) float64 for regression, else str labels.
    score : None for regression; (n_rows,) float64 probability of the second
        class for binary; (n_rows, n_classes) float64 for multiclass.
    """

    prediction: npt.NDArray[Any]
    score: npt.NDArray[np.float64] | None = None

    def non_finite_count(self) -> int:
        """Return how many rows have a NaN or infinite prediction or score."""
        numbers = [self.prediction] if self.prediction.dtype.kind == "f" else []
        if self.score is not None:
            numbers.append(self.score)
        if all(np.isfinite(each).all() for each in numbers):
            return 0
        bad = np.zeros(len(self.prediction), dtype=bool)
        if self.prediction.dtype.kind == "f":
            bad |= ~np.isfinite(self.prediction)
        if self.score is not None:
            finite = np.isfinite(self.score)
            bad |= ~(finite if finite.ndim == 1 else finite.all(axis=1))
        return int(bad.sum())


class OnnxModel:
    """A model ready to predict; safe to use from several threads.

    Parameters
    ----------
    model : ONNX bytes of a verified package; see :meth:`from_package`.
    inputs : features in the manifest's order.
    threads : of one call. One is best for small batches.

    Raises
    ------
    FormatRefused
        When the bytes are no ONNX model of the allowed operator sets.
    InputRefused
        When the graph's inputs are not the manifest's features.
    """

    def __init__(
        self, model: bytes, inputs: list[InputColumn], *, threads: int = 1
    ) -> None:
        check_onnx(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.inputs: dict[str, ColumnType] = {c.name: c.type for c in inputs}
        self._outputs = [output.name for output in self._session.get_outputs()]
        graph = {i.name: i.type for i in self._session.get_inputs()}
        wanted = {
            name: _INPUTS.get(kind, FLOAT_INPUT) for name, kind in self.inputs.items()
        }
        if graph != wanted:
            raise InputRefused(f"the graph takes {graph}, the manifest says {wanted}")
        if "prediction" not in self._outputs:
            raise OutputRefused(f"the graph gives {self._outputs}, no 'prediction'")

    @classmethod
    def from_package(cls, package: Package, *, threads: int = 1) -> "OnnxModel":
        """Load the model of a verified package."""
        manifest: Manifest = package.manifest
        return cls(package.files[MODEL_FILE], manifest.inputs, threads=threads)

    def predict(self, rows: pa.RecordBatch | pa.Table) -> Predictions:
        """Predict each row.

        Parameters
        ----------
        rows : (n_rows, n_columns) with at least the features; others are ignored.

        Raises
        ------
        InputRefused
            Names the column that is missing or of a wrong type.
        OutputRefused
            When the graph gives another number of predictions than rows.
        """
        return self.predict_arrays(self.feeds(rows), rows.num_rows)

    def feeds(self, rows: pa.RecordBatch | pa.Table) -> dict[str, npt.NDArray[Any]]:
        """Return rows as what :meth:`predict_arrays` takes.

        Raises
        ------
        InputRefused
            Names the column that is missing or of a wrong type.
        """
        return {name: _as_input(rows, name, kind) for name, kind in self.inputs.items()}

    def predict_arrays(
        self, feeds: dict[str, npt.NDArray[Any]], row_count: int
    ) -> Predictions:
        """Predict rows that are arrays already.

        Parameters
        ----------
        feeds : each feature as (row_count, 1): float32, Python strings (object) for a
            category, int64 for a datetime.

        Raises
        ------
        OutputRefused
            When the graph gives another number of predictions than rows.
        """
        if row_count == 0:
            kind = "f8" if "score" not in self._outputs else str
            return Predictions(np.empty(0, dtype=kind))
        named = dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        prediction = np.asarray(named["prediction"]).reshape(-1)
        if len(prediction) != row_count:
            raise OutputRefused(f"{len(prediction)} answers to {row_count} rows")
        score = named.get("score")
        if score is None:
            return Predictions(prediction.astype(np.float64))
        score = np.asarray(score, dtype=np.float64)
        if score.shape[0] != row_count:
            raise OutputRefused(f"{score.shape[0]} scores to {row_count} rows")
        if score.ndim == 2 and score.shape[1] == 1:
            score = score[:, 0]
        return Predictions(prediction.astype(str), score)


def _as_input(
    rows: pa.RecordBatch | pa.Table, name: str, kind: ColumnType
) -> npt.NDArray[Any]:
    index = rows.schema.get_field_index(name)
    if index < 0:
        have = ", ".join(rows.schema.names)
        raise InputRefused(f"feature {name!r} is missing; the rows have {have}")
    column = rows.column(index)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        if kind in STRINGS:
            return category_array(column).reshape(-1, 1)
        if kind == "datetime":
            return moment_array(column).reshape(-1, 1)
        return number_array(column).reshape(-1, 1)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
        raise InputRefused(
            f"feature {name!r} should be {kind} and is {column.type}: {error}"
        ) from error


def number_array(column: pa.Array) -> npt.NDArray[np.float32]:
    """Return (n_rows,) float32; a null is NaN, a boolean 0 or 1.

    What float32 cannot hold is as missing: a sum with an infinite number says nothing.

    >>> number_array(pa.array([1, None, 1e300]))
    array([ 1., nan, nan], dtype=float32)
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        raise TypeError("text where a number is expected")
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values = column.cast(pa.float32(), safe=False)
    result: npt.NDArray[np.float32] = values.to_numpy(zero_copy_only=False)
    result = result.astype(np.float32, copy=False)
    infinite = np.isinf(result)
    return np.where(infinite, np.float32(np.nan), result) if infinite.any() else result


def moment_array(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return (n_rows,) microseconds since 1970; a null is :data:`MISSING_MOMENT`.

    >>> moment_array(pa.array([0, None], pa.timestamp("us", "UTC"))).tolist()
    [0, -9223372036854775808]
    """
    if not pa.types.is_timestamp(column.type) and not pa.types.is_null(column.type):
        raise TypeError("no timestamps where moments are expected")
    moments = column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    result: npt.NDArray[np.int64] = moments.fill_null(MISSING_MOMENT).to_numpy(
        zero_copy_only=False
    )
    return result


def category_array(column: pa.Array) -> npt.NDArray[np.object_]:
    """Return (n_rows,) Python strings; a null is "".

    Numbers and booleans become the text that a person would write, so that a
    label is the same whether it was stored as 1 or as "1".

    >>> category_array(pa.array([1.0, None, 0.5])).tolist()
    ['1', '', '0.5']
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        whole = pc.equal(column, pc.round(column))
        if not pc.all(whole, min_count=0).as_py():
            return np.array([_text(v) for v in column.to_pylist()], dtype=object)
        column = column.cast(pa.int64())
    texts_array = column.cast(pa.string()).fill_null("")
    result: npt.NDArray[np.object_] = texts_array.to_numpy(zero_copy_only=False)
    return result.astype(object, copy=False)


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else repr(value)
