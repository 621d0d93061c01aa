"""How soon each change was noticed, and how often a change was seen that was none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Noticed:
    """What verdicts came to, against the moments at which the world changed.

    Attributes
    ----------
    delays : from each change to the first verdict after it, before the next change;
        None: it was missed.
    repeats : further verdicts after the one that noticed a change; it may not have
        been cured yet.
    false_alarms : verdicts before the first change.
    """

    delays: tuple[timedelta | None, ...]
    repeats: int
    false_alarms: int

    @property
    def missed(self) -> int:
        return sum(delay is None for delay in self.delays)


def noticed(changes: Sequence[datetime], verdicts: Sequence[datetime]) -> Noticed:
    """Match verdicts with changes, both in order of time.

    >>> day = lambda number: datetime(2024, 1, number)
    >>> found = noticed([day(5), day(20)], [day(2), day(8), day(9)])
    >>> [delay and delay.days for delay in found.delays]
    [3, None]
    >>> found.repeats, found.false_alarms
    (1, 1)
    """
    ends = [*changes[1:], None][: len(changes)]
    delays: list[timedelta | None] = []
    repeats = 0
    for start, end in zip(changes, ends, strict=True):
        after = [v for v in verdicts if v >= start and (end is None or v < end)]
        delays.append(after[0] - start if after else None)
        repeats += max(0, len(after) - 1)
    first = changes[0] if changes else None
    early = [v for v in verdicts if first is not None and v < first]
    return Noticed(tuple(delays), repeats, len(early))
