"""What people may ask of ingest about personal data: erase it, or read one value.

A person's id comes in here and nowhere else: the events say its keyed hash.
"""

import hmac
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.contracts.base import NAME_PATTERN, Chain, Event, Meta
from driftloop.contracts.events import (
    ErasureProposed,
    ErasureRequested,
    ErasureSide,
    PipelineApplied,
    ValueRevealed,
)
from driftloop.contracts.pipeline import DEFAULT_PROJECT
from driftloop.contracts.privacy import ENCRYPTED
from driftloop.ingest import proposals
from driftloop.ingest.privacy import subject_of
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.proposals import ErasureProposal
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.taking import NOT_APPLIED
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.identity.routing import (
    AskedBy,
    Asking,
    GuardedRouter,
    Who,
    name_in,
    needs,
)
from driftloop.runtime.problems import refusals
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Publisher, PublishError
from fastapi import Header, HTTPException, Path
from pydantic import BaseModel, Field
from sqlmodel import Session

MAX_TEXT = 1000
PUBLISH_TIMEOUT_S = 10
READ_TIMEOUT_S = 3.0
"""For which a proposal that was just made here is waited for."""
RETRY_AFTER_S = 1
POLL_S = 0.05
ProposalId = Annotated[str, Path(max_length=200)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
SPOKEN_FOR = "who asks; only the installation's own token may name somebody"


class Erasure(BaseModel):
    """Whose data is to become unreadable, and who wants it."""

    subject: Text
    requested_by: Text | None = Field(default=None, description=SPOKEN_FOR)
    reason: Text


class Confirmation(BaseModel):
    """Who confirms a proposal, and why."""

    confirmed_by: Text | None = Field(default=None, description=SPOKEN_FOR)
    reason: Text


class Revelation(BaseModel):
    """The token or encrypted value to read; and who reads it, and why."""

    value: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    revealed_to: Text | None = Field(default=None, description=SPOKEN_FOR)
    reason: Text


class Proposal(BaseModel):
    """An erasure that waits for another person, or has not been waited for."""

    proposal_id: str
    pipeline: str
    subject: str = Field(description="the keyed hash that the events say")
    proposed_by: str
    sides: list[str] = Field(description="roles of the proposer")
    reason: str
    expires_at: datetime
    state: Literal["open", "confirmed", "expired"]
    confirmed_by: str | None


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
) -> GuardedRouter:
    """Return the routes; reading a value takes a second token."""
    routes = GuardedRouter(
        prefix="/v1/pipelines/{name}",
        tags=["personal data"],
        responses=refusals(
            {404: f"{NOT_APPLIED}, or there is no such token", 503: "ask again"}
        ),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type

    def publish(event: Event, follows: ErasureProposal | None = None) -> str:
        """Return the event's id once Kafka has it."""
        event_id = follows.request_id if follows else str(uuid4())
        meta = Meta(
            id=event_id,
            time=datetime.now(UTC),
            source="/driftloop/people",
            chain=Chain(follows.proposal_id if follows else event_id),
            causation_id=follows.proposal_id if follows else None,
        )
        try:
            publisher.publish([encode(event, meta, store)], timeout_s=PUBLISH_TIMEOUT_S)
        except PublishError as error:
            raise HTTPException(503, "Kafka does not answer; ask again") from error
        return event_id

    def check_pipeline(name: str) -> None:
        if name not in pipelines:
            raise HTTPException(404, f"no pipeline {name!r} is applied")

    @routes.post(
        "/erasures",
        status_code=202,
        response_model=Proposal,
        dependencies=[needs("erase", personal=True)],
    )
    def erasures(name: Name, asked: Erasure, who: AskedBy) -> Any:
        """Propose that what is encrypted for a person becomes unreadable, for ever."""
        check_pipeline(name)
        event = ErasureProposed(
            pipeline=name,
            subject=subject_of(privacy.keys, name, asked.subject),
            proposed_by=who.named(asked.requested_by),
            sides=_sides(who, name),
            reason=asked.reason,
            expires_at=datetime.now(UTC) + proposals.LIFETIME,
        )
        event_id = publish(event)
        privacy.proposed_here.append(event_id)
        return Proposal(
            proposal_id=event_id, state="open", confirmed_by=None, **event.model_dump()
        )

    @routes.get("/erasures", dependencies=[needs("read")])
    def proposed(name: Name) -> list[Proposal]:
        """List proposed erasures, the newest first."""
        check_pipeline(name)
        with Session(privacy.engine) as session:
            return [
                _view(session, each) for each in proposals.proposals_of(session, name)
            ]

    @routes.post(
        "/erasures/{proposal_id}/confirm",
        status_code=202,
        response_model=ErasureAccepted,
        dependencies=[needs("erase", personal=True)],
        responses=refusals({409: "not by this person, or not any more"}),
    )
    def confirm(
        name: Name, proposal_id: ProposalId, said: Confirmation, who: AskedBy
    ) -> Any:
        """Confirm a proposal of another person; it is done then."""
        check_pipeline(name)
        caller = who.caller
        if caller.is_operator and not caller.may_decide:
            raise HTTPException(403, str(caller.refusal("erase", None)))
        by = who.named(said.confirmed_by)
        found = _find(privacy, name, proposal_id)
        with Session(privacy.engine) as session:
            before = proposals.confirmed_by(session, proposal_id)
        problem = proposals.objection(found, by, _sides(who, name), datetime.now(UTC))
        if before is not None:
            problem = f"{before} has confirmed it already"
        if problem:
            raise HTTPException(409, problem)
        event = ErasureRequested(
            pipeline=name,
            subject=found.subject,
            requested_by=found.proposed_by,
            reason=found.reason,
            proposal_id=proposal_id,
            confirmed_by=by,
            confirmation_reason=said.reason,
        )
        event_id = publish(event, found)
        return ErasureAccepted(pipeline=name, subject=found.subject, event_id=event_id)

    @routes.post(
        "/revelations",
        response_model=Revealed,
        dependencies=[needs("reveal", personal=True)],
        responses=refusals({403: "no second token", 410: "the person was erased"}),
    )
    def revelations(
        name: Name,
        asked: Revelation,
        caller: Asking,
        reveal_token: Annotated[str, Header()] = "",
    ) -> Any:
        """Read one token or encrypted value; the log says who did, and why."""
        check_pipeline(name)
        reader = name_in(caller, asked.revealed_to)
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
                revealed_to=reader,
                reason=asked.reason,
            )
        )
        return Revealed(field=field, value=value)

    return routes


