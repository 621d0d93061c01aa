"""Alerts as the registry tells of them, and what people do about them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from driftloop.cli.context import Installation, every
from driftloop.cli.options import plain_table
from rich.console import Group, RenderableType
from rich.text import Text

PAGE = 500
STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def alerts(
    installation: Installation, pipeline: str | None, states: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the alerts of the last 90 days, newest first."""
    return every(
        installation,
        "/alerts",
        pipeline=pipeline or None,
        state=list(states),
        limit=PAGE,
    )


def silences(installation: Installation, pipeline: str | None) -> list[dict[str, Any]]:
    """Return silences, newest first."""
    return every(installation, "/silences", pipeline=pipeline or None, limit=PAGE)


def alert(installation: Installation, alert_id: str) -> dict[str, Any]:
    """Return one alert.

    Raises
    ------
    CommandError
        When there is none of that id.
    """
    answer: dict[str, Any] = installation.request("GET", f"/alerts/{alert_id}")
    return answer


def acknowledge(
    installation: Installation, alert_id: str, by: str | None, note: str
) -> dict[str, Any]:
    """Say who looks after an alert."""
    body = {"by": installation.speaker(by), "note": note}
    answer: dict[str, Any] = installation.request(
        "POST", f"/alerts/{alert_id}/acknowledge", json=body
    )
    return answer


def silence(
    installation: Installation,
    pipeline: str,
    condition: str,
    severities: Sequence[str],
    hours: float,
    by: str | None,
    reason: str,
) -> dict[str, Any]:
    """Let notices of some alerts wait."""
    body = {
        "condition": condition,
        "severities": list(severities),
        "until": (datetime.now(UTC) + timedelta(hours=hours)).isoformat(),
        "by": installation.speaker(by),
        "reason": reason,
    }
    answer: dict[str, Any] = installation.request(
        "POST", f"/pipelines/{pipeline}/silences", json=body
    )
    return answer


def unsilence(
    installation: Installation, pipeline: str, silence_id: str, by: str | None
) -> dict[str, Any]:
    """End a silence."""
    speaker = installation.speaker(by)
    answer: dict[str, Any] = installation.request(
        "DELETE",
        f"/pipelines/{pipeline}/silences/{silence_id}",
        params={"by": speaker} if speaker else {},
    )
    return answer


def try_channel(
    installation: Installation, pipeline: str, channel: str
) -> dict[str, Any]:
    """Send an example by a channel."""
    answer: dict[str, Any] = installation.request(
        "POST", f"/pipelines/{pipeline}/alerts/test", json={"channel": channel}
    )
    return answer


# ── for people ──────────────────────────────────────────────────────────────


def alert_table(found: Sequence[dict[str, Any]]) -> RenderableType:
    """Return alerts as a table."""
    if not found:
        return Text("no alerts")
    table = plain_table("alerts, newest first")
    for name in ("alert", "since", "pipeline", "severity", "is", "what", "told"):
        table.add_column(name, overflow="fold")
    for item in found:
        table.add_row(
            item["alert_id"],
            _time(item["at"]),
            item["pipeline"],
            Text(item["severity"], style=STYLES[item["severity"]]),
            _state(item),
            f"{item['title']} ({item['condition']})",
            _told(item),
        )
    return table


def _state(item: dict[str, Any]) -> str:
    if item["state"] == "acknowledged":
        return f"with {item['acknowledged_by']}"
    if item["state"] == "open" and item["waits_for"]:
        return "open, waits"
    return str(item["state"])


def _told(item: dict[str, Any]) -> str:
    """Say which channels have it, and which do not."""
    outcomes = {}
    for notice in item["notices"]:
        if notice["channel"]:
            outcomes[notice["channel"]] = notice["outcome"]
    words = {"delivered": "", "given_up": " (given up)", "silenced": " (waits)"}
    found = [f"{name}{words.get(said, '')}" for name, said in outcomes.items()]
    found += [f"{name} (not yet)" for name in item["channels"] if name not in outcomes]
    return ", ".join(found) or "nobody"


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def alert_view(item: dict[str, Any]) -> RenderableType:
    """Return one alert for people: what, what to do, and whom it was told."""
    style = STYLES[item["severity"]]
    lines = [
        Text(f"{item['pipeline']}: {item['title']}", style="bold"),
        Text(f"{item['severity']}, {_state(item)}", style=style),
        Text(item["detail"]),
    ]
    if item["over_at"]:
        lines.append(Text(f"over at {_time(item['over_at'])}: {item['over_why']}"))
    elif item["remedy"]:
        lines.append(Text(f"what to do: {item['remedy']}"))
    if item["acknowledged_by"]:
        note = f": {item['note']}" if item["note"] else ""
        at = _time(item["acknowledged_at"])
        lines.append(Text(f"{item['acknowledged_by']} looks after it, {at}{note}"))
    if item["waits_for"] and item["state"] == "open":
        lines.append(Text(item["waits_for"]))
    lines += [
        Text(f"condition {item['condition']}"),
        Text(f"since {_time(item['at'])}, raised again {item['repeat_count']} times"),
        Text(f"owner {item['owner'] or 'none'}, chain {item['chain_id']}"),
    ]
    if item["trace_id"]:
        lines.append(Text(f"trace {item['trace_id']}"))
    if item["console"]:
        lines.append(Text(item["console"]))
    return Group(*lines, *_notices(item))


def _notices(item: dict[str, Any]) -> list[RenderableType]:
    if not item["notices"]:
        return [Text(f"told: {_told(item)}")]
    table = plain_table("notices")
    for name in ("at", "channel", "because", "is", "tries", "detail"):
        table.add_column(name, overflow="fold")
    for notice in item["notices"]:
        table.add_row(
            _time(notice["at"]),
            notice["channel"] or "none",
            notice["reason"],
            notice["outcome"].replace("_", " "),
            str(notice["attempts"]),
            notice["detail"],
        )
    return [table]


def silence_table(found: Sequence[dict[str, Any]]) -> RenderableType:
    """Return silences as a table."""
    if not found:
        return Text("nothing is silenced")
    table = plain_table("silences, newest first")
    for name in ("silence", "pipeline", "condition", "until", "by", "reason"):
        table.add_column(name, overflow="fold")
    for item in found:
        severities = ", ".join(item["severities"])
        table.add_row(
            item["silence_id"],
            item["pipeline"],
            item["condition"] + (f" ({severities})" if severities else ""),
            _time(item["until"]) + ("" if item["is_active"] else " (over)"),
            item["by"],
            item["reason"],
        )
    return table
