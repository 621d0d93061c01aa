"""The console as a process: who may see it, and that a restart shows the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from deltalake import write_deltalake
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.pipeline import Feature
from driftloop.contracts.schema import SchemaColumn
from driftloop.contracts.topics import BY_NAME, dead_letter_topic
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.drivers.confluent import ConfluentPublisher
from driftloop.runtime.transport import Record

from tests.component.browser import CHROMIUM, Browser
from tests.component.console_story import DAYS, FAULT_DAYS, NAME, Story
from tests.component.processes import TOKEN, Log, ServiceProcess
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
WALL = datetime(2026, 1, 1, tzinfo=UTC)
LETTER = (
    ("dead-letter-topic", b"batch-ingested"),
    ("dead-letter-partition", b"2"),
    ("dead-letter-offset", b"17"),
    ("dead-letter-reason", b"not an Arrow IPC stream <script>alert(1)</script>"),
    ("dead-letter-time", b"2026-01-01T00:01:00+00:00"),
)


def of_a_dataset(table: Path) -> list[Event]:
    """Write a dataset of a few rows; return its version, and a schema that waits."""
    rows = pl.DataFrame(
        {
            "id": ["a", "b"],
            "event_time": [WALL] * 2,
            "source": ["city"] * 2,
            "temp": [0.5, 20.0],
            "cnt": [3.0, None],
        }
    )
    write_deltalake(table, rows.to_arrow())
    dataset = e.DatasetRef(observations=e.TableRef(uri=str(table), version=0))
    versioned = e.DatasetVersioned(
        pipeline=NAME,
        kind="observations",
        dataset=dataset,
        added_count=2,
        observation_count=2,
        label_count=1,
        span=e.Span(start=WALL, end=WALL),
    )
    columns = {"temp": SchemaColumn(feature=Feature(min=0, max=30))}
    proposed = e.SchemaProposed(
        pipeline=NAME, version=1, columns=columns, changes=[], row_count=2
    )
    return [
        event.with_meta(Meta(event.topic(), WALL, "/s", Chain("data")))
        for event in (versioned, proposed)
    ]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A console over a log that holds the whole story, with some of it twice."""
    folder = tmp_path_factory.mktemp("console")
    with KafkaNode(folder / "kafka") as node:
        create_topics(node.bootstrap)
        log = Log(node.bootstrap, folder / "home")
        events = list(Story(WALL).events())
        log.publish(*events)
        log.publish(*[x for x in events if x.topic() == "model-deployed"])
        log.publish(*of_a_dataset(folder / "table"))
        log.close()
        publisher = ConfluentPublisher(node.bootstrap, client_id="test")
        letter = Record(dead_letter_topic("validator"), b"k", b"\x00bad", LETTER)
        foreign = Record("model-trained", b"k", b"not an event of ours")
        publisher.publish([letter, foreign])
        publisher.close()
        with ServiceProcess("console", folder / "home", node.bootstrap) as process:
            yield process


def state(console: ServiceProcess) -> dict[str, Any]:
    answer: dict[str, Any] = console.client.get("/api/state").json()
    return answer


def test_the_story_is_told(console: ServiceProcess) -> None:
    """Versions, fault, verdicts, the wait for a person, dead letters, counts."""
    found = state(console)
    pipeline = found["pipelines"][NAME]
    states = {v["version"]: v["state"] for v in pipeline["versions"]}
    assert states == {
        1: "superseded", 2: "superseded", 3: "deployed", 4: "rolled back",
        5: "awaiting approval",
    }  # fmt: skip
    assert pipeline["serving"]["champion"] == 3
    assert pipeline["waiting"][0]["command"].startswith(
        "driftloop approve bike-demand/5"
    )
    verdicts = [d["drift"]["cause"] for d in pipeline["decisions"] if "drift" in d]
    assert verdicts == ["sensor_fault", *["concept_drift"] * 4]
    assert len(pipeline["quarantine"]["spans"]) == len(FAULT_DAYS)
    assert [f["field"] for f in pipeline["quality"]["findings"]] == ["temp", "hum"]
    assert pipeline["datasets"]["shown"][0]["version"] == "0.0"
    assert pipeline["job"] is None
    assert found["counts"][NAME]["batch-validated"][0] == DAYS
    assert found["dead_letters"]["counts"] == {"validator": 1}
    deployed = [d for d in pipeline["decisions"] if d["topic"] == "model-deployed"]
    assert len(deployed) == 3  # each came twice
    assert deployed[0]["event_time"].startswith("2011-02-")


