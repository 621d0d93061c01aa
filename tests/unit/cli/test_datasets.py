"""``driftloop datasets`` on a log and tables that the real services made."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.datasets import reports, upkeep, work
from driftloop.cli.datasets.command import parse_time
from driftloop.cli.datasets.history import histories
from driftloop.cli.log import Entry
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.pipeline import Retention, parse_pipeline
from driftloop.runtime.settings import Settings

from tests.unit.chain.data import DataChain
from tests.unit.cli import running

SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, features: "
    "{temp: {min: 0, max: 1}, sky: {type: category, nullable: true}}}}"
)
DAY = datetime(2011, 1, 1, tzinfo=UTC)


def hour(number: int) -> str:
    return (DAY + timedelta(hours=number)).isoformat()


def row(number: int, **values: Any) -> dict[str, Any]:
    given = {"temp": (number % 10) / 10, "sky": ["clear", "mist"][number % 2]}
    return {"id": f"r{number:03}", "event_time": hour(number), **given, **values}


def label(number: int, at: int, cnt: float) -> dict[str, Any]:
    return {"id": f"r{number:03}", "event_time": hour(at), "cnt": cnt}


class Shop:
    """A chain, and the command line on its log."""

    def __init__(self, path: Path) -> None:
        self.chain = DataChain(path, SPEC)
        self.path = path
        self.told: list[Entry] = []
        self.tell(e.PipelineApplied(pipeline="bikes", spec=SPEC, applied_by="ann"))

    def tell(self, event: Event) -> None:
        number = str(len(self.told))
        self.told.append(Entry(event, Meta(number, DAY, "/s", Chain(number))))

    def publish(self, rows: list[dict[str, Any]], kind: e.RowKind) -> None:
        self.chain.send("bikes", rows, kind)
        self.chain.work("ingest")
        self.chain.work("validator")

    def read_log(self, *_: object) -> list[Entry]:
        return [*self.told, *self.chain.log("dataset-versioned")]

    def read_batches(self, *_: object) -> list[Entry]:
        return self.chain.log("batch-validated", "batch-rejected")

    def run(self, *words: str) -> str:
        """Return what the command says; expected errors are raised."""
        return running.run("datasets", *words).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path)
    monkeypatch.setattr(work, "read_log", shop.read_log)
    monkeypatch.setattr(reports, "read_log", shop.read_batches)
    settings = Settings(home=tmp_path)
    there = Installation(tmp_path, "nowhere:1", "", "", settings)
    monkeypatch.setattr("driftloop.cli.datasets.command.connect", lambda home: there)
    shop.publish([row(n) for n in range(40)], "observations")
    shop.publish([label(n, n + 24, float(n)) for n in range(30)], "labels")
    shop.publish([row(n, temp=0.9, sky="fog") for n in range(40, 70)], "observations")
    return shop


def test_list_shows_each_dataset(shop: Shop) -> None:
    (line,) = shop.json("list")
    assert (line["pipeline"], line["versions"]) == ("bikes", 3)
    assert (line["rows"], line["labelled"]) == (70, 30)
    assert (line["start"], line["end"]) == (hour(0), hour(69))
    assert line["size_bytes"] > 1000
    assert "bikes" in shop.run("list")


def test_list_without_any_dataset(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "read_log", lambda *_: [])
    assert shop.json("list") == []
    assert "no dataset yet" in shop.run("list")


def test_show_tells_columns_and_versions(shop: Shop) -> None:
    names = [one["version"] for one in shop.json("show", "bikes")["history"]]
    first, labelled, latest = names
    shop.tell(training(job="j1", name=labelled, shop=shop))
    shop.tell(registered(version=4, job="j1"))
    found = shop.json("show", "bikes")
    assert (found["version"], found["rows"], found["labelled"]) == (latest, 70, 30)
    temp = found["columns"]["temp"]
    assert (temp["type"], temp["spread"]["max"]) == ("number", 0.9)
    assert [f["value"] for f in found["columns"]["sky"]["frequent"]] == [
        "fog", "clear", "mist",
    ]  # fmt: skip
    assert [one["models"] for one in found["history"]] == [[], [4], []]
    earlier = shop.json("show", "bikes", "--version", first)
    assert (earlier["rows"], earlier["labelled"]) == (40, 0)
    text = shop.run("show", "bikes")
    assert "fog 43%" in text
    assert "v4" in text


def test_diff_says_what_changed(shop: Shop) -> None:
    versions = [one["version"] for one in shop.json("show", "bikes")["history"]]
    found = shop.json("diff", "bikes", versions[0], versions[1])
    assert (found["added"], found["labelled"]) == (0, 30)
    found = shop.json("diff", "bikes", versions[1], "latest")
    assert (found["added"], found["labelled"]) == (30, 0)
    shifts = {shift["column"]: shift for shift in found["shifts"]}
    assert shifts["temp"]["size"] == "large"
    assert shifts["sky"]["text"].endswith("new: fog; gone: clear, mist")
    text = shop.run("diff", "bikes", versions[1])
    assert "rows: 30 added" in text
    assert "large: higher, mean 0.45 → 0.9" in text


def test_a_label_fix_makes_a_version(shop: Shop) -> None:
    """A person publishes the corrected label; the version before keeps the old one."""
    before = shop.chain.latest("bikes")
    shop.publish([label(7, 100, 700.0)], "labels")
    found = shop.json("diff", "bikes", *names(shop)[-2:])
    assert (found["relabelled"], found["added"], found["labelled"]) == (1, 0, 0)
    assert shop.chain.latest("bikes").dataset != before.dataset
    shop.publish([label(7, 100, 700.0)], "labels")  # once more: no fix, no version
    assert found["new"] == names(shop)[-1]
    shop.run("export", "bikes", "-o", str(shop.path / "new.csv"))
    old = ["--version", found["old"], "-o", str(shop.path / "old.csv")]
    shop.run("export", "bikes", *old)
    assert count_of(shop.path / "new.csv", "r007") == 700.0
    assert count_of(shop.path / "old.csv", "r007") == 7.0


def names(shop: Shop) -> list[str]:
    return [one["version"] for one in shop.json("show", "bikes")["history"]]


def count_of(file: Path, row_id: str) -> float | None:
    rows = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
    found: float | None = rows.filter(pl.col("id") == row_id)["cnt"][0]
    return found


def test_export_knows_only_what_was_known(shop: Shop) -> None:
    shop.publish([label(7, 200, 700.0)], "labels")
    file = shop.path / "rows.parquet"

    def known(at: int) -> float | None:
        report = shop.json("export", "bikes", "-o", str(file), "--known-at", hour(at))
        assert report["rows"] == 70
        return count_of(file, "r007")

    assert (known(30), known(31), known(199), known(200)) == (None, 7.0, 7.0, 700.0)
    said = shop.run("export", "bikes", "-o", str(file), "--no-labels")
    assert "70 rows (0 labelled)" in said
    assert [p.name for p in shop.path.glob("*.partial")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "cars"], "'cars' has no dataset; there are: bikes"),
        (["show", "bikes", "--version", "99"], "has no dataset version '99'; it goes"),
        (["show", "bikes", "--version", "x"], "has no dataset version 'x'"),
        (["export", "bikes", "-o", "rows.xls"], r"rows.xls: .*\.parquet or \.csv"),
        (["export", "bikes", "-o", "/no/rows.csv"], "cannot write /no/rows.csv"),
        (["export", "bikes", "-o", "a.csv", "--known-at", "noon"], "'noon' is no time"),
        (
            ["export", "bikes", "-o", "a.csv", "--known-at", hour(1), "--no-labels"],
            "leave --no-labels out",
        ),
    ],
)
def test_errors_name_the_remedy(shop: Shop, words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        shop.run(*words)


def test_a_report_of_a_version_stands_alone(shop: Shop) -> None:
    """One file, nothing from elsewhere; what comes from the data is text."""
    hostile = "<img src=x onerror=alert(1)>"
    shop.publish([row(n, sky=hostile) for n in range(70, 100)], "observations")
    file = shop.path / "report.html"
    said = shop.run("report", "bikes", "--against", "2.1", "-o", str(file))
    assert "bikes, dataset version 3.1" in said
    page = file.read_text("utf-8")
    assert hostile not in page
    assert "&lt;img src=x" in page
    for outside in ("http:", "https:", "<script", "<link", "url("):
        assert outside not in page
    assert page.count("<svg") == 2  # temp and cnt
    assert "Since version 2.1" in page
    assert "30 added" in page
    found = shop.json("report", "bikes", "-o", str(shop.path / "report.json"))
    assert found == json.loads((shop.path / "report.json").read_text("utf-8"))
    assert found["facts"]["rows"] == 100
    assert "change" not in found


def test_a_report_of_a_batch_says_what_was_wrong(shop: Shop) -> None:
    shop.publish([row(n, temp=n - 70) for n in range(70, 75)], "observations")
    found = shop.json("report", "bikes", "--batch", "newest")
    facts = found["facts"]
    assert (facts["rows"], facts["went on"], facts["quarantined"]) == (5, 2, 3)
    (reason,) = found["reasons"]
    assert (reason["field"], reason["check"]) == ("temp", "range")
    assert shop.json("report", "bikes", "--batch", found["batch"]) == found
    file = shop.path / "batch.html"
    shop.run("report", "bikes", "--batch", "newest", "-o", str(file))
    page = file.read_text("utf-8")
    assert "Quarantined rows" in page
    assert reason["detail"] in page
    shop.publish([row(n, temp=7) for n in range(80, 85)], "observations")
    only_bad = shop.json("report", "bikes", "--batch", "newest")
    assert only_bad["columns_of"] == "quarantined rows"
    with pytest.raises(CommandError, match="no batch 'x' of bikes"):
        shop.run("report", "bikes", "--batch", "x")
    with pytest.raises(CommandError, match=r"\.html or \.json"):
        shop.run("report", "bikes", "-o", "report.pdf")


def test_a_time_without_zone_is_utc() -> None:
    assert parse_time("2011-01-01T00:00:00") == DAY
    assert parse_time("2011-01-01T01:00:00+01:00") == DAY


def test_repeated_events_are_one_version(shop: Shop) -> None:
    entries = shop.read_log()
    once, twice = histories(entries), histories([*entries, *entries])
    assert len(twice["bikes"].versions) == len(once["bikes"].versions) == 3


def training(job: str, name: str, shop: Shop) -> e.TrainingStarted:
    dataset = histories(shop.read_log())["bikes"].find(name).event.dataset
    span = e.Span(start=DAY, end=DAY)
    trigger = e.Trigger(event_id="0", event_type="dataset-versioned", reason="new_data")
    return e.TrainingStarted(
        pipeline="bikes", job_id=job, trigger=trigger, dataset=dataset,
        train_span=span, holdout_span=span,
    )  # fmt: skip


def registered(version: int, job: str) -> e.ModelRegistered:
    comparison = e.PairedComparison(mean_difference=0, standard_error=0, row_count=1)
    return e.ModelRegistered(
        pipeline="bikes",
        version=version,
        job_id=job,
        package=e.PackageRef(uri="artifact:x", digest="a" * 64, signer="k"),
        algorithm="linear",
        evaluation=e.Evaluation(
            metric="mae", holdout_span=e.Span(start=DAY, end=DAY), holdout_row_count=1,
            candidate=1, baseline=1, comparison=comparison,
        ),
        gate=[],
    )  # fmt: skip


def test_a_dry_run_says_what_would_go(shop: Shop) -> None:
    assert shop.json("maintain", "bikes", "--dry-run")["vacuum"] == "not_wanted"
    rules = {"keep_days": 1, "keep_versions_days": 1}
    spec = SPEC.model_copy(
        update={"data": SPEC.data.model_copy(update={"retention": Retention(**rules)})}
    )
    shop.tell(e.PipelineApplied(pipeline="bikes", spec=spec, applied_by="ann"))
    found = shop.json("maintain", "bikes", "--dry-run")
    assert found["cutoff"] is not None
    assert found["observations"]["dropped_count"] == 0  # 40 hours and 30 more
    assert found["observations"]["kept_from"] == 0  # every version is young
    assert "kept versions: all from 0 on" in shop.run("maintain", "bikes", "--dry-run")


def test_show_tells_what_upkeep_left(shop: Shop) -> None:
    table = e.TableMaintained(
        version=9, file_count=1, vacuumed_count=5, freed_bytes=2048, kept_from=2
    )
    shop.tell(e.DatasetMaintained(pipeline="bikes", observations=table, vacuum="done"))
    found = shop.json("show", "bikes")
    assert [one["is_kept"] for one in found["history"]] == [False, False, True]
    assert [one["version"] for one in found["history"]] == ["1.0", "1.1", "2.1"]
    text = shop.run("show", "bikes")
    assert "not kept" in text
    assert "5 files (2.0 KiB) go" in text


def test_maintain_asks_and_waits_for_the_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = e.TableMaintained(version=9, file_count=1, dropped_count=3)
    asked: list[e.MaintenanceRequested] = []

    def publish(_: object, event: e.MaintenanceRequested) -> str:
        asked.append(event)
        answer = e.DatasetMaintained(
            pipeline="bikes", observations=table, vacuum="not_due", requested_by="ann"
        )
        meta = Meta("m", DAY, "/s", Chain("m"), causation_id="asked")
        shop.told.append(Entry(answer.with_meta(meta), meta))
        return "asked"

    monkeypatch.setattr(upkeep, "publish_event", publish)
    monkeypatch.setattr(upkeep, "read_log", shop.read_log)
    assert shop.json("maintain", "bikes")["observations"]["dropped_count"] == 3
    assert [event.pipeline for event in asked] == ["bikes"]
    monkeypatch.setattr(upkeep, "ANSWER_S", 0)
    with pytest.raises(CommandError, match="has not answered"):
        shop.run("maintain", "bikes")
