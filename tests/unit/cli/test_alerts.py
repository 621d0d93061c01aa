"""``driftloop alerts``: what it asks the registry for, and what people read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from driftloop.cli.alerts import command, work
from driftloop.cli.alerts.command import alerts_app
from driftloop.cli.context import CommandError
from rich.console import Console
from typer.testing import CliRunner

ROOT = Path(__file__).parents[3]
ALERT: dict[str, Any] = {
    "alert_id": "a1", "pipeline": "bike-demand", "condition": "sensor_fault:temp:x",
    "severity": "critical", "state": "open", "title": "Wrong values of temp",
    "detail": "168 rows", "remedy": "Mend the source of temp.", "owner": "ada",
    "at": "2026-11-27T12:00:00Z", "over_at": None, "over_why": "", "repeat_count": 2,
    "acknowledged_by": None, "acknowledged_at": None, "note": "", "waits_for": None,
    "channels": ["team", "mail", "phone"],
    "notices": [
        {"notice_id": "n1", "at": "2026-11-27T12:00:01Z", "reason": "raised",
         "channel": "team", "outcome": "delivered", "attempts": 1, "detail": ""},
        {"notice_id": "n2", "at": "2026-11-27T12:00:09Z", "reason": "raised",
         "channel": "mail", "outcome": "given_up", "attempts": 3, "detail": "550 no"},
    ],
    "console": "https://loop.example.org/#bike-demand", "trace_id": "", "chain_id": "c",
}  # fmt: skip
SILENCE = {
    "silence_id": "s1", "pipeline": "bike-demand", "condition": "sensor_fault:*",
    "severities": ["warning"], "begun_at": "2026-11-27T12:00:00Z",
    "until": "2026-11-27T14:00:00Z", "by": "ann", "reason": "exchanged",
    "is_active": True,
}  # fmt: skip


class Registry:
    """Answers as the registry does; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.outcome = "delivered"

    def speaker(self, by: str | None) -> str | None:
        return by or "ann"

    def request(self, method: str, path: str, **options: Any) -> Any:
        self.asked.append((method, path, options))
        if path.endswith("/test"):
            return {"kind": "slack", "outcome": self.outcome, "detail": "HTTP 404"}
        if "silences" in path:
            return SILENCE if method != "GET" else page(SILENCE)
        return page(ALERT) if path == "/alerts" else ALERT


def page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": None}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(command, "connect", lambda _: found)
    return found


def run(*arguments: str) -> str:
    done = CliRunner().invoke(alerts_app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_pages_commands_are_commands(registry: Registry) -> None:
    """Each runs, and calls the route that docs/api.md says."""
    text = (ROOT / "docs/alerts.md").read_text("utf-8")
    block = text.split("## Commands")[1].split("```sh\n")[1].split("```")[0]
    lines = [line for line in block.splitlines() if line]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.replace("$ALERT", "a1").replace("$SILENCE", "s1"))
        assert words[:2] == ["driftloop", "alerts"]
        run(*words[2:])
    routes = re.findall(
        r"^\| `(\w+) (\S+)`", (ROOT / "docs/api.md").read_text(), re.MULTILINE
    )
    called = {(method, path) for method, path, _ in registry.asked}
    known = [(method, re.sub(r"\{\w+\}", "[^/]+", path)) for method, path in routes]
    for method, path in called:
        assert any(method == m and re.fullmatch(p, path) for m, p in known), path
    assert len(called) == len(lines)


def test_what_is_sent(registry: Registry) -> None:
    run("ack", "a1", "--note", "I look", "--by", "bob")
    assert registry.asked[-1][2]["json"] == {"by": "bob", "note": "I look"}
    run("silence", "bike-demand", "--severity", "warning", "-m", "why")
    sent = registry.asked[-1][2]["json"]
    assert (sent["condition"], sent["severities"], sent["by"]) == (
        "*",
        ["warning"],
        "ann",
    )


def test_a_channel_that_fails_is_an_error(registry: Registry) -> None:
    registry.outcome = "failed"
    with pytest.raises(CommandError, match="team did not take it: HTTP 404"):
        run("test", "bike-demand", "team")


def read(shown: Any) -> str:
    console = Console(width=160, record=True, file=None)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def test_what_people_read() -> None:
    """Who has it, who has not, what to do; of one that is over, why."""
    table = read(work.alert_table([ALERT]))
    for part in ("team", "mail (given", "phone (not", "open"):
        assert part in table
    view = read(work.alert_view(ALERT))
    assert "what to do: Mend the source of temp." in view
    assert "550 no" in view
    over = {**ALERT, "over_at": "2026-11-27T13:00:00Z", "over_why": "right again",
            "state": "over"}  # fmt: skip
    assert "over at 2026-11-27 13:00: right again" in read(work.alert_view(over))
    held = {**ALERT, "waits_for": "quiet hours until 07:00 (UTC)"}
    assert "quiet hours" in read(work.alert_view(held))
    mine = {**ALERT, "state": "acknowledged", "acknowledged_by": "bob",
            "acknowledged_at": "2026-11-27T12:05:00Z"}  # fmt: skip
    assert "with bob" in read(work.alert_table([mine]))
    assert "sensor_fault:* (warning)" in read(work.silence_table([SILENCE]))