def test_a_restart_shows_the_same(console: ServiceProcess) -> None:
    """Nothing is stored: the log gives the same picture, but for revisions."""
    before = state(console)
    console.kill()
    console.start()
    after = state(console)
    assert before.pop("revision") > 0
    after.pop("revision")
    assert after == before


def test_reports_of_a_version_and_of_a_batch(console: ServiceProcess) -> None:
    """As HTML and JSON, of what the page shows; anything else is refused."""
    found = state(console)["pipelines"][NAME]
    batch = next(b for b in found["quality"]["batches"] if b["bad"])
    page = console.client.get(f"/reports/{NAME}/batches/{batch['batch']}")
    assert "values between 50 and 95" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    form = {"form": "json"}
    report = console.client.get(page.url.path, params=form).json()
    assert report["facts"]["quarantined"] == batch["bad"]
    of_version = {"version": "0.0", **form}
    report = console.client.get(f"/reports/{NAME}", params=of_version).json()
    assert report["facts"]["rows"] == 2
    assert console.client.get(f"/api/sizes/{NAME}").json()["0.0"] > 0
    for path in (f"/reports/{NAME}/batches/none", f"/reports/{NAME}?version=9.9"):
        answer = console.client.get(path)
        assert answer.status_code == 404
        assert "driftloop datasets" in answer.text


def test_only_news_is_sent(console: ServiceProcess) -> None:
    found = state(console)
    news = console.client.get("/api/state", params={"since": found["revision"]}).json()
    assert "decisions" not in news["pipelines"].get(NAME, {})
    assert "points" not in news["pipelines"].get(NAME, {})
    assert "dead_letters" not in news


