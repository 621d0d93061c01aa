"""Reports of runners at the door: what is taken, and what it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import EdgeReported
from driftloop.contracts.generate import read_examples
from driftloop.ingest.api import Door
from driftloop.ingest.edge_api import MAX_REPORT_BYTES, router
from driftloop.ingest.settings import IngestSettings
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.http import http_app
from driftloop.runtime.transport import Message, PublishError, Record

from tests.unit.ingest.door import pipelines
from tests.unit.support import HttpClient

ROOT = Path(__file__).parents[3]
PATH = "/v1/pipelines/bikes/edge-reports"
EXAMPLE = read_examples(ROOT)["edge-reported"]
REPORT: dict[str, Any] = {
    name: value
    for name, value in EXAMPLE.items()
    if name not in ("pipeline", "reported_by")
}


class Publisher:
    """Remembers what it was given; ``is_away``: takes nothing."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_away = False

    def publish(self, records: Sequence[Record], timeout_s: float = 60) -> None:
        if self.is_away:
            raise PublishError("the broker is away")
        self.records += records

    def close(self) -> None: ...


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def client(publisher: Publisher, store: FolderStore) -> HttpClient:
    settings = IngestSettings.model_validate({"api_token": "t"})
    app = http_app("ingest", settings, lambda: {"live": True, "ready": True})
    app.include_router(router(Door(settings, publisher, pipelines()), store))
    return HttpClient(app, {"Authorization": "Bearer t"})


def event_of(record: Record, store: FolderStore) -> EdgeReported:
    message = Message(record.topic, 0, 0, record.key, record.value, record.headers)
    event = decode(message, store)
    assert isinstance(event, EdgeReported)
    return event


def test_a_report_becomes_an_event(
    client: HttpClient, publisher: Publisher, store: FolderStore
) -> None:
    answer = client.post(PATH, json=REPORT)
    assert answer.status_code == 202, answer.text
    [record] = publisher.records
    assert (record.topic, record.key) == ("edge-reported", b"bikes/line-4")
    event = event_of(record, store)
    assert event.model_dump(mode="json") == {
        **EXAMPLE, "pipeline": "bikes", "reported_by": "operator",
    }  # fmt: skip
    assert event.meta.id == answer.json()["event_id"]
    assert event.meta.time == event.until


def test_sent_again_it_is_the_same_event(
    client: HttpClient, publisher: Publisher, store: FolderStore
) -> None:
    """The same id and the same bytes; another report, runner or pipeline is another."""
    for change in ({}, {}, {"report_id": "0" * 32}, {"edge": "line-5"}):
        assert client.post(PATH, json=REPORT | change).status_code == 202
    first, again, *others = publisher.records
    assert first == again
    ids = {event_of(record, store).meta.id for record in publisher.records}
    assert len(ids) == 1 + len(others)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edge": "line 4"}, "edge"),
        ({"report_id": "x"}, "report_id"),
        ({"row_count": -1}, "row_count"),
        ({"latency_p50_seconds": "fast"}, "latency_p50_seconds"),
        ({"until": "2011-01-01T00:00:00Z"}, "until is before since"),
        ({"since": "2011-01-01"}, "since: "),
        ({"unfamiliar": {str(n): 1 for n in range(51)}}, "unfamiliar"),
        ({"version": None}, "version"),
    ],
)
def test_what_is_no_report_is_refused(
    client: HttpClient, publisher: Publisher, change: dict[str, Any], words: str
) -> None:
    answer = client.post(PATH, json=REPORT | change)
    assert answer.status_code == 422
    assert words in answer.text
    assert publisher.records == []


def test_what_a_newer_runner_adds_is_left_out(
    client: HttpClient, publisher: Publisher, store: FolderStore
) -> None:
    """And nobody names another pipeline, or reporter, in the body."""
    more = {"pipeline": "other", "reported_by": "ann", "colour": "red"}
    assert client.post(PATH, json=REPORT | more).status_code == 202
    event = event_of(publisher.records[0], store)
    assert (event.pipeline, event.reported_by) == ("bikes", "operator")
    assert not event.model_extra


def test_who_may_not_or_asks_too_much_is_refused(
    client: HttpClient, publisher: Publisher
) -> None:
    nobody = {"Authorization": "Bearer x"}
    assert client.post(PATH, json=REPORT, headers=nobody).status_code == 401
    elsewhere = client.post("/v1/pipelines/other/edge-reports", json=REPORT)
    assert elsewhere.status_code == 404
    large = client.post(PATH, content=b" " * (MAX_REPORT_BYTES + 1))
    assert large.status_code == 413
    publisher.is_away = True
    away = client.post(PATH, json=REPORT)
    assert away.status_code == 503
    assert away.headers["retry-after"]
    assert publisher.records == []
