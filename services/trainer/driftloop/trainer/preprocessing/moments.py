"""Moments: parts of them that a model can learn from, computed with whole numbers.

A moment comes as int64 microseconds since 1970 in UTC; the least int64 is missing.
Calendar parts are looked up in tables by integers, so that the graph gives the very
bits that numpy gives. A part that never changes in training has no column.

Source: the day of the year is that of Hinnant (2013), chrono-Compatible Low-Level Date
Algorithms, civil_from_days, whose years begin in March: so each date has one place on
the circle, leap year or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.contracts.moments import (
    EPOCH,
    FIRST_US,
    LAST_US,
    MICROSECOND,
    fixed_moment,
    moment_of,
    moment_text,
)
from driftloop.contracts.preprocessing import Part
from driftloop.models.onnx_model import MISSING_MOMENT
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.missing import FLOAT, as_float
from driftloop.trainer.preprocessing.wiring import NOTHING, Drawing, Matrix
from onnx import TensorProto

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
DAY_MINUTES = 1440
MARCH_1_OF_0 = 719_468
"""Days from 0000-03-01 to 1970-01-01."""
ERA_DAYS = 146_097
"""Of 400 years, after which the calendar repeats."""
MONDAY = 3
"""1970-01-01 was a Thursday."""
YEAR_DAYS = 366
JANUARY_1 = 306
"""Days from 1 March to 1 January."""

Moments = npt.NDArray[np.int64]
"""(n_rows, 1) microseconds since 1970 in UTC; least: missing."""


def _circle(count: int, first: int = 0) -> tuple[Matrix, Matrix]:
    """Return sine and cosine of ``count`` places, the place ``first`` at angle 0."""
    angles = 2 * np.pi * ((np.arange(count) - first) % count) / count
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


TABLES: dict[Part, tuple[Matrix, ...]] = {
    "hour": _circle(DAY_MINUTES),
    "weekday": _circle(7),
    "year_day": _circle(YEAR_DAYS, JANUARY_1),
    "weekend": (np.array([0, 0, 0, 0, 0, 1, 1], dtype=np.float32),),
}
"""By part and whole number, what the model gets."""


def _places(moments: Moments) -> dict[Part, Moments]:
    """Return where in the tables moments are; years 1 to 9999."""
    of_day = moments % DAY_US
    days = (moments - of_day) // DAY_US
    weekday = (days + MONDAY) % 7
    of_era = (days + MARCH_1_OF_0) % ERA_DAYS
    leaps = of_era // 1460 - of_era // 36_524 + of_era // 146_096
    year = (of_era - leaps) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return {
        "hour": of_day // MINUTE_US, "weekday": weekday, "weekend": weekday,
        "year_day": of_year,
    }  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """Columns of numbers from moments; NaN where one is missing.

    Attributes
    ----------
    parts : in the order of the columns.
    centre : of ``days``: microseconds since 1970.
    width : of ``days``: microseconds that count as 1.
    """

    parts: tuple[Part, ...]
    centre: int
    width: float

    def apply(self, moments: Moments) -> Matrix:
        held = np.clip(moments, FIRST_US, LAST_US)
        places = _places(held)
        columns: list[Any] = []
        for part in self.parts:
            if part == "days":
                apart = (held - self.centre).astype(np.float64)
                columns.append((apart / self.width).astype(np.float32))
            else:
                columns += [table[places[part]] for table in TABLES[part]]
        if not columns:
            return np.empty((len(moments), 0), dtype=np.float32)
        missing = moments == MISSING_MOMENT
        return np.where(missing, np.float32(np.nan), np.hstack(columns))

    def wire(self, drawing: Drawing, source: str) -> str:
        if not self.parts:
            return NOTHING
        ends = [drawing.constant(end, np.int64) for end in (FIRST_US, LAST_US)]
        held = drawing.node("Clip", source, *ends)
        places = _wire_places(drawing, held, self.parts)
        columns: list[str] = []
        for part in self.parts:
            if part == "days":
                columns.append(self._wire_days(drawing, held))
            else:
                columns += [
                    drawing.node("Gather", drawing.constant(table), places[part])
                    for table in TABLES[part]
                ]
        found = drawing.node("Concat", *columns, axis=1)
        missing = _wire_missing(drawing, source)
        return drawing.node("Where", missing, drawing.constant(np.nan), found)

    def _wire_days(self, drawing: Drawing, held: str) -> str:
        centre = drawing.constant(self.centre, np.int64)
        apart = _as_double(drawing, drawing.node("Sub", held, centre))
        width = drawing.constant(self.width, np.float64)
        return drawing.node("Cast", drawing.node("Div", apart, width), to=FLOAT)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted: dict[str, Any] = {"parts": list(self.parts)}
        if "days" in self.parts:
            fitted["centre"] = moment_text(moment_of(self.centre))
            fitted["width_days"] = self.width / DAY_US
        return PreprocessingStep(
            step="moment_parts",
            columns=list(columns),
            fitted=dict.fromkeys(columns, fitted),
        )


def _wire_places(drawing: Drawing, held: str, parts: Sequence[Part]) -> dict[Part, str]:
    """Draw :func:`_places`, as far as the parts need it."""

    def whole(operator: str, source: str, number: int) -> str:
        return drawing.node(operator, source, drawing.constant(number, np.int64))

    if set(parts) == {"days"}:
        return {}
    of_day = whole("Mod", held, DAY_US)
    days = whole("Div", drawing.node("Sub", held, of_day), DAY_US)
    found: dict[Part, str] = {}
    if "hour" in parts:
        found["hour"] = whole("Div", of_day, MINUTE_US)
    if "weekday" in parts or "weekend" in parts:
        weekday = whole("Mod", whole("Add", days, MONDAY), 7)
        found |= {"weekday": weekday, "weekend": weekday}
    if "year_day" in parts:
        of_era = whole("Mod", whole("Add", days, MARCH_1_OF_0), ERA_DAYS)
        short = drawing.node("Sub", of_era, whole("Div", of_era, 1460))
        long = drawing.node("Add", short, whole("Div", of_era, 36_524))
        counted = drawing.node("Sub", long, whole("Div", of_era, 146_096))
        year = whole("Div", counted, 365)
        leaps = drawing.node("Sub", whole("Div", year, 4), whole("Div", year, 100))
        before = drawing.node("Add", whole("Mul", year, 365), leaps)
        found["year_day"] = drawing.node("Sub", of_era, before)
    return found


def _wire_missing(drawing: Drawing, source: str) -> str:
    return drawing.node("Equal", source, drawing.constant(MISSING_MOMENT, np.int64))


def _as_double(drawing: Drawing, source: str) -> str:
    return drawing.node("Cast", source, to=int(TensorProto.DOUBLE))


@dataclass(frozen=True)
class FillMoments:
    """Another moment for a missing one."""

    how: str
    by: int

    def apply(self, moments: Moments) -> Moments:
        return np.where(moments == MISSING_MOMENT, np.int64(self.by), moments)

    def wire(self, drawing: Drawing, source: str) -> str:
        by = drawing.constant([self.by], np.int64)
        return drawing.node("Where", _wire_missing(drawing, source), by, source)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        value = moment_text(moment_of(self.by))
        return PreprocessingStep(
            step=f"fill_{self.how}",
            columns=list(columns),
            fitted={name: {"value": value} for name in columns},
        )


@dataclass(frozen=True)
class MomentIndicator:
    """1 where a moment is missing, else 0."""

    def apply(self, moments: Moments) -> Matrix:
        found: Matrix = (moments == MISSING_MOMENT).astype(np.float32)
        return found

    def wire(self, drawing: Drawing, source: str) -> str:
        return as_float(drawing, _wire_missing(drawing, source))

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(step="missing_indicator", columns=list(columns))


def fit_parts(moments: Moments, parts: Sequence[Part]) -> Parts:
    """Learn centre and width of the days, and which parts change at all.

    The centre is the middle moment, the width a standard deviation; a column without
    moments has none of the parts.
    """
    known = moments[moments != MISSING_MOMENT]
    if not len(known):
        return Parts((), 0, float(DAY_US))
    centre = int(np.sort(known)[(len(known) - 1) // 2])
    width = float(np.std((known - centre).astype(np.float64)))
    fitted = Parts(tuple(parts), centre, width or float(DAY_US))
    changing = tuple(p for p in parts if _changes(replace(fitted, parts=(p,)), known))
    return replace(fitted, parts=changing)


def _changes(part: Parts, known: Moments) -> bool:
    found = part.apply(known.reshape(-1, 1))
    return bool((found != found[0]).any())


def fit_fill_moments(moments: Moments, how: str, constant: Any) -> FillMoments:
    """Learn what stands for a missing moment; 1970 for a column without any."""
    if how == "constant":
        return FillMoments(how, (fixed_moment(constant) - EPOCH) // MICROSECOND)
    known = np.sort(moments[moments != MISSING_MOMENT])
    if not len(known):
        return FillMoments(how, 0)
    by = int(known[(len(known) - 1) // 2])
    if how == "mean":
        by += round(float(np.mean((known - by).astype(np.float64))))
    elif how == "most_frequent":
        found, counts = np.unique(known, return_counts=True)
        by = int(found[np.argmax(counts)])
    return FillMoments(how, by)


def between(moments: Sequence[Moments]) -> Matrix:
    """Return (n_rows, 1) days from the second moment to the first; NaN without one."""
    first, second = moments
    missing = (first == MISSING_MOMENT) | (second == MISSING_MOMENT)
    held = [np.clip(one, FIRST_US, LAST_US) for one in moments]
    days = (held[0] - held[1]).astype(np.float64) / DAY_US
    return np.where(missing, np.float32(np.nan), days.astype(np.float32))


def wire_between(drawing: Drawing, sources: Sequence[str]) -> str:
    """Draw :func:`between`; returns its output's name."""
    ends = [drawing.constant(end, np.int64) for end in (FIRST_US, LAST_US)]
    held = [drawing.node("Clip", source, *ends) for source in sources]
    apart = _as_double(drawing, drawing.node("Sub", *held))
    days = drawing.node("Div", apart, drawing.constant(float(DAY_US), np.float64))
    single = drawing.node("Cast", days, to=FLOAT)
    missing = drawing.node("Or", *(_wire_missing(drawing, one) for one in sources))
    return drawing.node("Where", missing, drawing.constant(np.nan), single)