def test_the_stream_begins_with_everything(console: ServiceProcess) -> None:
    with console.client.stream("GET", "/api/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = next(line for line in stream.iter_lines() if line.startswith("data:"))
    content = json.loads(first.removeprefix("data:"))
    assert content["first"] is True
    assert len(content["pipelines"][NAME]["versions"]) == 5


def test_an_open_stream_does_not_hold_the_process(console: ServiceProcess) -> None:
    with console.client.stream("GET", "/api/stream") as stream:
        next(stream.iter_lines())
        assert console.stop() == 0
    console.start()


def test_no_route_without_token_or_cookie(console: ServiceProcess) -> None:
    """Every route of the OpenAPI document, and the page itself."""
    with httpx.Client(base_url=console.url, timeout=100) as stranger:
        paths = stranger.get("/openapi.json").json()["paths"]
        assert {"/api/state", "/api/stream", "/api/about"} <= set(paths)
        for path in [*paths, "/"]:
            for headers in (
                {},
                {"Authorization": "Bearer no"},
                {"Cookie": "driftloop-console=x"},
            ):
                answer = stranger.get(path, headers=headers)
                assert answer.status_code == 401, path
        door = stranger.get("/")
        assert "driftloop status" in door.text
        assert "script" not in door.text
        assert stranger.get("/", params={"token": "wrong"}).status_code == 401


def test_the_link_opens_the_page(console: ServiceProcess) -> None:
    """Once with the token, then by a cookie that is not the token."""
    with httpx.Client(base_url=console.url, timeout=100) as person:
        answer = person.get("/", params={"token": TOKEN})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert TOKEN not in cookie
        page = person.get("/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert person.get("/api/state").status_code == 200
        assert person.get("/static/../core.py").status_code == 404
        for name in ("main.js", "style.css", "icon.svg"):
            assert person.get(f"/static/{name}").status_code == 200
        evil = person.get("/", headers={"Host": "evil.example"})
        assert evil.status_code == 400


def test_every_topic_is_read(console: ServiceProcess) -> None:
    """Negative control of the list of topics: about names each line of the table."""
    about = console.client.get("/api/about").json()
    assert {topic["name"] for topic in about["topics"]} == set(BY_NAME)


@pytest.mark.browser
@pytest.mark.skipif(
    CHROMIUM is None, reason="needs the chromium browser: apt-get install chromium"
)
def test_a_real_browser_draws_it(console: ServiceProcess, tmp_path: Path) -> None:
    """The page's own code draws the story, quietly, and shows hostile text as text."""
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{console.url}/?token={TOKEN}")
        browser.wait_for("document.querySelectorAll('#versions tbody tr').length == 5")
        text = browser.evaluate("document.body.innerText")
        for part in (
            "Version 5 waits", "v3 in service", "Sensor fault", "<script>alert(1)",
            "Schema 1 waits for a person", "driftloop schema accept bike-demand",
        ):  # fmt: skip
            assert part in text
        assert browser.evaluate("document.querySelectorAll('.served').length") >= 3
        assert "token" not in browser.evaluate("location.href")
        browser.open(f"{console.url}/", width=390, height=844)
        browser.wait_for("document.querySelectorAll('#versions tbody tr').length == 5")
        width = "document.documentElement.scrollWidth"
        browser.wait_for(f"{width} <= 390")
        find_quarantined_column(browser)
        find_why_and_how_bad(browser, f"{console.url}/")
        assert browser.complaints == []

        browser.evaluate("console.error('control')")  # negative control
        browser.wait_for("true")
        assert "control" in "".join(browser.complaints)


def find_quarantined_column(browser: Browser) -> None:
    """Go the way of a person who wants to know what is wrong with the data."""
    row = "document.querySelector('#quality tbody tr')"
    browser.wait_for(f"{row}?.innerText.includes('temp')")
    assert "values between 50 and 95" in browser.evaluate(f"{row}.innerText")
    assert browser.evaluate(f"{row}.querySelectorAll('rect.some').length") >= 1
    bad = (
        "[...document.querySelectorAll('#batches tbody tr')]"
        ".find(row => row.innerText.includes('temp: range'))"
    )
    link = browser.evaluate(f"{bad}.querySelector('a').href")
    newest = browser.evaluate("document.querySelector('#datasets tbody a').href")
    for url, text in ((link, "values between 50 and 95"), (newest, "version 0.0")):
        browser.open(url)
        browser.wait_for(f"document.body.innerText.includes({text!r})")


def find_why_and_how_bad(browser: Browser, url: str) -> None:
    """Go the way of a person who was told that a version seems to do worse."""
    browser.open(url)
    browser.wait_for("document.querySelectorAll('.windows tbody tr').length == 6")
    alerts = browser.evaluate("document.querySelector('#alerts').innerText")
    assert "Version 3 seems to do worse" in alerts
    assert "Labels have stopped coming" not in alerts  # they came again
    assert "1 over, among the decisions" in alerts
    newest = "document.querySelector('.windows tbody tr').innerText"
    row = browser.evaluate(newest)
    assert "degrading" in row
    assert "labels awaited" in row
    facts = browser.evaluate("document.querySelector('.windows .facts').innerText")
    for part in ("MAE estimated", "hold-out 42", "1,500 labelled rows", "94 %"):
        assert part in facts
    bands = "document.querySelectorAll('#performance rect.band').length"
    assert browser.evaluate(bands) == 6  # those that are not measured yet
    verdict = browser.evaluate("document.querySelector('#verdict').innerText")
    for part in (
        "83 % sure", "retrain advised", "hour 64 %", "population shift 11 %",
        "61.2, limit 50", "p 0.41",
    ):  # fmt: skip
        assert part in verdict
    over = "document.querySelector('#decisions').innerText.includes"
    assert browser.evaluate(f"{over}('Over: Labels have stopped coming')")


def test_a_console_without_token_does_not_start(
    console: ServiceProcess, tmp_path: Path
) -> None:
    process = ServiceProcess("console", tmp_path, "127.0.0.1:1", API_TOKEN="")
    process.start(wait=False)
    wait_until(lambda: process.exit_code() is not None, 120)
    assert process.exit_code() != 0
    assert "DRIFTLOOP_API_TOKEN" in process.log.read_text()
    process.client.close()
