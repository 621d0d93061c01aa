"""An erasure takes a data engineer and an approver, who are two people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import ErasureProposed, ErasureRequested
from driftloop.contracts.identity import TokenChanged
from driftloop.contracts.roles import GRANTS
from driftloop.ingest import proposals
from driftloop.ingest.handlers import (
    IngestDeps,
    Patience,
    on_erasure_proposed,
    on_erasure_requested,
)
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.proposals import ErasureProposal, objection
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.subjects import router as subjects_router
from driftloop.ingest.tables import TABLES
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode
from driftloop.runtime.http import http_app
from driftloop.runtime.identity import tokens
from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from pydantic import SecretStr
from sqlmodel import Session, select

from tests.unit.ingest.door import KEYS
from tests.unit.ingest.private import CUSTOMER, pipelines
from tests.unit.ingest.test_api import TOKEN, Kafka

URL = "/v1/pipelines/shop/erasures"
NOW = datetime(2026, 11, 26, tzinfo=UTC)


class Office:
    """Ingest's door, people with tokens, and the handlers behind it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.kafka = Kafka()
        self.engine = open_database(f"sqlite:///{folder}/ingest.db", TABLES)
        self.store = FolderStore(folder)
        self.read = 0
        self.known = StateView(TokenChanged)
        self.known.caught_up.set()
        found = IngestSettings(
            api_token=SecretStr(TOKEN), allowed_hosts=["door"], **settings
        )
        guard = Guard(found, self.known, pipelines())
        health = {"live": True, "ready": True}
        self.app = http_app("ingest", found, lambda: health, guard)
        privacy = PrivacyDoor(self.engine, KEYS)
        self.app.include_router(
            subjects_router(found, self.kafka, self.store, pipelines(), privacy)
        )

    def token(self, subject: str, *roles: str) -> str:
        new = tokens.mint()
        self.known.put(
            TokenChanged(
                token_id=new.token_id,
                name=subject,
                subject=subject,
                sha256=new.sha256,
                roles=list(roles),
                issued_by="ada",
                issued_at=datetime.now(UTC),
            )
        )
        return new.token

    def ask(self, method: str, url: str, token: str, **body: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://door"
            ) as client:
                header = {"Authorization": f"Bearer {token}"}
                sent = {"json": body} if body else {}
                return await client.request(method, url, headers=header, **sent)

        return asyncio.run(call())

    def propose(self, token: str, **more: Any) -> str:
        answer = self.ask(
            "POST", URL, token, subject=CUSTOMER, reason="ticket 1", **more
        )
        assert answer.status_code == 202, answer.text
        self.deliver()
        proposal: str = answer.json()["proposal_id"]
        return proposal

    def confirm(self, token: str, proposal: str, **more: Any) -> httpx.Response:
        url = f"{URL}/{proposal}/confirm"
        answer = self.ask("POST", url, token, reason="yes", **more)
        self.deliver()
        return answer

    def deliver(self) -> None:
        """Handle what was published since."""
        for record in self.kafka.sent[self.read :]:
            message = Message(
                record.topic, 0, 0, record.key, record.value, record.headers
            )
            event = decode(message, self.store)
            with Session(self.engine) as session:
                deps = IngestDeps(session, pipelines(), Patience(0), KEYS)
                if isinstance(event, ErasureProposed):
                    list(on_erasure_proposed(event, deps))
                elif isinstance(event, ErasureRequested):
                    list(on_erasure_requested(event, deps))
                session.commit()
        self.read = len(self.kafka.sent)

    def last(self) -> Any:
        record = self.kafka.sent[-1]
        message = Message(record.topic, 0, 0, record.key, record.value, record.headers)
        return decode(message, self.store)

    def said(self) -> list[str]:
        return [record.topic for record in self.kafka.sent]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    found = Office(tmp_path)
    yield found
    found.engine.dispose()


@pytest.mark.parametrize(
    ("first", "second"),
    [("data_engineer", "approver"), ("approver", "data_engineer")],
)
def test_one_proposes_and_the_other_confirms(
    office: Office, first: str, second: str
) -> None:
    """Until then nothing is destroyed."""
    ann, ben = office.token("ann", first), office.token("ben", second)
    proposal = office.propose(ann)
    assert office.said() == ["erasure-proposed"]
    [listed] = office.ask("GET", URL, ann).json()
    assert (listed["state"], listed["sides"]) == ("open", [first])
    answer = office.confirm(ben, proposal)
    assert answer.status_code == 202, answer.text
    assert office.said() == ["erasure-proposed", "erasure-requested"]
    event = office.last()
    assert (event.requested_by, event.confirmed_by) == ("ann", "ben")
    assert (event.reason, event.confirmation_reason) == ("ticket 1", "yes")
    assert (event.meta.causation_id, event.meta.chain.id) == (proposal, proposal)
    [listed] = office.ask("GET", URL, ann).json()
    assert (listed["state"], listed["confirmed_by"]) == ("confirmed", "ben")
    again = office.confirm(ben, proposal)
    assert again.status_code == 409
    assert "ben has confirmed it already" in again.json()["title"]


