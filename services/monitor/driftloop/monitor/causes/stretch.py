"""Two stretches of rows that a verdict compares, as plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.models.columns import Floats, numbers, texts
from driftloop.monitor.columns import age_column
from driftloop.monitor.feature_drift import Kind

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.object_]
MAX_CODES = 31
"""Whole numbers of so few different values are codes (hours, months), not amounts."""
MIN_DISTINCT = 10
"""Below so many values a column is a code, and codes jump by nature."""
NO_VALUE = "—"
NO_SOURCE = ""


@dataclass(frozen=True)
class Stretch:
    """Rows of a stretch of event time, in its order.

    Attributes
    ----------
    times_us : (n_rows,) event times, microseconds since 1970.
    source : (n_rows,) who sent the row; ``labeller``: who sent its label.
    amounts : column to (n_rows,) numbers, NaN for null.
    codes : column to (n_rows,) texts, of categories and of whole numbers with few
        values.
    loss : (n_rows,) of the version in service; empty: labels are not looked at.
    target, said : (n_rows, n_outputs) labels and answers as numbers: the value, or a
        share of each class.
    """

    times_us: npt.NDArray[np.int64]
    source: Words
    amounts: Mapping[str, Floats] = field(default_factory=dict)
    codes: Mapping[str, Words] = field(default_factory=dict)
    loss: Floats = field(default_factory=lambda: np.zeros(0))
    target: Floats = field(default_factory=lambda: np.zeros((0, 1)))
    said: Floats = field(default_factory=lambda: np.zeros((0, 1)))
    labeller: Words = field(default_factory=lambda: np.zeros(0, dtype=object))

    def __len__(self) -> int:
        return len(self.times_us)

    @property
    def is_labelled(self) -> bool:
        return len(self.loss) > 0

    @property
    def sources(self) -> list[str]:
        return sorted(set(self.source.tolist()))

    def where(self, mask: Mask) -> "Stretch":
        """Return some of the rows."""
        labelled = self.is_labelled
        return replace(
            self,
            times_us=self.times_us[mask],
            source=self.source[mask],
            amounts={name: values[mask] for name, values in self.amounts.items()},
            codes={name: values[mask] for name, values in self.codes.items()},
            loss=self.loss[mask] if labelled else self.loss,
            target=self.target[mask] if labelled else self.target,
            said=self.said[mask] if labelled else self.said,
            labeller=self.labeller[mask] if labelled else self.labeller,
        )

    def newest(self, count: int) -> "Stretch":
        """Return the newest rows."""
        return self.where(np.arange(len(self)) >= len(self) - count)


def inputs_after(earlier: Stretch, later: Stretch) -> Stretch:
    """Return the inputs of two stretches as one, in this order, without labels."""
    return Stretch(
        times_us=np.concatenate([earlier.times_us, later.times_us]),
        source=np.concatenate([earlier.source, later.source]),
        amounts={
            name: np.concatenate([earlier.amounts[name], values])
            for name, values in later.amounts.items()
        },
        codes={
            name: np.concatenate([earlier.codes[name], values])
            for name, values in later.codes.items()
        },
    )


def stretches(tables: Sequence[pa.Table], kinds: Mapping[str, Kind]) -> list[Stretch]:
    """Return the features of several tables; what is a code is so in all of them.

    Parameters
    ----------
    tables : with ``event_time`` and, where it is known, ``source``.
    """
    names = [n for n in kinds if any(n in t.schema.names for t in tables)]
    raw = [
        {name: _values(table, name, kinds[name]) for name in names} for table in tables
    ]
    codes = set()
    for name in names:
        found = [each[name] for each in raw]
        if kinds[name] in ("category", "boolean"):
            codes.add(name)
        elif kinds[name] == "integer":
            seen = np.unique(np.concatenate([v[np.isfinite(v)] for v in found]))
            if len(seen) <= MAX_CODES:
                codes.add(name)
    return [
        Stretch(
            times_us=_times(table),
            source=_sources(table),
            amounts={
                n: v.astype(np.float64) for n, v in each.items() if n not in codes
            },
            codes={n: _coded(v) for n, v in each.items() if n in codes},
        )
        for table, each in zip(tables, raw, strict=True)
    ]


def _times(table: pa.Table) -> npt.NDArray[np.int64]:
    column = table.column("event_time").cast(pa.timestamp("us", "UTC"))
    found: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return found


def _sources(table: pa.Table) -> Words:
    if "source" not in table.schema.names:
        return np.full(table.num_rows, NO_SOURCE, dtype=object)
    found = texts(table.column("source")).to_pylist()
    return np.array([each or NO_SOURCE for each in found], dtype=object)


def _values(table: pa.Table, name: str, kind: Kind) -> Floats | Words:
    if name not in table.schema.names:
        if kind in ("category", "boolean"):
            return np.full(table.num_rows, NO_VALUE, dtype=object)
        return np.full(table.num_rows, np.nan)
    if kind == "datetime":
        return numbers(age_column(table, name))
    if kind in ("number", "integer"):
        return numbers(table.column(name))
    found = texts(table.column(name)).to_pylist()
    return np.array([NO_VALUE if x is None else x for x in found], dtype=object)


def _coded(values: Floats | Words) -> Words:
    if values.dtype == object:
        return values  # type: ignore[return-value]  # it is of texts
    different, at = np.unique(values, return_inverse=True)
    names = [NO_VALUE if np.isnan(x) else f"{x:g}" for x in different.tolist()]
    found: Words = np.array(names, dtype=object)[at]
    return found
