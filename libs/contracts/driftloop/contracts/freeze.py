"""When rollouts stand still: a stretch of each week, or between two dates."""

import re
from datetime import datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from driftloop.contracts.base import Section
from driftloop.contracts.moments import check_timezone
from pydantic import Field, field_validator, model_validator

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = timedelta(days=7)
_WEEKLY = re.compile(rf"({'|'.join(WEEKDAYS)}) ([0-9]{{2}}:[0-9]{{2}})")


class Mark(NamedTuple):
    """An end of a window: since Monday at 00:00 (each week), or a local time."""

    weekly: timedelta | None
    dated: datetime | None


def parse_mark(text: str) -> Mark:
    """Return what a text such as ``fri 18:00`` or ``2026-12-20 18:00`` means.

    Raises
    ------
    ValueError
        Says how it is written.

    >>> parse_mark("tue 01:30").weekly
    datetime.timedelta(days=1, seconds=5400)
    >>> parse_mark("2026-12-20 18:00").dated
    datetime.datetime(2026, 12, 20, 18, 0)
    """
    try:
        if found := _WEEKLY.fullmatch(text):
            at = time.fromisoformat(found[2])
            days = WEEKDAYS.index(found[1])
            return Mark(timedelta(days=days, hours=at.hour, minutes=at.minute), None)
        return Mark(None, datetime.strptime(text, "%Y-%m-%d %H:%M"))  # noqa: DTZ007 - local to the window's zone
    except ValueError as error:
        raise ValueError(
            "write a weekday and a time, such as fri 18:00 (each week), or a date and "
            "a time, such as 2026-12-20 18:00 (once)"
        ) from error


class FreezeWindow(Section):
    """A stretch in which no rollout takes a step forward.

    Times are those of the clock on the wall of its zone. Where that clock goes back,
    the hour that comes twice is in the window both times or not at all.

    Examples
    --------
    >>> from datetime import UTC
    >>> weekend = FreezeWindow(begins="fri 18:00", ends="mon 08:00")
    >>> weekend.holds(datetime(2026, 11, 28, 12, tzinfo=UTC))  # a Saturday
    True
    >>> weekend.holds(datetime(2026, 11, 26, 12, tzinfo=UTC))  # a Thursday
    False
    """

    begins: str = Field(
        description="`fri 18:00`: each week; `2026-12-20 18:00`: once",
    )
    ends: str = Field(description="in the same form; the first moment after it")
    timezone: str = Field(default="UTC", description="of both")
    reason: str = Field(default="", description="for people")

    def __str__(self) -> str:
        text = f"{self.begins} to {self.ends} {self.timezone}"
        return f"{text} ({self.reason})" if self.reason else text

    def holds(self, at: datetime) -> bool:
        """Whether a moment (with its offset) lies in the window."""
        local = at.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)
        begins, ends = parse_mark(self.begins), parse_mark(self.ends)
        if begins.dated is not None and ends.dated is not None:
            return begins.dated <= local < ends.dated
        monday = datetime.combine(local, time()) - timedelta(days=local.weekday())
        first, last = begins.weekly or timedelta(), ends.weekly or timedelta()
        return (local - monday - first) % WEEK < (last - first) % WEEK

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, value: str) -> str:
        return check_timezone(value)

    @field_validator("begins", "ends")
    @classmethod
    def _is_written_well(cls, value: str) -> str:
        parse_mark(value)
        return value

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "FreezeWindow":
        begins, ends = parse_mark(self.begins), parse_mark(self.ends)
        if (begins.dated is None) != (ends.dated is None):
            raise ValueError(
                "begins and ends are of two forms; write weekdays in both, or dates"
            )
        if begins == ends:
            raise ValueError(
                "begins and ends are the same; to stop all rollouts, use "
                "automation: approve"
            )
        if begins.dated and ends.dated and ends.dated < begins.dated:
            raise ValueError("ends is before begins; exchange them")
        return self
