"""Stretches of event time that trainings leave out, by what was told of faults.

Pure. Verdicts, what people say of them and the ends of faults come by three topics,
which have no common order: all of it is remembered, and what follows is worked out
from the whole, so that any order gives the same.
"""

from collections.abc import Iterator

from driftloop.contracts.base import UtcTime
from driftloop.contracts.events import (
    FAULTS,
    Cause,
    DriftDetected,
    DriftEnded,
    Faulty,
    FaultyStretch,
    Span,
    VerdictOverruled,
)
from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Told(_Frozen):
    """What a verdict said of a fault."""

    cause: Cause
    faulty: Faulty | None
    since: UtcTime
    detected_at: UtcTime
    features: list[str]
    sources: list[str]


class _Ruling(_Frozen):
    """What a person said last of a verdict; the times are the verdict's."""

    cause: Cause
    since: UtcTime
    detected_at: UtcTime
    mended: bool = False


class _Over(_Frozen):
    """A column's fault is over."""

    cause: Cause
    column: str
    since: UtcTime
    until: UtcTime
    detected_at: UtcTime | None


class Faults(_Frozen):
    """All that was told of a pipeline's faults.

    Attributes
    ----------
    told, rulings : by the verdict's id.
    """

    told: dict[str, _Told] = {}
    rulings: dict[str, _Ruling] = {}
    over: list[_Over] = []

    def with_verdict(self, event: DriftDetected, event_id: str) -> "Faults":
        """Remember a verdict, if it says that something is wrong."""
        if event.cause not in FAULTS:
            return self
        told = _Told(
            cause=event.cause,
            faulty=event.faulty,
            since=event.since,
            detected_at=event.detected_at,
            features=event.features,
            sources=sorted(event.sources),
        )
        found = dict(sorted((self.told | {event_id: told}).items()))
        return self.model_copy(update={"told": found})

    def with_ruling(self, event: VerdictOverruled) -> "Faults":
        """Remember what a person says; the last word of each verdict holds."""
        said = _Ruling(
            cause=event.cause,
            since=event.since,
            detected_at=event.detected_at,
            mended=event.mended,
        )
        found = dict(sorted((self.rulings | {event.verdict_id: said}).items()))
        return self.model_copy(update={"rulings": found})

    def with_end(self, event: DriftEnded) -> "Faults":
        """Remember that columns are right again."""
        new = [
            _Over(
                cause=event.cause,
                column=column,
                since=event.since,
                until=event.until,
                detected_at=event.detected_at,
            )
            for column in event.features
        ]
        found = sorted(
            [*self.over, *new], key=lambda each: (each.until, each.model_dump_json())
        )
        return self.model_copy(update={"over": found})

    def stretches(self) -> tuple[FaultyStretch, ...]:
        """Return what is left out, by its start.

        The stretch of a fault goes from the start that its verdict estimates to the
        end of the last of its columns. A person who says that a verdict is no fault
        gives its rows back, and one who says that they are mended, once it is over. A
        fault that spoils nothing by itself, as it is only inferred, counts once a
        person confirms it. One who says that a verdict is a fault, which it did not
        say, takes the rows from its start to its telling: nobody tells an end of it.
        """
        found = [*self._of_verdicts(), *self._of_people()]
        return tuple(sorted(found, key=lambda each: (each.start, each.verdict_id)))

    def _of_verdicts(self) -> Iterator[FaultyStretch]:
        for verdict_id, told in self.told.items():
            said = self.rulings.get(verdict_id)
            cause = said.cause if said else told.cause
            if cause not in FAULTS or (said is None and told.faulty is None):
                continue
            ends = [self._end_of(told, column) for column in told.features]
            known = [end for end in ends if end is not None]
            end = max(known) if known and len(known) == len(ends) else None
            if said and said.mended and end is not None:
                continue
            yield FaultyStretch(
                verdict_id=verdict_id,
                cause=cause,
                faulty=told.faulty if told.faulty and not said else _spoilt_by(cause),
                start=told.since,
                end=end,
                sources=told.sources,
            )

    def _of_people(self) -> Iterator[FaultyStretch]:
        for verdict_id, said in self.rulings.items():
            is_fault = said.cause in FAULTS and not said.mended
            if is_fault and verdict_id not in self.told:
                yield FaultyStretch(
                    verdict_id=verdict_id,
                    cause=said.cause,
                    faulty=_spoilt_by(said.cause),
                    start=said.since,
                    end=said.detected_at,
                )

    def _end_of(self, told: _Told, column: str) -> UtcTime | None:
        """Return when a verdict's fault of a column was over; None: it is open."""
        ends = [
            each.until
            for each in self.over
            if (each.cause, each.column) == (told.cause, column)
            and (
                told.since <= each.since <= told.detected_at
                if each.detected_at is None
                else each.detected_at == told.detected_at
            )
        ]
        return max(told.since, ends[0]) if ends else None


def _spoilt_by(cause: Cause) -> Faulty:
    return "labels" if cause == "label_fault" else "rows"


def within(
    stretches: tuple[FaultyStretch, ...], span: Span
) -> tuple[FaultyStretch, ...]:
    """Return those that meet a span."""
    return tuple(
        each
        for each in stretches
        if each.start <= span.end and (each.end is None or span.start <= each.end)
    )


def good_parts(labelled: Span, stretches: tuple[FaultyStretch, ...]) -> list[Span]:
    """Return what is left of a span without the stretches that spoil all its rows.

    Oldest first; parts meet the stretches' ends. Those of some sources take no time
    away, as the others' rows are there.
    """
    parts, start = [], labelled.start
    for each in sorted(stretches, key=lambda each: each.start):
        if each.sources:
            continue
        if each.start > labelled.end:
            break
        if each.start > start:
            parts.append(Span(start=start, end=each.start))
        if each.end is None:
            return parts
        start = max(start, each.end)
    if start < labelled.end or not stretches:
        parts.append(Span(start=start, end=labelled.end))
    return parts
