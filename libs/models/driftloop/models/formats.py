"""Which files a model package may hold, and what each must look like inside.

Nothing outside this list is written or read. A check looks at the bytes, not at
the name: a pickle called ``model.onnx`` is refused.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import pyarrow as pa

MIB = 1024 * 1024
MODEL_FILE = "model.onnx"
RUNTIME_DOMAIN = "com.microsoft"
OPSET_LIMITS = {"": 23, "ai.onnx": 23, "ai.onnx.ml": 5, RUNTIME_DOMAIN: 1}
"""Operator sets that the scorer's runtime has, with their newest known version;
every other domain is custom code."""
RUNTIME_OPERATORS = frozenset({"MurmurHash3", "Tokenizer"})
"""Of ONNX Runtime's own operators, those that preprocessing needs and ONNX lacks: the
hash of a text, and the words in it. Both are part of every build of it."""
MAX_IR_VERSION = 13
"""Newest intermediate representation that ONNX Runtime 1.31 reads."""
SAFETENSORS_HEADER_BYTES = 8


class FormatRefused(ValueError):  # noqa: N818 - says what happened
    """A file is not what its name says, or may not be in a package."""


def check_onnx(data: bytes) -> onnx.ModelProto:
    """Return the parsed model.

    Raises
    ------
    FormatRefused
        When it is no ONNX model, refers to files outside of itself, or uses
        operators of other domains than ONNX and ONNX-ML.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's error class differs by build
        raise FormatRefused(f"no ONNX model: {error}") from error
    if not (model.ir_version and model.graph.node and model.opset_import):
        raise FormatRefused("no ONNX model: it has no graph or no operator set")
    if model.ir_version > MAX_IR_VERSION:
        raise FormatRefused(
            f"IR version {model.ir_version}; at most {MAX_IR_VERSION} is allowed"
        )
    for opset in model.opset_import:
        newest = OPSET_LIMITS.get(opset.domain)
        if newest is None or opset.version > newest:
            raise FormatRefused(
                f"operator set {opset.domain or 'ai.onnx'!r} version {opset.version} "
                "is not allowed"
            )
    if model.functions:
        raise FormatRefused("local functions are not allowed")
    _check_graph(model.graph)
    return model


def _check_graph(graph: onnx.GraphProto) -> None:
    tensors = [*graph.initializer]
    for node in graph.node:
        if node.domain not in OPSET_LIMITS:
            raise FormatRefused(f"operator {node.domain}.{node.op_type} is not allowed")
        if node.domain == RUNTIME_DOMAIN and node.op_type not in RUNTIME_OPERATORS:
            raise FormatRefused(
                f"operator {node.domain}.{node.op_type} is not allowed; of that domain "
                f"{', '.join(sorted(RUNTIME_OPERATORS))} are"
            )
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                _check_graph(inner)
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in tensors):
        raise FormatRefused("tensors outside of the file are not allowed")


def _check_json(data: bytes) -> None:
    try:
        json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatRefused(f"not JSON in UTF-8: {error}") from error


def _check_text(data: bytes) -> None:
    try:
        data.decode("utf-8")
    except ValueError as error:
        raise FormatRefused(f"not text in UTF-8: {error}") from error


def _check_state(data: bytes) -> None:
    """Look at the ends only: who goes on from it reads it with an allow-list."""
    _check_text(data)
    if not (data.startswith(b"{") and data.endswith(b"}")):
        raise FormatRefused("not a state: it is no object of JSON")


def _check_arrow(data: bytes) -> None:
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            for batch in reader:
                batch.validate(full=True)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise FormatRefused(f"not an Arrow IPC stream: {error}") from error


def _check_safetensors(data: bytes) -> None:
    length = int.from_bytes(data[:SAFETENSORS_HEADER_BYTES], "little")
    header = data[SAFETENSORS_HEADER_BYTES : SAFETENSORS_HEADER_BYTES + length]
    if len(header) != length or not header.startswith(b"{"):
        raise FormatRefused("not safetensors: the header is not complete JSON")
    _check_json(header)


def _check_skops(data: bytes) -> None:
    """Look at the archive's names only: loading it has its own allow-list."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise FormatRefused(f"not a skops archive: {error}") from error
    if "schema.json" not in names or not all(
        name == "schema.json" or name.endswith(".npy") for name in names
    ):
        raise FormatRefused("not a skops archive: it holds other files than arrays")


@dataclass(frozen=True, slots=True)
class AllowedFile:
    """What a file of a package may be.

    Attributes
    ----------
    max_bytes : its greatest size.
    check : raises :class:`FormatRefused` when the bytes are something else.
    """

    max_bytes: int
    check: Callable[[bytes], object]


ALLOWED_FILES = {
    MODEL_FILE: AllowedFile(256 * MIB, check_onnx),
    "explanation.json": AllowedFile(4 * MIB, _check_json),
    "samples.json": AllowedFile(4 * MIB, _check_json),
    "evaluation.json": AllowedFile(4 * MIB, _check_json),
    "bom.json": AllowedFile(4 * MIB, _check_json),
    "card.json": AllowedFile(4 * MIB, _check_json),
    "card.html": AllowedFile(4 * MIB, _check_text),
    "card.md": AllowedFile(1 * MIB, _check_text),
    "reference.arrow": AllowedFile(32 * MIB, _check_arrow),
    "holdout.arrow": AllowedFile(32 * MIB, _check_arrow),
    "continue.json": AllowedFile(4 * MIB, _check_json),
    "continue.river.json": AllowedFile(64 * MIB, _check_state),
    "continue.safetensors": AllowedFile(256 * MIB, _check_safetensors),
    "continue.skops": AllowedFile(256 * MIB, _check_skops),
}
"""``continue.*`` is what a later training may go on from; the rest is served.
``card.md`` is the card of packages from before there was an HTML one."""


def check_file(name: str, data: bytes) -> None:
    """Return if a package may hold ``data`` under ``name``.

    Raises
    ------
    FormatRefused
        With the name and the reason.
    """
    check_size(name, len(data))
    try:
        ALLOWED_FILES[name].check(data)
    except FormatRefused as error:
        raise FormatRefused(f"{name}: {error}") from error


def check_size(name: str, size_bytes: int) -> None:
    """Return if a package may hold so many bytes under ``name``.

    Raises
    ------
    FormatRefused
        When the name is not on the list, or the file too big for it.
    """
    allowed = ALLOWED_FILES.get(name)
    if allowed is None:
        raise FormatRefused(
            f"{name}: a package may hold only {', '.join(sorted(ALLOWED_FILES))}"
        )
    if size_bytes > allowed.max_bytes:
        raise FormatRefused(
            f"{name}: {size_bytes} bytes; at most {allowed.max_bytes} are allowed"
        )
