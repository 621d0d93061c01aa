"""Who is told of alerts, by which channels, when, and when again."""

import json
import re
from collections.abc import Sequence
from datetime import time
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from driftloop.contracts.base import NAME_PATTERN, Section
from driftloop.contracts.moments import check_timezone
from pydantic import Field, field_validator, model_validator

Severity = Literal["info", "warning", "critical"]
ChannelName = Annotated[str, Field(pattern=NAME_PATTERN)]
SecretName = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="of `DRIFTLOOP_REGISTRY_ALERT_SECRETS`; no secret stands in a file",
    ),
]
OWNER = "owner"
FIELDS = (
    "alert_id", "condition", "console", "detail", "notice_id", "owner", "pipeline",
    "remedy", "severity", "since", "state", "text", "title", "trace_id",
)  # fmt: skip
"""What a template may name, beside ``secret.NAME``; ``text`` is short: for SMS."""
PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
SECRET = re.compile(r"secret\.([a-z][a-z0-9-]{0,62})")
ADDRESS = re.compile(r"[^@\s<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9.-]{1,253}")
URL = re.compile(r"https?://[^/?#{}@\s\\]+(/[^\s\\#]*)?")
"""No placeholder can be in the host: what an alert says never chooses a receiver."""
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
"""Source: token of RFC 9110, 5.6.2."""
FIXED_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection"}
)
MAX_TEMPLATE = 10_000
MAX_ADDRESSES = 50


def _checked_url(value: str) -> str:
    if not URL.fullmatch(value):
        raise ValueError(
            "not a URL of http or https without user, fragment and placeholders before "
            "its path; an example is https://hooks.example.org/alerts"
        )
    return value


class EmailChannel(Section):
    """E-mail by the installation's SMTP server."""

    kind: Literal["email"]
    to: list[str] = Field(
        min_length=1,
        max_length=MAX_ADDRESSES,
        description="addresses; `owner`: the pipeline's owner, where that is one",
    )

    @field_validator("to")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        for each in value:
            if each != OWNER and not ADDRESS.fullmatch(each):
                raise ValueError(
                    f"{each!r} is no address; write one@example.org, or owner"
                )
        return value


class SlackChannel(Section):
    """A message by an incoming webhook of Slack."""

    kind: Literal["slack"]
    url_secret: SecretName


class TeamsChannel(Section):
    """An adaptive card by a workflow's webhook of Microsoft Teams."""

    kind: Literal["teams"]
    url_secret: SecretName


class WebhookChannel(Section):
    """JSON, signed as Standard Webhooks says."""

    kind: Literal["webhook"]
    url: str = Field(description="its host is one of the operator's list")
    secret: SecretName

    _url = field_validator("url")(_checked_url)