@pytest.mark.parametrize(
    ("person", "roles", "status", "why"),
    [
        ("ann", ["approver"], 409, "another person has to confirm"),
        ("ben", ["data_engineer"], 409, "approver has to confirm"),
        ("ben", ["data_scientist"], 403, "takes the role"),
        ("ben", ["approver@other"], 403, "takes the role"),
    ],
    ids=["the same person", "the same side", "no right", "another project"],
)
def test_who_cannot_confirm(
    office: Office, person: str, roles: list[str], status: int, why: str
) -> None:
    proposal = office.propose(office.token("ann", "data_engineer"))
    answer = office.confirm(office.token(person, *roles), proposal)
    assert answer.status_code == status
    assert why in answer.json()["title"]
    assert office.said() == ["erasure-proposed"]


def test_who_cannot_propose(office: Office) -> None:
    for role in GRANTS:
        answer = office.ask(
            "POST", URL, office.token("ann", role), subject="1", reason="r"
        )
        may = role in ("data_engineer", "approver")
        assert answer.status_code == (202 if may else 403), role


def test_the_installations_own_token_is_nobody(office: Office, tmp_path: Path) -> None:
    """It decides only where the operator says that one person does all."""
    proposal = office.propose(TOKEN, requested_by="ann")
    refused = office.confirm(TOKEN, proposal, confirmed_by="ben")
    assert refused.status_code == 403
    assert "DRIFTLOOP_OPERATOR_DECIDES" in refused.json()["title"]
    alone = Office(tmp_path / "alone", operator_decides=True)
    proposal = alone.propose(TOKEN, requested_by="ann")
    assert alone.confirm(TOKEN, proposal, confirmed_by="Ann ").status_code == 409
    assert alone.confirm(TOKEN, proposal, confirmed_by="ben").status_code == 202
    alone.engine.dispose()


def test_no_such_proposal(office: Office) -> None:
    answer = office.confirm(office.token("ben", "approver"), "nothing")
    assert answer.status_code == 404
    assert "/v1/pipelines/shop/erasures lists them" in answer.json()["title"]


def test_a_proposal_that_is_not_read_back_yet_is_not_denied(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftloop.ingest.subjects.READ_TIMEOUT_S", 0.0)
    monkeypatch.setattr(office, "deliver", lambda: None)
    proposal = office.propose(office.token("ann", "data_engineer"))
    ben = office.token("ben", "approver")
    answer = office.confirm(ben, proposal)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "ask again" in answer.json()["title"]
    monkeypatch.undo()
    office.deliver()
    assert office.confirm(ben, proposal).status_code == 202


def proposed(*sides: str) -> ErasureProposal:
    return ErasureProposal(
        proposal_id="p", pipeline="shop", subject="s", proposed_by="ann",
        sides=list(sides), reason="r", expires_at=NOW,
    )  # fmt: skip


def test_a_proposal_ends() -> None:
    before, both = NOW - timedelta(seconds=1), ["data_engineer", "approver"]
    one = proposed("data_engineer")
    assert objection(one, "ben", ["approver"], before) is None
    assert "propose the erasure again" in (
        objection(one, "ben", ["approver"], NOW) or ""
    )
    assert objection(proposed(*both), "ben", ["approver"], before) is None
    assert objection(proposed(*both), "ben", both, before) is None


def test_a_confirmation_may_be_read_before_the_proposal(office: Office) -> None:
    """As when ingest's database is built anew from the log."""
    proposal = office.propose(office.token("ann", "approver"))
    office.confirm(office.token("ben", "data_engineer"), proposal)
    with Session(office.engine) as session:
        for table in proposals.TABLES:
            for row in session.exec(select(table)):
                session.delete(row)
        session.commit()
    office.kafka.sent.reverse()
    office.read = 0
    office.deliver()
    with Session(office.engine) as session:
        assert proposals.confirmed_by(session, proposal) == "ben"
