"""What people may ask of ingest about personal data: erase it, or read one value.

A person's id comes in here and nowhere else: the events say its keyed hash.
"""

import hmac
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.contracts.base import NAME_PATTERN, Chain, Event, Meta
from driftloop.contracts.events import (
    ErasureRequested,
    PipelineApplied,
    ValueRevealed,
)
from driftloop.ingest.answers import NOT_APPLIED, refusals
from driftloop.ingest.privacy import ENCRYPTED, subject_of
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.http import require_token
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Publisher, PublishError
from fastapi import APIRouter, Depends, Header, HTTPException, Path
from pydantic import BaseModel, Field
from sqlmodel import Session

MAX_TEXT = 1000
PUBLISH_TIMEOUT_S = 10
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Erasure(BaseModel):
    """Whose data is to become unreadable, and who wants it."""

    subject: Text
    requested_by: Text
    reason: Text


class Revelation(BaseModel):
    """The token or encrypted value to read; and who reads it, and why."""

    value: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    revealed_to: Text
    reason: Text


class ErasureAccepted(BaseModel):
    """Kafka has the request; ``subject-erased`` follows once it is done."""

    pipeline: str
    subject: str = Field(description="the keyed hash that the events say")
    event_id: str


class Revealed(BaseModel):
    """One value as it came."""

    field: str
    value: str


def router(
    settings: IngestSettings,
    publisher: Publisher,
    store: ArtifactStore,
    pipelines: StateView[PipelineApplied],
    privacy: PrivacyDoor,
) -> APIRouter:
    """Return the routes; reading a value takes a second token."""
    routes = APIRouter(
        prefix="/v1/pipelines/{name}",
        tags=["personal data"],
        dependencies=[Depends(require_token(settings))],
        responses=refusals(
            {404: f"{NOT_APPLIED}, or there is no such token", 503: "ask again"}
        ),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type

    def publish(event: Event) -> str:
        """Return the event's id once Kafka has it."""
        event_id = str(uuid4())
        meta = Meta(event_id, datetime.now(UTC), "/driftloop/people", Chain(event_id))
        try:
            publisher.publish([encode(event, meta, store)], timeout_s=PUBLISH_TIMEOUT_S)
        except PublishError as error:
            raise HTTPException(503, "Kafka does not answer; ask again") from error
        return event_id

    def check_pipeline(name: str) -> None:
        if name not in pipelines:
            raise HTTPException(404, f"no pipeline {name!r} is applied")

    @routes.post("/erasures", status_code=202, response_model=ErasureAccepted)
    def erasures(name: Name, asked: Erasure) -> Any:
        """Make what is encrypted for a person unreadable, for ever."""
        check_pipeline(name)
        subject = subject_of(privacy.keys, name, asked.subject)
        event = ErasureRequested(
            pipeline=name,
            subject=subject,
            requested_by=asked.requested_by,
            reason=asked.reason,
        )
        return ErasureAccepted(pipeline=name, subject=subject, event_id=publish(event))

    @routes.post(
        "/revelations",
        response_model=Revealed,
        responses=refusals({403: "no second token", 410: "the person was erased"}),
    )
    def revelations(
        name: Name, asked: Revelation, reveal_token: Annotated[str, Header()] = ""
    ) -> Any:
        """Read one token or encrypted value; the log says who did, and why."""
        check_pipeline(name)
        wanted = settings.reveal_token
        if wanted is None or not hmac.compare_digest(
            reveal_token.encode(), wanted.get_secret_value().encode()
        ):
            raise HTTPException(
                403,
                "reading takes a second token (header Reveal-Token), which ingest has "
                "as DRIFTLOOP_REVEAL_TOKEN; without that nobody may read",
            )
        field, value, subject = _read(name, asked.value, privacy, pipelines[name])
        publish(
            ValueRevealed(
                pipeline=name,
                field=field,
                subject=subject,
                revealed_to=asked.revealed_to,
                reason=asked.reason,
            )
        )
        return Revealed(field=field, value=value)

    return routes


def _read(
    pipeline: str, value: str, privacy: PrivacyDoor, applied: PipelineApplied
) -> tuple[str, str, str | None]:
    """Return column, plain value and, of an encrypted one, the subject."""
    with Session(privacy.engine) as session:
        vault = DatabaseVault(session, privacy.keys)
        if not value.startswith(f"{ENCRYPTED}:"):
            found = vault.value_of(pipeline, value)
            if found is None:
                raise HTTPException(404, "no such token; it may have been erased")
            return (*found, None)
        _, _, rest = value.partition(":")
        subject, _, cipher = rest.partition(":")
        key = vault.known_key(pipeline, subject)
    if key is None:
        raise HTTPException(410, "the key is gone: the person was erased")
    for column, rule in applied.spec.data.privacy.items():
        if rule.action != "encrypt":
            continue
        try:
            bound_to = [f"{pipeline}/{column}".encode()]
            plain = AESSIV(key).decrypt(bytes.fromhex(cipher), bound_to)
        except (InvalidTag, ValueError):
            continue
        return column, plain.decode(errors="surrogatepass"), subject
    raise HTTPException(422, "not an encrypted value of this pipeline's columns")
