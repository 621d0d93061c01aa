"""Who decides about a version, until when, and when people are reminded."""

import re
from datetime import timedelta

from driftloop.contracts.base import Section
from pydantic import Field, field_validator, model_validator

USUAL_REMINDERS = ["24h", "48h"]
NEVER = "never"
MAX_DURATION = timedelta(days=366)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORM = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_duration(text: str) -> timedelta:
    """Return a duration.

    Raises
    ------
    ValueError
        Says how a duration is written.

    >>> parse_duration("72h"), parse_duration("3d") == parse_duration("72h")
    (datetime.timedelta(days=3), True)
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            "write a whole number and its unit, s, m, h or d, such as 30m, 72h or 3d"
        )
    count, unit = found.groups()
    duration = timedelta(**{_UNITS[unit]: int(count)})
    if duration > MAX_DURATION:
        raise ValueError(f"at most {MAX_DURATION.days}d")
    return duration


class Approval(Section):
    """Who has to say yes before a rollout, and until when."""

    role: str = Field(default="approver", description="whose yes counts")
    people: int = Field(default=1, ge=1, description="how many have to say it")
    expires_after: str = Field(
        default="72h",
        description="of clock time, such as `30m`, `72h` or `3d`: then a request that "
        "is not decided is over; `never`: it stays open",
    )
    remind_after: list[str] | None = Field(
        default=None,
        description="of clock time since the request: when people are reminded; empty: "
        "after `24h` and `48h`, as far as it is still open then; `[]`: never",
    )

    @property
    def lifetime(self) -> timedelta | None:
        """How long a request stays open; None: until it is decided."""
        never = self.expires_after == NEVER
        return None if never else parse_duration(self.expires_after)

    @property
    def reminders(self) -> list[timedelta]:
        """After how long people are reminded, shortest first."""
        asked = USUAL_REMINDERS if self.remind_after is None else self.remind_after
        end = self.lifetime
        found = [parse_duration(text) for text in asked]
        return [each for each in found if end is None or each < end]

    @field_validator("expires_after")
    @classmethod
    def _expiry_is_a_duration(cls, value: str) -> str:
        if value != NEVER:
            try:
                parse_duration(value)
            except ValueError as error:
                raise ValueError(f"{error}; or {NEVER}") from error
        return value

    @field_validator("remind_after")
    @classmethod
    def _reminders_grow(cls, value: list[str] | None) -> list[str] | None:
        found = [parse_duration(text) for text in value or ()]
        if found != sorted(set(found)):
            raise ValueError("durations must grow, for example [24h, 48h]")
        return value

    @model_validator(mode="after")
    def _reminded_while_open(self) -> "Approval":
        for text in self.remind_after or ():
            if self.lifetime is not None and parse_duration(text) >= self.lifetime:
                raise ValueError(
                    f"remind_after {text} is not before expires_after "
                    f"{self.expires_after}, when the request is over; remove it, or "
                    "raise expires_after"
                )
        return self
