"""A check of the audit trail: slow is not broken."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.identity import AuditNoted
from driftloop.registry import audit
from driftloop.registry.audit import (
    Anchoring,
    Finding,
    Logged,
    LogUnreadError,
    RegistryAudit,
)
from driftloop.runtime import database
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.outbox import OutboxRelay
from opentelemetry.trace import NoOpTracer
from sqlalchemy import Engine
from sqlmodel import Session, delete

from tests.unit.runtime.bench import RecordingPublisher
from tests.unit.support import wait_until

TOPIC = AuditNoted.topic()
EXAMPLE = Path(__file__).parents[3] / "libs/contracts/examples/audit-noted.json"


def note(number: int) -> AuditNoted:
    meta = Meta(str(number), datetime.now(UTC), "/registry", Chain("c"))
    content = json.loads(EXAMPLE.read_text("utf-8"))
    return AuditNoted.model_validate(content).with_meta(meta)


NOTES = [note(number) for number in range(3)]


class Trail:
    """A registry's database, and a log that holds all notes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine: Engine = open_database(f"sqlite:///{folder}/r.db", [RegistryAudit])
        logged = Logged([each.as_entry() for each in NOTES], [], {(TOPIC, 0): 3})
        monkeypatch.setattr(audit, "read_log", lambda *_: logged)

    def write(self, number: int) -> None:
        """Handle a note as the registry's handler does."""
        with Session(self.engine) as session:
            audit.append(session, NOTES[number])
            database.advance(session.connection(), TOPIC, 0, number + 1)
            session.commit()

    def verify(self) -> Finding:
        return audit.verify(self.engine, "nowhere", {}, cast("Any", None))


@pytest.fixture
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trail]:
    found = Trail(tmp_path, monkeypatch)
    yield found
    found.engine.dispose()


def test_a_trail_that_is_behind_is_waited_for(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    is_written = audit._is_written

    def noted(*given: Any) -> bool:
        found = is_written(*given)
        looked.set()
        return found

    monkeypatch.setattr(audit, "_is_written", noted)
    trail.write(0)
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(trail.verify()))
    thread.start()
    wait_until(looked.is_set)
    assert not found
    trail.write(1)
    trail.write(2)
    thread.join(120)
    assert found == [Finding(3, 0, [])]


def test_a_trail_that_stays_behind_is_no_verdict(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CATCH_UP_S", 0)
    trail.write(0)
    with pytest.raises(LogUnreadError, match="still being written"):
        trail.verify()


def test_what_was_written_and_is_gone_is_found_at_once(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CATCH_UP_S", 0)
    for number in range(3):
        trail.write(number)
    assert trail.verify().breaks == []  # the control
    with Session(trail.engine) as session:
        session.exec(delete(RegistryAudit).where(RegistryAudit.position == 3))  # type: ignore[arg-type, call-overload]  # SQLModel's columns
        session.commit()
    (found,) = trail.verify().breaks
    assert (found.position, found.kind) == (3, "removed")


def test_a_head_is_anchored_once_whoever_is_started_again(tmp_path: Path) -> None:
    """A second time would be the same event with other bytes: another time is in it."""
    engine = open_database(f"sqlite:///{tmp_path}/r.db", [RegistryAudit])
    publisher = RecordingPublisher()
    outbox = OutboxRelay(
        "registry", engine, publisher, FolderStore(tmp_path), NoOpTracer()
    )
    for number in range(2):
        with Session(engine) as session:
            audit.append(session, NOTES[number])
            session.commit()
        for _ in range(2):
            Anchoring(engine, outbox).anchor()
        assert len(publisher.sent) == number + 1
    engine.dispose()
