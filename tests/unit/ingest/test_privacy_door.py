"""Rows of a pipeline with privacy rules by HTTP, and what people may ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from driftloop.contracts.events import ErasureProposed, ValueRevealed
from driftloop.ingest import api
from driftloop.ingest.handlers import HANDLERS, IngestDeps, Patience
from driftloop.ingest.privacy import subject_of
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.subjects import router as subjects_router
from driftloop.ingest.tables import TABLES
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode
from driftloop.runtime.http import http_app
from driftloop.runtime.transport import Message, Record
from pydantic import SecretStr
from sqlmodel import Session

from tests.unit.ingest.door import KEYS
from tests.unit.ingest.private import CUSTOMER, PHONE, SECRETS, person, pipelines
from tests.unit.ingest.test_api import TOKEN, Client, Kafka, arrow

URL = "/v1/pipelines/shop/"
JSON = {"content-type": "application/json"}
READER = "a second token of the tests"


def message_of(record: Record, offset: int = 0) -> Message:
    return Message(record.topic, 0, offset, record.key, record.value, record.headers)


class Desk:
    """Ingest's door in this process, and its handlers behind it."""

    def __init__(self, folder: Path, reveal_token: str | None) -> None:
        self.kafka = Kafka()
        self.engine = open_database(f"sqlite:///{folder}/ingest.db", TABLES)
        self.store = FolderStore(folder)
        settings = IngestSettings(
            api_token=SecretStr(TOKEN),
            allowed_hosts=["door"],
            reveal_token=SecretStr(reveal_token) if reveal_token else None,
        )
        app = http_app("ingest", settings, lambda: {"live": True, "ready": True})
        privacy = PrivacyDoor(self.engine, KEYS)
        door = api.Door(settings, self.kafka, pipelines(), privacy)
        app.include_router(api.router(door))
        app.include_router(
            subjects_router(settings, self.kafka, self.store, pipelines(), privacy)
        )
        self.client = Client(app, door)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.client.post(URL + path, content, JSON | named)

    def rows(self, kind: int, *records: Record) -> list[dict[str, Any]]:
        """Return what becomes of records in ingest's consumer."""
        with Session(self.engine) as session:
            deps = IngestDeps(session, pipelines(), Patience(0), KEYS)
            outputs = HANDLERS[kind].function(  # type: ignore[union-attr]  # a chunk
                [message_of(record, at) for at, record in enumerate(records)], deps
            )
            rows = [row for event in outputs for row in event.rows.to_pylist()]  # type: ignore[union-attr]  # no letters here
            session.commit()
        return rows


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, READER)
    yield desk
    desk.engine.dispose()


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_what_reaches_the_topic_is_treated_and_taken_as_it_is(
    desk: Desk, form: str
) -> None:
    rows = [person(1), person(2)]
    body, kind = (
        (orjson.dumps(rows), "application/json")
        if form == "json"
        else (arrow(rows), "application/vnd.apache.arrow.stream")
    )
    headers = {
        "content-type": kind, "ce_id": "ada-17", "x_user": "ada@example.org",
        "traceparent": "ada", "ce_ada": "Lovelace",
    }  # fmt: skip
    answer = desk.post("observations?source=till-3", body, **headers)
    assert answer.status_code == 202, answer.text
    (record,) = desk.kafka.sent
    text = repr(record)
    assert not [secret for secret in (*SECRETS, "ada-17") if secret in text]

    found = desk.rows(0, record)

    with Session(desk.engine) as session:
        token = DatabaseVault(session, KEYS).tokens("shop", "phone", [PHONE])
    assert [row["id"] for row in found] == [
        KEYS.pseudonym("shop", "id", f"order-of-ada-{n}") for n in (1, 2)
    ]
    assert {row["source"] for row in found} == {"till-3"}
    assert json.loads(found[0]["extra"])["phone"] == token[PHONE]


