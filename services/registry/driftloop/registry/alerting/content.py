"""What a notice says, once, for every channel to put in its own form; pure."""

from dataclasses import asdict, dataclass
from datetime import datetime
from urllib.parse import quote

from driftloop.contracts.alerting import Severity
from driftloop.contracts.alerts import Reason
from driftloop.registry.alerting.advice import advice_for
from driftloop.registry.alerting.due import Notice

MAX_TITLE, MAX_DETAIL, MAX_SHORT = 200, 3000, 300
TRACE_PARTS = 4
BEGINNINGS: dict[Reason, str] = {
    "raised": "",
    "escalated": "Nobody looks after it: ",
    "repeated": "Still: ",
    "resolved": "Over: ",
}


@dataclass(frozen=True)
class Content:
    """What people and programs are told.

    Attributes
    ----------
    title : one line.
    cause : what the alert rests on; of one that is over, how that is known.
    since, until : by the clock, UTC; ``until`` of one that is over.
    console : link to the pipeline's page; empty: no console is named.
    """

    notice_id: str
    alert_id: str
    pipeline: str
    severity: Severity
    reason: Reason
    condition: str
    title: str
    cause: str
    remedy: str
    owner: str
    since: datetime
    until: datetime | None
    console: str
    trace_id: str

    @property
    def is_over(self) -> bool:
        return self.reason == "resolved"

    @property
    def state(self) -> str:
        return "resolved" if self.is_over else "open"

    @property
    def heading(self) -> str:
        """One line that says it all: for subjects and banners."""
        mark = "resolved" if self.is_over else self.severity
        return f"[{mark}] {self.pipeline}: {self.title}"

    @property
    def short(self) -> str:
        """What fits into two SMS."""
        return cut(f"{self.heading}. {self.remedy}".strip(), MAX_SHORT)

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of what is worth a line."""
        found = [
            ("Pipeline", self.pipeline),
            ("Severity", self.severity),
            ("Since", in_words(self.since)),
            ("Over", in_words(self.until) if self.is_over and self.until else ""),
            ("Owner", self.owner),
            ("Condition", self.condition),
            ("Alert", self.alert_id),
            ("Trace", self.trace_id),
        ]
        return [(label, text) for label, text in found if text]

    def fields(self) -> dict[str, str]:
        """Return what templates may name; see ``contracts/alerting.py``."""
        return {
            "alert_id": self.alert_id,
            "condition": self.condition,
            "console": self.console,
            "detail": self.cause,
            "notice_id": self.notice_id,
            "owner": self.owner,
            "pipeline": self.pipeline,
            "remedy": self.remedy,
            "severity": self.severity,
            "since": self.since.isoformat(),
            "state": self.state,
            "text": self.short,
            "title": self.title,
            "trace_id": self.trace_id,
        }

    def for_programs(self) -> dict[str, object]:
        """Return the data of a signed webhook."""
        found = asdict(self)
        found["since"] = self.since.isoformat()
        found["until"] = self.until.isoformat() if self.until else None
        return {**found, "state": self.state}


def content_of(notice: Notice, console_url: str | None) -> Content:
    """Return what a notice says.

    Parameters
    ----------
    console_url : where people reach the console; None: nowhere.
    """
    alert, is_over = notice.alert, notice.reason == "resolved"
    raised = alert.raised
    remedy = advice_for(alert.id, alert.pipeline, alert.condition)
    return Content(
        notice_id=notice.id,
        alert_id=alert.id,
        pipeline=alert.pipeline,
        severity=alert.severity,
        reason=notice.reason,
        condition=one_line(alert.condition),
        title=cut(one_line(BEGINNINGS[notice.reason] + raised.title), MAX_TITLE),
        cause=cut(alert.over_why if is_over else raised.detail, MAX_DETAIL),
        remedy="" if is_over else remedy,
        owner=one_line(raised.owner or ""),
        since=alert.raised_at,
        until=alert.over_at if is_over else None,
        console=page_of(console_url, alert.pipeline),
        trace_id=trace_of(alert.origin.get("traceparent")),
    )


def page_of(console_url: str | None, pipeline: str) -> str:
    """Return the link to a pipeline's page.

    >>> page_of("https://loop.example.org/", "churn"), page_of(None, "churn")
    ('https://loop.example.org/#churn', '')
    """
    return f"{console_url.rstrip('/')}/#{quote(pipeline)}" if console_url else ""


def trace_of(traceparent: str | None) -> str:
    """Return the trace id of a ``traceparent`` (W3C Trace Context)."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == TRACE_PARTS else ""


def one_line(text: str) -> str:
    r"""Return a text without what would begin another line, or header.

    >>> one_line("a\r\nBcc: x")
    'a Bcc: x'
    """
    plain = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split())


def cut(text: str, most: int) -> str:
    """Return a text, shortened if need be.

    >>> cut("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def in_words(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
