"""Who decides about a version, until when, and when people are reminded."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Protocol

from driftloop.contracts.base import Section
from pydantic import Field, field_validator, model_validator

USUAL_REMINDERS = ["24h", "48h"]
NEVER = "never"
MAX_ROLES = 8
RoleName = Annotated[str, Field(min_length=1, max_length=100)]
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


class Asked(Protocol):
    """Whom a request waits for."""

    @property
    def role(self) -> str: ...

    @property
    def people(self) -> int: ...

    @property
    def also(self) -> Mapping[str, int]: ...


def seats_of(asked: Asked) -> dict[str, int]:
    """Return how many people of each role have to say yes."""
    return {asked.role: asked.people, **asked.also}


def in_words(seats: Mapping[str, int]) -> str:
    """Return how many of which roles.

    >>> in_words({"approver": 2, "compliance": 1})
    '2 approver and 1 compliance'
    """
    return " and ".join(f"{count} {role}" for role, count in seats.items())


class Approval(Section):
    """Who has to say yes before a rollout, and until when."""

    role: str = Field(default="approver", description="whose yes counts")
    people: int = Field(default=1, ge=1, description="how many have to say it")
    also: dict[RoleName, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        max_length=MAX_ROLES,
        description="further roles, and how many of each have to say it too, such as "
        "`{compliance: 1}`; each person counts for one role",
    )
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
    def _roles_are_named_once(self) -> "Approval":
        if self.role in self.also:
            raise ValueError(
                f"also names {self.role!r}, which is role already; add its number to "
                "people, and remove it from also"
            )
        return self

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
