"""Tensors of requests and answers, as JSON and as bytes; pure.

A binary tensor has its values one after the other, little-endian; of BYTES each value
has its length before it, 4 bytes. See the protocol's binary tensor data extension.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from driftloop.contracts.moments import FIRST_US, LAST_US, moment_of
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import ColumnType, InputColumn
from driftloop.scorer.asked import ROW_ID
from driftloop.scorer.feeds import BadRequest

BINARY_EXTENSION = "binary_tensor_data"
NUMBERS: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
BYTES = "BYTES"
DATATYPES: Mapping[ColumnType, str] = {
    "number": "FP64",
    "integer": "INT64",
    "category": BYTES,
    "text": BYTES,
    "boolean": "BOOL",
    "datetime": BYTES,
}
SIZE = struct.Struct("<I")
EXPLAINED = ("explanation", "explanation_standard_error", "explanation_base")
"""Outputs that an answer has where an explanation is asked for."""
REFUSED = {
    "shared_memory_region": "there is no shared memory; send the values",
    "classification": "there is no classification extension; read 'score'",
    "sequence_id": "requests do not depend on each other; there are no sequences",
}
"""Parameters that would change the answer, and why they cannot."""

Values = list[Any] | npt.NDArray[Any]
"""(n_rows,) or (n_rows, 1) in one way or the other, or flat, row by row, where there
are several columns; None or NaN: missing."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a request.

    Attributes
    ----------
    width : columns of it: one, or all of the model's inputs in their order.
    """

    name: str
    datatype: str
    values: Values
    width: int = 1


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an answer.

    Attributes
    ----------
    shape : [n_rows, width].
    values : flat, row by row; numbers, or text for BYTES.
    """

    name: str
    datatype: str
    shape: list[int]
    values: npt.NDArray[Any]

    def as_bytes(self) -> bytes:
        if self.datatype == BYTES:
            parts = (str(value).encode() for value in self.values)
            return b"".join(SIZE.pack(len(part)) + part for part in parts)
        return self.values.astype(NUMBERS[self.datatype], copy=False).tobytes()


def refuse(parameters: Collection[str], whose: str) -> None:
    """Refuse parameters, by their names, that would change the answer and cannot.

    Raises
    ------
    BadRequest
        Names the parameter, and why.
    """
    for name, why in REFUSED.items():
        if name in parameters:
            raise BadRequest(f"{whose}: parameter {name!r}: {why}")


def size_of(name: str, datatype: Any, shape: Any) -> tuple[int, int]:
    """Return the rows and columns of an input, from what is said about it.

    Raises
    ------
    BadRequest
        When its datatype is unknown, or its shape is not that of columns.
    """
    if datatype not in NUMBERS and datatype != BYTES:
        raise BadRequest(f"input {name!r}: unknown datatype {datatype!r:.40}")
    if not _is_shape(shape):
        raise BadRequest(
            f"input {name!r}: expected shape [n] or [n, 1] for a feature, or [n, k] "
            f"for all k of them, got {shape!r}"
        )
    width = shape[1] if len(shape) == 2 else 1
    if width > 1 and datatype == BYTES:
        raise BadRequest(
            f"input {name!r}: {width} columns of BYTES; send a tensor for each feature"
        )
    return shape[0], width


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and len(shape) in (1, 2)
        and all(type(size) is int for size in shape)
        and shape[0] >= 0
        and shape[-1] >= (len(shape) == 2)
    )


def values_in(data: bytes | memoryview, name: str, datatype: str, rows: int) -> Values:
    """Return the values of a binary tensor with so many of them.

    Raises
    ------
    BadRequest
        When the bytes are not those of so many values.
    """
    if datatype == BYTES:
        return _texts_in(bytes(data), name, rows)
    kind = NUMBERS[datatype]
    if len(data) != rows * kind.itemsize:
        raise BadRequest(
            f"input {name!r}: {rows} values of {datatype} are {rows * kind.itemsize} "
            f"bytes, not {len(data)}"
        )
    if datatype == "BOOL" and len(data) and max(data) > 1:
        raise BadRequest(f"input {name!r}: a byte of a BOOL is 0 or 1")
    values = np.frombuffer(data, kind)
    if kind.kind == "f" and np.isnan(values).any():
        return [None if np.isnan(value) else float(value) for value in values]
    return values


def _texts_in(data: bytes, name: str, rows: int) -> list[str]:
    texts: list[str] = []
    at = 0
    try:
        while at < len(data):
            (size,) = SIZE.unpack_from(data, at)
            at += SIZE.size + size
            if at > len(data):
                raise BadRequest(f"input {name!r}: its bytes end within a value")
            texts.append(data[at - size : at].decode())
    except struct.error:
        raise BadRequest(f"input {name!r}: its bytes end within a length") from None
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"input {name!r}: value {len(texts)} is not UTF-8 text: {error.reason}"
        ) from error
    if len(texts) != rows:
        raise BadRequest(f"input {name!r}: {rows} values expected, {len(texts)} found")
    return texts


