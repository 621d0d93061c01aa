"""How data leave their schema, told from a whole batch: verdicts, no exceptions.

=================  ==========================================================
new column         kept in ``extra``, and proposed
missing column     null if it may be, else the rows are quarantined
type widened       whole numbers that get fractions: such rows are quarantined,
                   and the wider type is proposed
values added       of a category: such rows are quarantined, and the values are
                   proposed
=================  ==========================================================

A proposal is in force once it is accepted. Anything else, such as text in a column of
numbers, is no evolution but wrong values, and is quarantined as such.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.pipeline import RESERVED_COLUMNS, Feature
from driftloop.contracts.privacy import REDACTED
from driftloop.contracts.schema import SchemaChange
from driftloop.validator.inference import type_of
from driftloop.validator.values import text_of, typed

MIN_ROWS = 20
"""Of a batch whose rows all lack a nullable column, before that is worth a word."""
MAX_NEW_VALUES = 20
"""More new values in one batch are not a category that grows but something else."""
SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A change and the rules of its column that would allow it.

    Attributes
    ----------
    feature : None where nothing is proposed.
    values : new values of a category.
    """

    told: SchemaChange
    feature: Feature | None = None
    values: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """What it is about: told once, however many batches show it."""
        key = f"{self.told.kind}:{self.told.column}"
        return {f"{key}:{value}" for value in self.values} or {key}


def changes_of(
    batch: pa.RecordBatch, features: Mapping[str, Feature], others: Collection[str]
) -> list[Change]:
    """Return how a batch of observations leaves the schema.

    Parameters
    ----------
    batch : (n_rows, n_columns) rows as ingested.
    features : the schema in force.
    others : columns that are no features: the target, and attachments.
    """
    return [
        *_new(batch, features, others),
        *_missing(batch, features),
        *_widened(batch, features),
    ]


def present(batch: pa.RecordBatch, features: Mapping[str, Feature]) -> set[str]:
    """Return the keys of missing columns that are not missing (any more)."""
    return {f"missing_column:{n}" for n in features if n in batch.schema.names}


def new_columns(
    batch: pa.RecordBatch, features: Mapping[str, Feature], others: Collection[str]
) -> dict[str, pa.Array]:
    """Return the columns that the schema does not name, also those in ``extra``.

    Of ``extra`` the first row that has any says which ones there are.
    """
    taken = RESERVED_COLUMNS | set(others) | set(features)
    found = {n: batch.column(n) for n in batch.schema.names if n not in taken}
    if "extra" in batch.schema.names:
        extra = batch.column("extra")
        first = next((text for text in extra.drop_null().slice(0, 1).to_pylist()), None)
        names = [n for n in (json.loads(first) if first else {}) if n not in taken]
        if names:
            rows = [json.loads(t) if t else {} for t in extra.to_pylist()]
            for name in names:
                texts = [text_of(_plain(row.get(name))) for row in rows]
                found[name] = pa.array(texts, pa.string())
    return found


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _new(
    batch: pa.RecordBatch, features: Mapping[str, Feature], others: Collection[str]
) -> Iterator[Change]:
    for name, array in new_columns(batch, features, others).items():
        kind = type_of(array)
        if kind is None:
            continue
        detail = f"is new ({kind}); it is kept in extra until the schema is accepted"
        told = SchemaChange(column=name, kind="new_column", detail=detail)
        yield Change(told, Feature(type=kind, nullable=True))


def _missing(
    batch: pa.RecordBatch, features: Mapping[str, Feature]
) -> Iterator[Change]:
    for name, feature in features.items():
        if name in batch.schema.names:
            continue
        if feature.nullable and batch.num_rows < MIN_ROWS:
            continue
        detail = (
            "does not come any more; it may be null, so the rows go on without it"
            if feature.nullable
            else "does not come any more and may not be null, so the rows are "
            "quarantined; send it, or make it nullable"
        )
        yield Change(SchemaChange(column=name, kind="missing_column", detail=detail))


def _widened(
    batch: pa.RecordBatch, features: Mapping[str, Feature]
) -> Iterator[Change]:
    for name, feature in features.items():
        if name not in batch.schema.names:
            continue
        array = batch.column(name)
        if feature.type == "integer" and _has_fractions(array):
            detail = (
                "was whole numbers and comes with fractions; such rows are quarantined "
                "until the schema is accepted"
            )
            told = SchemaChange(column=name, kind="type_widened", detail=detail)
            yield Change(told, feature.model_copy(update={"type": "number"}))
        elif feature.type == "category" and feature.values is not None:
            new = _new_values(array, feature)
            if 0 < len(new) <= MAX_NEW_VALUES:
                yield _more_values(name, feature, new)


def _more_values(name: str, feature: Feature, new: list[str]) -> Change:
    more = " …" if len(new) > SHOWN_VALUES else ""
    detail = (
        f"comes with {', '.join(new[:SHOWN_VALUES])}{more}; such rows are quarantined "
        "until the schema is accepted"
    )
    told = SchemaChange(column=name, kind="values_added", detail=detail)
    values = [*(feature.values or []), *new]
    return Change(told, feature.model_copy(update={"values": values}), tuple(new))


def _has_fractions(array: pa.Array) -> bool:
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        return False
    number, wrong = typed(array, "number")
    if wrong is not None and not pa.types.is_floating(array.type):
        return False  # text among the numbers is wrong, not wider
    values = pl.Series(number.to_numpy(zero_copy_only=False), dtype=pl.Float64)
    finite = values.filter(values.is_finite())
    return bool((finite != finite.round()).any())


def _new_values(array: pa.Array, feature: Feature) -> list[str]:
    allowed = {text_of(value) for value in feature.values or []}
    found = {text_of(value) for value in pc.unique(array).to_pylist()} - {None}
    fresh = found - allowed - {REDACTED}
    return sorted(value for value in fresh if value is not None)
