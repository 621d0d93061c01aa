"""What becomes of alerts: over, acknowledged, silenced, told.

An alert's id is that of the ``alert-raised`` it began with. What was told is said here,
so that a database that is built anew from the log tells nobody twice.
"""

from typing import Literal

from driftloop.contracts.alerting import Severity
from driftloop.contracts.base import Event, UtcTime
from pydantic import Field

Reason = Literal["raised", "escalated", "repeated", "resolved"]
Outcome = Literal["delivered", "given_up", "silenced", "deduplicated"]


class AlertResolved(Event):
    """What an alert was about is over."""

    condition: str = Field(description="as in its `alert-raised`")
    at: UtcTime = Field(description="when it was over; event time")
    why: str = Field(description="how that is known")
    owner: str | None = None


class AlertAcknowledged(Event):
    """A person looks after an alert: nobody else is called."""

    alert_id: str
    condition: str
    by: str
    note: str = ""


class AlertsSilenced(Event):
    """Notices of some alerts wait until a time, or need not wait any more."""

    silence_id: str = Field(default="", description="empty: this event's own id")
    change: Literal["begun", "ended"]
    condition: str = Field(default="*", description="of alerts; `*`: any text")
    severities: list[Severity] = Field(default_factory=list, description="empty: all")
    until: UtcTime
    by: str
    reason: str


class AlertDelivered(Event):
    """What became of one notice of an alert."""

    alert_id: str
    condition: str
    notice_id: str = Field(description="what a receiver can tell repeats by")
    reason: Reason = Field(description="why there was a notice")
    number: int = Field(default=0, ge=0, description="of the step, or the repeat")
    channel: str = Field(description="empty: none was called")
    outcome: Outcome = Field(
        description="silenced: it waits; deduplicated: the same alert came again"
    )
    attempts: int = Field(default=0, ge=0)
    detail: str = ""