def _sides(who: Who, pipeline: str) -> list[ErasureSide]:
    """Return for which sides of an erasure somebody may speak.

    The operator speaks for whom they name, and that proves nothing of them.
    """
    if who.caller.is_operator:
        return list(proposals.SIDES)
    project, _ = who.guard.project_of(pipeline) or (DEFAULT_PROJECT, [])
    return proposals.sides_of(who.caller.rights, project)


def _find(privacy: PrivacyDoor, pipeline: str, proposal_id: str) -> ErasureProposal:
    """Return a proposal; one that was just made here is waited for.

    Raises
    ------
    HTTPException
        404 when there is none; 503 when it was made here and is not read back yet.
    """
    is_ours = proposal_id in privacy.proposed_here
    until = time.monotonic() + READ_TIMEOUT_S
    while True:
        with Session(privacy.engine) as session:
            found = session.get(ErasureProposal, proposal_id)
        if found is not None and found.pipeline == pipeline:
            return found
        if found is not None or not is_ours:
            raise HTTPException(
                404,
                f"{pipeline} has no proposed erasure {proposal_id!r}; GET "
                f"/v1/pipelines/{pipeline}/erasures lists them",
            )
        if time.monotonic() >= until:
            raise HTTPException(
                503,
                f"the proposed erasure {proposal_id!r} is not read back yet; ask again",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        time.sleep(POLL_S)


def _view(session: Session, row: ErasureProposal) -> Proposal:
    by = proposals.confirmed_by(session, row.proposal_id)
    is_over = datetime.now(UTC) >= row.ends
    state: Literal["open", "confirmed", "expired"] = "expired" if is_over else "open"
    return Proposal(
        proposal_id=row.proposal_id,
        pipeline=row.pipeline,
        subject=row.subject,
        proposed_by=row.proposed_by,
        sides=row.sides,
        reason=row.reason,
        expires_at=row.ends,
        state="confirmed" if by else state,
        confirmed_by=by,
    )


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
