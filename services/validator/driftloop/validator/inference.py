"""A contract from the first data, for a pipeline file that names no features.

A column's type is read from its values and then stays; it may be null and has no
range and no list of values, as a little data says nothing about those. Columns are
taken up while fewer than :data:`FIRST_ROWS` observations have come; a later one is
kept in ``extra``. A binary target's classes are the first two values that come.
Whoever wants more says so in the pipeline file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import RowKind
from driftloop.contracts.moments import are_moments
from driftloop.contracts.pipeline import RESERVED_COLUMNS, Feature, PipelineSpec
from driftloop.validator.values import ColumnType, text_of, typed

FIRST_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Learned:
    """What the data have said so far.

    Attributes
    ----------
    classes : values of a class target, in the order in which they came.
    row_count : observations looked at.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    row_count: int = 0


def learn(
    learned: Learned, batch: pa.RecordBatch, spec: PipelineSpec, kind: RowKind
) -> Learned:
    """Return what is known after one more batch."""
    features = dict(learned.features)
    count = learned.row_count
    if kind == "observations" and not spec.data.features:
        if count < FIRST_ROWS:
            features |= _new_features(batch, features, spec)
        count += batch.num_rows
    classes = learned.classes
    if spec.task == "binary" and spec.data.classes is None and len(classes) < 2:
        classes = _classes(classes, batch, spec.data.target)
    return Learned(features, classes, count)


def _new_features(
    batch: pa.RecordBatch, known: Mapping[str, Feature], spec: PipelineSpec
) -> dict[str, Feature]:
    taken = RESERVED_COLUMNS | {spec.data.target} | set(known)
    taken |= spec.data.attachments.keys()
    names = [name for name in batch.schema.names if name not in taken]
    found = {name: type_of(batch.column(name)) for name in names}
    return {
        name: Feature(type=kind, nullable=True)
        for name, kind in found.items()
        if kind is not None
    }


def type_of(array: pa.Array) -> ColumnType | None:
    """Return the type that a column's values have; None without any value.

    Examples
    --------
    >>> type_of(pa.array(["1", "2.5"])), type_of(pa.array(["1", "red"]))
    ('number', 'category')
    >>> type_of(pa.array(["2011-01-01", "2011-01-02T06:30:00Z"]))
    'datetime'
    """
    if array.null_count == len(array):
        return None
    if pa.types.is_boolean(array.type):
        return "boolean"
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return "number"
    words = set(map(text_of, pc.unique(array).to_pylist())) - {None}
    if words <= {"true", "false"}:
        return "boolean"
    if are_moments(word for word in words if word is not None):
        return "datetime"
    _, wrong = typed(array, "number")
    return "number" if wrong is None else "category"


def _classes(
    known: tuple[str, ...], batch: pa.RecordBatch, target: str
) -> tuple[str, ...]:
    if target not in batch.schema.names:
        return known
    texts = map(text_of, pc.unique(batch.column(target)).to_pylist())
    found = dict.fromkeys([*known, *(text for text in texts if text is not None)])
    return tuple(found)[:2]
