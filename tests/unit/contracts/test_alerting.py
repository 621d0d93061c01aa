"""The section `alerts` of the pipeline file: what is refused, and what goes where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.alerting import AlertsSection, QuietHours
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from pydantic import ValidationError

CHANNELS = {
    "team": {"kind": "slack", "url_secret": "slack"},
    "mail": {"kind": "email", "to": ["owner", "a@example.org"]},
    "pager": {"kind": "webhook", "url": "https://p.example.org/x", "secret": "p"},
}
SMS = {
    "kind": "template",
    "url": "https://sms.example.org/send?to=1",
    "headers": {"Authorization": "Bearer {{secret.sms}}"},
    "body": '{"text": "{{text}}", "key": "{{ notice_id }}"}',
}


def section(**more: Any) -> AlertsSection:
    return AlertsSection.model_validate({"channels": CHANNELS, **more})


def template(**more: Any) -> dict[str, Any]:
    return {"channels": {"sms": {**SMS, **more}}}


@pytest.mark.parametrize(
    ("alerts", "problem"),
    [
        ({"routes": [{"channels": ["nobody"]}]}, "routes[0].channels: 'nobody' is no"),
        ({"channels": {"A": CHANNELS["team"]}}, "channels.A"),
        ({"channels": {"a": {"kind": "fax"}}}, "fax"),
        ({"channels": {"a": {"kind": "email", "to": ["x"]}}}, "write one@example.org"),
        (
            {"channels": {"a": {"kind": "email", "to": ["a@b.c\r\nBcc: d@e.f"]}}},
            "is no address",
        ),
        ({"channels": {"a": {"kind": "slack", "url": "https://x"}}}, "url_secret"),
        (template(url="https://{{owner}}/x"), "placeholders before"),
        (template(url="https://a@b.example.org/x"), "not a URL"),
        (template(url="file:///etc/passwd"), "not a URL"),
        (template(url="https://b.example.org/x#y"), "not a URL"),
        (template(body='{"text": "{{nothing}}"}'), "{{nothing}} is nothing; there is"),
        (template(body='{"text": {{text}}}'), "within quotation marks"),
        (template(body='{"text": "{{text"}'), "a {{ without its }}"),
        (template(body='{"t": "{{title.__class__}}"}'), "is nothing; there is"),
        (template(headers={"Host": "x"}), "no header that a template may set"),
        (template(headers={"X": "a\nb"}), "one line of plain characters"),
        ({"quiet_hours": {"start": "25:00", "end": "07:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "7", "end": "07:00"}}, "HH:MM"),
        ({"quiet_hours": {"start": "07:00", "end": "07:00"}}, "leave quiet_hours out"),
        (
            {"quiet_hours": {"start": "22:00", "end": "07:00", "timezone": "Moon"}},
            "Europe/Berlin",
        ),
        ({"hold_minute": 3}, "hold_minutes"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    alerts: dict[str, Any], problem: str
) -> None:
    import yaml

    file = {"name": "x", "task": "binary", "data": {"target": "y"}, "alerts": alerts}
    with pytest.raises(PipelineFileError) as caught:
        parse_pipeline(yaml.safe_dump(file))
    assert problem in str(caught.value)
    assert "alerts" in str(caught.value)


def test_a_right_template_passes() -> None:
    """The negative control of the refusals above."""
    (channel,) = AlertsSection.model_validate(template()).channels.values()
    assert channel.kind == "template"
    assert channel.secrets == ["sms"]


def test_where_alerts_go() -> None:
    routes = [
        {"channels": ["team"], "severities": ["info", "warning", "critical"]},
        {"channels": ["mail", "team"], "condition": "sensor_fault:*"},
        {"channels": ["pager"], "owner": "*@risk.example.org"},
    ]
    found = section(routes=routes)
    assert found.ways("info", "sensor_fault:x", None) == ("team",)
    assert found.ways("critical", "sensor_fault:x", None) == ("team", "mail")
    assert found.ways("warning", "x", "a@risk.example.org") == ("team", "pager")
    assert found.ways("warning", "x", "a@risk.example.com") == ("team",)


def test_without_routes() -> None:
    """All channels but those that escalation is for; nobody for what is for info."""
    steps = [{"after_minutes": 5, "channels": ["pager"]}]
    found = section(escalation=steps)
    assert found.ways("warning", "x", None) == ("team", "mail")
    assert found.ways("info", "x", None) == ()


def test_times_of_day_without_quotes() -> None:
    """YAML 1.1 reads 22:00 as a number to the base of 60."""
    assert QuietHours.model_validate({"start": 1320, "end": "07:00"}).start == "22:00"
    with pytest.raises(ValidationError):
        QuietHours.model_validate({"start": 90 * 60, "end": "07:00"})


def test_the_pages_files_are_right() -> None:
    """What a reader copies from docs/alerts.md is accepted."""
    page = (Path(__file__).parents[3] / "docs/alerts.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        spec = parse_pipeline(f"name: x\ntask: binary\ndata: {{target: y}}\n{block}")
        assert spec.alerts.channels or spec.monitor.fault_false_alarms
    with pytest.raises(PipelineFileError, match="did you mean 'channels'"):
        parse_pipeline(
            "name: x\ntask: binary\ndata: {target: y}\n"
            + blocks[0].replace("  channels:", "  channel:")
        )
