"""``driftloop backtest``: from a file to a table, a page, JSON, by a child process."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftloop.cli.app import main
from driftloop.cli.backtest.replay import replay_view
from driftloop.cli.backtest.views import report_view
from rich.console import Console

from tests.unit.backtest import town


def ran(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["driftloop", "backtest", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(town.spec().model_dump(mode="json")))
    return str(path)


def test_a_file_a_policy_and_a_page(
    tmp_path: Path,
    pipeline: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = town.table(tmp_path / "rows")
    bold, page = tmp_path / "bold.yaml", tmp_path / "out" / "page.html"
    bold.write_text("retrain: {cooldown_days: 0}")
    asked = [pipeline, "--from", source, "--policy", str(bold), "never"]
    more = ["--no-bounds", "--workers", "1", "--html", str(page), "--json"]
    assert ran([*asked, *more], monkeypatch) == 0
    report = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in report["policies"]] == ["pipeline", "bold", "never"]
    assert "Backtest of town" in page.read_text()
    out = StringIO()
    Console(file=out, width=80).print(report_view(report))
    shown = out.getvalue()
    assert all(len(line) <= 80 for line in shown.splitlines())
    for word in ("bold", "▲", "│", "mae over time", "1,200 rows in"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the pipeline file"),
        (["{pipeline}"], "say which recorded data"),
        (["{pipeline}", "--from", "nowhere.csv"], "no recorded data"),
    ],
)
def test_what_is_missing_is_said(
    pipeline: str,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [text.format(pipeline=pipeline) for text in arguments]
    assert ran(asked, monkeypatch) == 1
    assert said in " ".join(capsys.readouterr().err.split())


def _decision(outcome: str) -> dict[str, Any]:
    return {
        "at": "2024-01-02T03:04:05+00:00", "trigger": "t", "cause": "concept_drift",
        "outcome": outcome, "detail": "as told",
    }  # fmt: skip


def test_the_first_other_decision_is_named() -> None:
    difference = {
        "at": "2024-01-02T03:04:05+00:00",
        "recorded": _decision("started"),
        "replayed": _decision("cooldown"),
    }
    answer = {
        "recorded": [_decision("started")],
        "policies": [
            {"name": "pipeline", "equal": 1, "as_recorded": [], "differences": []},
            {
                "name": "patient",
                "equal": 0,
                "as_recorded": ["monitor"],
                "differences": [difference],
            },
        ],
    }
    out = StringIO()
    Console(file=out, width=200).print(replay_view(answer))
    assert "1 of 1 decisions" in out.getvalue()
    assert "the first at 2024-01-02 03:04:05" in out.getvalue()
    assert "cooldown: as told" in out.getvalue()
    assert "Changes of monitor do nothing here" in out.getvalue()
    answer["policies"][0]["differences"] = [difference]
    out = StringIO()
    Console(file=out, width=200).print(replay_view(answer))
    assert "decides otherwise" in out.getvalue()
