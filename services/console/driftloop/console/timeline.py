"""Counts over event time in a bounded number of stretches, whatever their order."""

from collections import Counter
from datetime import UTC, datetime

MAX_STRETCHES = 80
"""More than a page can show side by side; then two become one."""
FIRST_WIDTH_S = 60


class Timeline:
    """Counts by key in stretches of equal length; only those with data are kept.

    A length holds for all: the smallest of 1, 2, 4 … minutes with which there are no
    more than :data:`MAX_STRETCHES`. So it is the data that decide and not the order in
    which they come, and one row of the year 1970 takes one stretch and no more.

    Examples
    --------
    >>> line = Timeline()
    >>> line.add(datetime(2026, 1, 1, tzinfo=UTC), "rows", 24)
    >>> line.counts("rows")
    [24]
    """

    def __init__(self) -> None:
        self.width_s = FIRST_WIDTH_S
        self._stretches: dict[int, Counter[str]] = {}

    def add(self, at: datetime, key: str, count: int) -> None:
        """Add a count to the stretch that holds a moment."""
        place = int(at.timestamp()) // self.width_s
        self._stretches.setdefault(place, Counter())[key] += count
        while len(self._stretches) > MAX_STRETCHES:
            self._halve()

    def starts(self) -> list[datetime]:
        """Return where the stretches begin, oldest first."""
        return [
            datetime.fromtimestamp(place * self.width_s, UTC)
            for place in sorted(self._stretches)
        ]

    def counts(self, key: str) -> list[int]:
        """Return a key's count in each stretch, oldest first."""
        return [self._stretches[place][key] for place in sorted(self._stretches)]

    def _halve(self) -> None:
        self.width_s *= 2
        wider: dict[int, Counter[str]] = {}
        for place, counts in self._stretches.items():
            wider.setdefault(place // 2, Counter()).update(counts)
        self._stretches = wider