class TemplateChannel(Section):
    """A request as another provider wants it: SMS, push, a pager.

    ``{{title}}`` and its like are replaced, each as its place needs it; nothing in a
    template is executed.
    """

    kind: Literal["template"]
    method: Literal["POST", "PUT", "PATCH", "GET"] = Field(
        default="POST", description="of HTTP"
    )
    url: str = Field(description="placeholders stand in its path and query")
    headers: dict[str, str] = Field(default={}, description="such as Authorization")
    content: Literal["json", "form", "text"] = Field(
        default="json", description="what the body is, and how values are put into it"
    )
    body: str = Field(
        default="", max_length=MAX_TEMPLATE, description="with placeholders"
    )

    _url = field_validator("url")(_checked_url)

    @field_validator("headers")
    @classmethod
    def _may_be_set(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not HEADER.fullmatch(name) or name.lower() in FIXED_HEADERS:
                raise ValueError(f"{name!r} is no header that a template may set")
            if not text.isprintable():
                raise ValueError(f"{name}: one line of plain characters")
        return value

    @model_validator(mode="after")
    def _names_what_there_is(self) -> "TemplateChannel":
        for place, text in self._texts().items():
            for name in PLACEHOLDER.findall(text):
                if name not in FIELDS and not SECRET.fullmatch(name):
                    raise ValueError(
                        f"{place}: {{{{{name}}}}} is nothing; there is "
                        f"{', '.join(FIELDS)} and secret.NAME"
                    )
            if "{{" in PLACEHOLDER.sub("", text):
                raise ValueError(f"{place}: a {{{{ without its }}}}")
        if self.content == "json" and self.body:
            try:
                json.loads(PLACEHOLDER.sub("x", self.body))
            except ValueError as error:
                raise ValueError(
                    f"body: no JSON ({error}); a placeholder stands within quotation "
                    'marks, such as {"text": "{{text}}"}'
                ) from error
        return self

    def _texts(self) -> dict[str, str]:
        headers = {f"headers.{name}": text for name, text in self.headers.items()}
        return {"url": self.url, "body": self.body, **headers}

    @property
    def secrets(self) -> list[str]:
        """Names of the secrets that it puts into its request."""
        names = [
            name for text in self._texts().values() for name in SECRET.findall(text)
        ]
        return sorted(set(names))


def _without_discriminator(schema: dict[str, Any]) -> None:
    """Take out what AsyncAPI writes in another way; `kind` says it all."""
    schema.pop("discriminator", None)


Channel = Annotated[
    EmailChannel | SlackChannel | TeamsChannel | WebhookChannel | TemplateChannel,
    Field(discriminator="kind", json_schema_extra=_without_discriminator),
]


class Route(Section):
    """Which alerts go to which channels; all routes that fit count."""

    channels: list[ChannelName] = Field(min_length=1, description="where they go")
    severities: list[Severity] = Field(
        default=["warning", "critical"], min_length=1, description="of the alerts"
    )
    condition: str = Field(
        default="*", description="of the alert, `*` for any text: `sensor_fault:*`"
    )
    owner: str = Field(default="*", description="likewise: `*@risk.example.org`")

    def fits(self, severity: Severity, condition: str, owner: str | None) -> bool:
        """Whether an alert goes this way.

        >>> route = Route(channels=["a"], condition="sensor_fault:*")
        >>> [route.fits("critical", c, None) for c in ("sensor_fault:x", "drift")]
        [True, False]
        """
        return (
            severity in self.severities
            and fnmatchcase(condition, self.condition)
            and fnmatchcase(owner or "", self.owner)
        )


class Escalation(Section):
    """More people, when nobody has acknowledged an alert in time."""

    after_minutes: float = Field(gt=0, description="since the alert was first due")
    channels: list[ChannelName] = Field(
        min_length=1, description="those that do not have it yet are called"
    )
    severities: list[Severity] = Field(
        default=["critical"], min_length=1, description="of the alerts"
    )


class QuietHours(Section):
    """When notices wait, but for those of some severities."""

    start: str = Field(description="HH:MM, such as `22:00`")
    end: str = Field(description="HH:MM; before `start`: of the next morning")
    timezone: str = Field(default="UTC", description="such as Europe/Berlin")
    except_severities: list[Severity] = Field(
        default=["critical"], description="that do not wait"
    )

    _zone = field_validator("timezone")(check_timezone)

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_time(cls, value: object) -> object:
        if isinstance(value, int):  # YAML reads 22:00 without quotes as minutes
            value = f"{value // 60:02d}:{value % 60:02d}"
        if not isinstance(value, str) or not re.fullmatch(r"\d\d:\d\d", value):
            raise ValueError("a time of day is HH:MM, such as '22:00'")
        time.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _is_some_time(self) -> "QuietHours":
        if self.start == self.end:
            raise ValueError("start and end are equal; leave quiet_hours out instead")
        return self


class AlertsSection(Section):
    """Who is told of alerts, and when. Durations are by the clock."""

    channels: dict[ChannelName, Channel] = Field(
        default={},
        description="by name; none: the installation's `DRIFTLOOP_REGISTRY_ALERTS`",
    )
    routes: list[Route] = Field(
        default=[],
        description="all that fit count; none: all of warning and critical go to every "
        "channel that no escalation names",
    )
    escalation: list[Escalation] = Field(
        default=[], description="steps for alerts that nobody acknowledges"
    )
    repeat_hours: float | None = Field(
        default=None,
        gt=0,
        description="tell again, while it goes on and nobody has acknowledged it",
    )
    hold_minutes: float = Field(
        default=0, ge=0, description="what is over sooner is told to nobody"
    )
    calm_minutes: float = Field(
        default=0,
        ge=0,
        description="it is over when it stays away so long; what comes back sooner is "
        "the same alert",
    )
    quiet_hours: QuietHours | None = Field(
        default=None,
        description="when notices wait: [below](#channels-routes-escalation)",
    )
    resolved: bool = Field(default=True, description="tell when it is over, too")

    @model_validator(mode="after")
    def _channels_exist(self) -> "AlertsSection":
        places: list[tuple[str, Route | Escalation]] = [
            *((f"routes[{n}]", route) for n, route in enumerate(self.routes)),
            *((f"escalation[{n}]", step) for n, step in enumerate(self.escalation)),
        ]
        for place, used in places:
            for name in used.channels:
                if name not in self.channels:
                    known = ", ".join(self.channels) or "none yet"
                    raise ValueError(
                        f"{place}.channels: {name!r} is no channel; write it under "
                        f"alerts.channels ({known})"
                    )
        return self

    def ways(
        self, severity: Severity, condition: str, owner: str | None
    ) -> tuple[str, ...]:
        """Return the channels that an alert goes to at once, each one time."""
        if self.routes:
            fitting = [r for r in self.routes if r.fits(severity, condition, owner)]
            found = [name for route in fitting for name in route.channels]
        elif severity in ("warning", "critical"):
            later = {name for step in self.escalation for name in step.channels}
            found = [name for name in self.channels if name not in later]
        else:
            found = []
        return tuple(dict.fromkeys(found))


CHANNELS: dict[str, type[Section]] = {
    "email": EmailChannel,
    "slack": SlackChannel,
    "teams": TeamsChannel,
    "webhook": WebhookChannel,
    "template": TemplateChannel,
}
_PARTS: dict[str, type[Section]] = {
    "routes": Route,
    "escalation": Escalation,
    "quiet_hours": QuietHours,
}


def keys_at(location: Sequence[int | str]) -> list[str]:
    """Return the keys that there are at a place within the section.

    >>> keys_at(("channels", "team", "slack"))
    ['kind', 'url_secret']
    """
    if not location:
        found: type[Section] = AlertsSection
    elif location[0] == "channels":
        found = CHANNELS[str(location[-1])]
    else:
        found = _PARTS[str(location[0])]
    return sorted(found.model_fields)