def columns_of(
    tensors: Sequence[Tensor],
) -> tuple[dict[str, Values], Callable[[Sequence[InputColumn]], None]]:
    """Return the values by input, and the test of their datatypes against a model.

    The test turns an INT64 of a datetime into moments.

    Raises
    ------
    BadRequest
        When there are none, or one comes twice. The test names the input that is not
        right.
    """
    if not tensors:
        raise BadRequest("expected 'inputs': a list of tensors, one for each feature")
    columns = {tensor.name: tensor.values for tensor in tensors}
    if any(tensor.width > 1 for tensor in tensors):
        return _matrix(tensors)
    if len(columns) < len(tensors):
        names = sorted(tensor.name for tensor in tensors)
        twice = next(one for one, other in pairwise(names) if one == other)
        raise BadRequest(f"input {twice!r} comes twice")

    def check(wanted: Sequence[InputColumn]) -> None:
        known = {column.name: column.type for column in wanted}
        for tensor in tensors:
            name, datatype = tensor.name, tensor.datatype
            kind = known.get(name)
            if kind is None and name == ROW_ID:
                continue  # says which rows are asked about
            if kind is None:
                raise BadRequest(
                    f"the model has no input {name!r}; it has {', '.join(known)}"
                )
            if kind == "datetime" and datatype == "INT64":
                values = _as_list(tensor.values)
                columns[name] = [_moment(value, name) for value in values]
                continue
            if (datatype == BYTES) != (DATATYPES[kind] == BYTES):
                raise BadRequest(
                    f"input {name!r} is a {kind}: send {DATATYPES[kind]}, "
                    f"not {datatype}"
                )

    return columns, check


def _matrix(
    tensors: Sequence[Tensor],
) -> tuple[dict[str, Values], Callable[[Sequence[InputColumn]], None]]:
    """Return the same where one tensor has all inputs: the test names its columns."""
    whole = next(tensor for tensor in tensors if tensor.width > 1)
    columns = {t.name: t.values for t in tensors if t.name == ROW_ID and t.width == 1}
    if len(columns) != len(tensors) - 1:
        raise BadRequest(
            f"input {whole.name!r}: has {whole.width} columns, so it is the only "
            "input; or send a tensor for each feature"
        )

    def check(wanted: Sequence[InputColumn]) -> None:
        other = next((c for c in wanted if DATATYPES[c.type] == BYTES), None)
        if other is not None:
            raise BadRequest(
                f"input {whole.name!r}: {other.name!r} is a {other.type}; send a "
                "tensor for each feature"
            )
        if len(wanted) != whole.width:
            names = ", ".join(column.name for column in wanted)
            raise BadRequest(
                f"input {whole.name!r}: {whole.width} columns; the model has "
                f"{len(wanted)} inputs: {names}"
            )
        for position, column in enumerate(wanted):
            columns[column.name] = whole.values[position :: whole.width]

    return columns, check


def _as_list(values: Values) -> list[Any]:
    return values if isinstance(values, list) else values.tolist()


def _moment(value: Any, name: str) -> datetime | None:
    """Return the moment that an INT64 tensor has: microseconds since 1970 in UTC."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None:
        return None
    if type(value) is not int or not FIRST_US <= value <= LAST_US:
        raise BadRequest(
            f"input {name!r}: {value!r:.40} is no moment; an INT64 counts the "
            "microseconds since 1970 in UTC, a BYTES is ISO 8601 text"
        )
    return moment_of(value)


def outputs_of(said: Predictions) -> list[Output]:
    """Return what a model said: ``prediction``, and ``score`` for classes."""
    rows = len(said.prediction)
    is_number = said.prediction.dtype.kind == "f"
    datatype = "FP64" if is_number else BYTES
    outputs = [Output("prediction", datatype, [rows, 1], said.prediction)]
    if said.score is not None:
        width = said.score.shape[1] if said.score.ndim == 2 else 1
        scores = said.score.reshape(-1)
        outputs.append(Output("score", "FP64", [rows, width], scores))
    return outputs


def chosen(
    outputs: Sequence[Output],
    names: Sequence[str],
    explained: Sequence[Output] | None = None,
) -> list[Output]:
    """Return the outputs that were asked for; no names: all.

    Parameters
    ----------
    explained : of an explanation: they come beside the others, named or not. None: it
        was not asked for.

    Raises
    ------
    BadRequest
        Names the one that there is not.
    """
    by_name = {output.name: output for output in outputs}
    if explained is not None and names:
        outputs = ()
        names = [name for name in names if name not in EXPLAINED]
    for name in names:
        if name not in by_name:
            raise BadRequest(
                f"the model has no output {name!r}; it has {', '.join(by_name)}"
            )
    return [*([by_name[name] for name in names] or outputs), *(explained or ())]
