"""The contract of a pipeline's columns, checked on whole batches at once.

A row that fails a check is quarantined with all its reasons; the others go on, typed
as the contract says: numbers ``float64``, integers ``int64``, booleans ``bool``,
categories ``string``, datetimes ``timestamp[us, UTC]``, attachments as
``REFERENCE_TYPE``. A check of severity
``reject`` takes all rows of its batch along, one of severity ``warn`` takes none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.events import BatchWarning, RejectReason, RowKind
from driftloop.contracts.payloads import REFERENCE_TYPE
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.rows import ROW_FIELDS
from driftloop.validator.columns import ARROW_TYPES, Column, Failure, check_column
from driftloop.validator.payloads import Payloads, check_payloads
from driftloop.validator.values import Mask, text_of, text_series

EXTRA_FIELD = pa.field("extra", pa.string())
REVISION_FIELD = pa.field("revision", pa.int64())
SERIOUS = ("quarantine", "reject")
MAX_SHOWN = 80
"""Characters of an offending value in an event or a reason."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What rows of one kind must look like."""

    kind: RowKind
    columns: tuple[Column, ...]
    attachments: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Columns of validated rows: ``ROW_FIELDS``, the contract's, then extras."""
        own = [pa.field(c.name, ARROW_TYPES[c.feature.type]) for c in self.columns]
        own += [pa.field(name, REFERENCE_TYPE) for name in self.attachments]
        revision = [REVISION_FIELD] if self.kind == "labels" else []
        return pa.schema([*ROW_FIELDS, *own, *revision, EXTRA_FIELD])


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch, parted.

    Attributes
    ----------
    good : rows that go on, typed; None without any.
    bad : the other rows as they came, with a string column ``reason``.
    reasons : what was wrong with them, by check and field.
    warnings : what else was found.
    """

    good: pa.RecordBatch | None
    bad: pa.RecordBatch | None = None
    reasons: list[RejectReason] = field(default_factory=list)
    warnings: list[BatchWarning] = field(default_factory=list)


Inspect = Callable[[pa.RecordBatch], Sequence[Failure]]
"""More checks, on the rows that keep the contract (at least one)."""


def contract_of(
    spec: PipelineSpec,
    kind: RowKind,
    features: Mapping[str, Feature],
    classes: Sequence[Any] | None,
) -> Contract:
    """Return the contract of a pipeline's observations or labels.

    Parameters
    ----------
    features : those of the pipeline file, or the inferred ones.
    classes : allowed values of a class target; None: any.
    """
    target = Column(
        spec.data.target,
        Feature(
            type="number" if spec.task == "regression" else "category",
            values=None if classes is None else list(classes),
            nullable=kind == "observations",  # it may come later, as a label
        ),
        "data.classes",
    )
    zone = spec.data.timezone
    own = [Column(n, f, f"data.features.{n}", zone) for n, f in features.items()]
    if kind == "labels":
        return Contract(kind, (target,))
    return Contract(kind, (*own, target), tuple(spec.data.attachments))


def check(
    batch: pa.RecordBatch,
    contract: Contract,
    known: Mask | None = None,
    inspect: Inspect | None = None,
    payloads: Payloads | None = None,
) -> Checked:
    """Part a batch into rows that go on and rows that do not.

    Parameters
    ----------
    batch : (n_rows, n_columns) rows as ingested; a column may be text where a
        value did not fit its type.
    known : (n_rows,) rows whose id is in the dataset already.
    inspect : looks at all columns but the attachments.
    payloads : what the store says of a contract's attachments.
    """
    count = batch.num_rows
    columns: list[pa.Array] = []
    failures: list[Failure] = []
    for column in contract.columns:
        array, found = check_column(batch, column)
        columns.append(array)
        failures += found
    if contract.attachments and payloads is not None:
        checked, found = check_payloads(batch, payloads)
        columns += [checked[name] for name in contract.attachments]
        failures += found
    wrong = _any(failures, count)
    if contract.kind == "observations":
        again = _duplicates(batch.column("id"), wrong, known)
        failures += again
        wrong |= _any(again, count)
    good = _good_rows(batch, contract, columns)
    kept = good.filter(pa.array(~wrong)) if wrong.any() else good
    more: list[Failure] = []
    if inspect is not None and kept.num_rows:
        plain = kept.drop_columns([*contract.attachments])
        more = [_of_all(failure, wrong) for failure in inspect(plain)]
    failures += more
    after = wrong | _any(more, count)
    if any(f.severity == "reject" and f.mask.any() for f in failures):
        after[:] = True
    if (after != wrong).any():  # the checks took more rows out
        kept = good.filter(pa.array(~after))
    return _parted(batch, kept, failures, after)


def _parted(
    batch: pa.RecordBatch,
    kept: pa.RecordBatch,
    failures: Sequence[Failure],
    wrong: Mask,
) -> Checked:
    warnings = [_warning(f) for f in failures if f.severity == "warn"]
    if not wrong.any():
        return Checked(kept, warnings=warnings)
    serious = [f for f in failures if f.severity in SERIOUS and f.mask.any()]
    quarantined = batch.filter(pa.array(wrong)).append_column(
        pa.field("reason", pa.string()), _row_reasons(serious, wrong)
    )
    reasons = [*map(_reason, serious)]
    return Checked(kept if kept.num_rows else None, quarantined, reasons, warnings)


def _of_all(failure: Failure, wrong: Mask) -> Failure:
    """Return a failure on the rows that are not ``wrong`` as one on all rows."""
    if not wrong.any():
        return failure
    mask = np.zeros(len(wrong), np.bool_)
    mask[~wrong] = failure.mask
    values = failure.values
    if values is not None:
        values = values.take(pa.array(np.cumsum(~wrong) - 1, mask=wrong))
    return replace(failure, mask=mask, values=values)


def _any(failures: Sequence[Failure], count: int) -> Mask:
    wrong = np.zeros(count, np.bool_)
    for failure in failures:
        if failure.severity in SERIOUS:
            wrong |= failure.mask
    return wrong


def _duplicates(ids: pa.Array, wrong: Mask, known: Mask | None) -> list[Failure]:
    """Rows with the id of a good row: one before it, or one in the dataset."""
    again = np.zeros(len(ids), np.bool_) if known is None else known & ~wrong
    if text_series(ids).n_unique() < len(ids):  # Arrow takes five times
        seen: set[str] = set()
        for at, row_id in enumerate(ids.to_pylist()):
            if wrong[at] or again[at]:
                continue
            again[at] = row_id in seen
            seen.add(row_id)
    if not again.any():
        return []
    detail = (
        "an observation with this id is there with other values; the first one "
        "holds, send a new id"
    )
    return [Failure("duplicate", "id", again, detail, ids)]


def _good_rows(
    batch: pa.RecordBatch, contract: Contract, columns: Sequence[pa.Array]
) -> pa.RecordBatch:
    schema = contract.schema
    arrays = [batch.column(f.name) for f in ROW_FIELDS] + list(columns)
    if contract.kind == "labels":
        has = "revision" in batch.schema.names
        zeros = pa.repeat(pa.scalar(0, pa.int64()), batch.num_rows)
        arrays.append(batch.column("revision") if has else zeros)
    arrays.append(_extra(batch, set(schema.names)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _extra(batch: pa.RecordBatch, own: set[str]) -> pa.Array:
    """Keep what the contract does not name, as JSON."""
    given = (
        batch.column("extra")
        if "extra" in batch.schema.names
        else pa.nulls(batch.num_rows, pa.string())
    )
    others = [name for name in batch.schema.names if name not in own]
    if not others:
        return given
    texts: list[str | None] = []
    rows = batch.select(others).to_pylist()
    for row, before in zip(rows, given.to_pylist(), strict=True):
        rest = {name: value for name, value in row.items() if value is not None}
        rest = json.loads(before) | rest if before else rest
        texts.append(json.dumps(rest, sort_keys=True, default=str) if rest else None)
    return pa.array(texts, pa.string())


def _row_reasons(failures: Sequence[Failure], wrong: Mask) -> pa.Array:
    """Return for each bad row all that is wrong with it."""
    reasons: dict[int, list[str]] = {int(at): [] for at in np.flatnonzero(wrong)}
    for failure in failures:
        positions = np.flatnonzero(failure.mask)
        shown = _shown(failure, positions)
        for at, value in zip(positions, shown, strict=True):
            reasons[int(at)].append(f"{failure.field}: {failure.check}{value}")
    because = [f"{f.field}: {f.check}" for f in failures if f.severity == "reject"]
    for texts in reasons.values():
        if not texts:
            texts.append(f"the whole batch was rejected ({'; '.join(because)})")
    return pa.array(["; ".join(texts) for texts in reasons.values()], pa.string())


def _shown(failure: Failure, positions: npt.NDArray[np.intp]) -> list[str]:
    if failure.values is None or failure.check == "null":
        return [""] * len(positions)
    values = failure.values.take(pa.array(positions)).to_pylist()
    return [f" ({text_of(value)!s:.{MAX_SHOWN}})" for value in values]


def _reason(failure: Failure) -> RejectReason:
    return RejectReason(
        check=failure.check,
        field=failure.field,
        row_count=int(np.count_nonzero(failure.mask)),
        detail=failure.detail,
        example=_example(failure),
        severity="reject" if failure.severity == "reject" else "quarantine",
    )


def _warning(failure: Failure) -> BatchWarning:
    return BatchWarning(
        check=failure.check,
        field=failure.field,
        verdict=failure.verdict,
        row_count=int(np.count_nonzero(failure.mask)),
        detail=failure.detail,
        example=_example(failure),
    )


def _example(failure: Failure) -> str | None:
    if failure.values is None:
        return None
    first = failure.values[int(np.argmax(failure.mask))].as_py()
    return "null" if first is None else (text_of(first) or "")[:MAX_SHOWN]