def test_the_same_rows_by_door_and_topic_are_the_same_rows(desk: Desk) -> None:
    desk.post("observations", person(1))
    raw = Record("observation-arrived", b"shop", orjson.dumps(person(1)))
    assert len(desk.rows(0, raw)) == 1
    assert desk.rows(0, *desk.kafka.sent) == []


def test_a_label_finds_its_hashed_row(desk: Desk) -> None:
    label = {name: person(1)[name] for name in ("id", "event_time", "bought")}
    assert desk.post("labels", label).status_code == 202
    assert desk.post("observations", person(1)).status_code == 202
    by_label, by_row = desk.kafka.sent
    (labelled,), (row,) = desk.rows(1, by_label), desk.rows(0, by_row)
    assert labelled["id"] == row["id"]
    assert labelled["bought"] == "yes"


def test_a_broken_row_is_told_to_its_sender_alone(desk: Desk) -> None:
    refused = desk.post("observations", person(1, event_time="ada's birthday"))
    assert refused.status_code == 422
    assert "ada's birthday" in refused.text
    assert desk.kafka.sent == []


def test_erasure_says_a_hash_and_not_the_id(desk: Desk) -> None:
    asked = {"subject": CUSTOMER, "requested_by": "ben", "reason": "ticket 1"}
    answer = desk.post("erasures", asked)
    assert answer.status_code == 202, answer.text
    (record,) = desk.kafka.sent
    event = decode(message_of(record), desk.store)
    assert isinstance(event, ErasureProposed)
    assert event.subject == subject_of(KEYS, "shop", CUSTOMER)
    assert (event.proposed_by, event.reason) == ("ben", "ticket 1")
    assert CUSTOMER not in repr(record)


def test_reading_takes_a_second_token_and_is_told(desk: Desk) -> None:
    desk.post("observations", person(1))
    (row,) = desk.rows(0, *desk.kafka.sent)
    extra = json.loads(row["extra"])
    why = {"revealed_to": "ben", "reason": "ticket 2"}
    for name, plain in (
        ("phone", PHONE),
        ("notes", "asked for the engine"),
    ):
        asked = {"value": extra[name]} | why
        assert desk.post("revelations", asked).status_code == 403
        wrong = desk.post("revelations", asked, reveal_token="guess")
        assert wrong.status_code == 403
        desk.kafka.sent.clear()
        answer = desk.post("revelations", asked, reveal_token=READER)
        assert answer.json() == {"field": name, "value": plain}
        (record,) = desk.kafka.sent
        event = decode(message_of(record), desk.store)
        assert isinstance(event, ValueRevealed)
        assert (event.field, event.revealed_to) == (name, "ben")
        assert plain not in repr(record)


def test_what_nobody_was_told_of_is_not_read(desk: Desk) -> None:
    desk.kafka.is_away = True
    with Session(desk.engine) as session:
        token = DatabaseVault(session, KEYS).tokens("shop", "phone", ["1"])["1"]
        session.commit()
    asked = {"value": token, "revealed_to": "ben", "reason": "ticket 2"}
    answer = desk.post("revelations", asked, reveal_token=READER)
    assert answer.status_code == 503
    assert "value" not in answer.json()


def test_an_erased_value_is_gone(desk: Desk) -> None:
    desk.post("observations", person(1))
    (row,) = desk.rows(0, *desk.kafka.sent)
    with Session(desk.engine) as session:
        subject = subject_of(KEYS, "shop", CUSTOMER)
        DatabaseVault(session, KEYS).erase("shop", subject)
        session.commit()
    asked = {
        "value": json.loads(row["extra"])["notes"], "revealed_to": "ben", "reason": "t",
    }  # fmt: skip
    assert desk.post("revelations", asked, reveal_token=READER).status_code == 410


def test_without_the_setting_nobody_reads(tmp_path: Path) -> None:
    desk = Desk(tmp_path, None)
    asked = {"value": "tok_x", "revealed_to": "ben", "reason": "t"}
    for token in ("", READER):
        answer = desk.post("revelations", asked, reveal_token=token)
        assert answer.status_code == 403
    desk.engine.dispose()
