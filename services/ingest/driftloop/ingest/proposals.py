"""Erasures that one person has proposed and another has to confirm.

What is erased cannot come back, so it takes two people: a data engineer, who knows the
data, and an approver. Either may propose; a proposal destroys nothing.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from driftloop.contracts.base import derived_id
from driftloop.contracts.events import ErasureProposed, ErasureRequested, ErasureSide
from driftloop.contracts.quorum import is_same_person
from driftloop.contracts.roles import Rights
from sqlmodel import JSON, Column, Field, Session, SQLModel, col, select

SIDES: tuple[ErasureSide, ...] = ("data_engineer", "approver")
LIFETIME = timedelta(days=7)


class ErasureProposal(SQLModel, table=True):
    """What one person has proposed.

    Attributes
    ----------
    proposal_id : id of the erasure-proposed.
    sides : for which of the two the proposer may speak.
    """

    __tablename__ = "ingest_erasure_proposal"
    proposal_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    subject: str
    proposed_by: str
    sides: list[str] = Field(sa_column=Column(JSON, nullable=False))
    reason: str
    expires_at: datetime

    @property
    def request_id(self) -> str:
        """Id of the erasure-requested that it leads to, however often it is sent."""
        return derived_id(self.proposal_id, ErasureRequested.topic(), 0)

    @property
    def ends(self) -> datetime:
        """When it can be confirmed no more; SQLite drops the zone."""
        stored = self.expires_at
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored


class ErasureConfirmation(SQLModel, table=True):
    """Who confirmed a proposal; may be read from the log before the proposal."""

    __tablename__ = "ingest_erasure_confirmation"
    proposal_id: str = Field(primary_key=True)
    by: str


TABLES: tuple[type[SQLModel], ...] = (ErasureProposal, ErasureConfirmation)


def sides_of(rights: Rights, project: str) -> list[ErasureSide]:
    """Return for which sides somebody may speak in a project.

    >>> sides_of(Rights.of(["approver@credit", "data_engineer@rides"]), "credit")
    ['approver']
    """
    return [role for role in SIDES if rights.has(role, project)]


def objection(
    proposal: ErasureProposal, by: str, sides: Iterable[str], now: datetime
) -> str | None:
    """Return why a person cannot confirm a proposal; None: they can."""
    if now >= proposal.ends:
        return (
            f"the proposal expired at {proposal.ends:%Y-%m-%d %H:%M} UTC; propose the "
            "erasure again: driftloop erase"
        )
    if is_same_person(by, proposal.proposed_by):
        return f"{by} has proposed it; another person has to confirm"
    if any(mine != theirs for mine in sides for theirs in proposal.sides):
        return None
    held = " and ".join(proposal.sides)
    other = " or ".join(side for side in SIDES if [side] != proposal.sides)
    return f"{proposal.proposed_by} proposed it as {held}; {other} has to confirm"


def note(session: Session, event: ErasureProposed) -> None:
    """Store a proposal as it was read from the log."""
    session.add(
        ErasureProposal(
            proposal_id=event.meta.id,
            pipeline=event.pipeline,
            subject=event.subject,
            proposed_by=event.proposed_by,
            sides=list(event.sides),
            reason=event.reason,
            expires_at=event.expires_at,
        )
    )


def note_confirmed(session: Session, event: ErasureRequested) -> None:
    """Store that a proposal was confirmed."""
    if event.proposal_id is not None:
        by = event.confirmed_by or event.requested_by
        session.merge(ErasureConfirmation(proposal_id=event.proposal_id, by=by))


def confirmed_by(session: Session, proposal_id: str) -> str | None:
    """Return who confirmed a proposal; None: nobody yet."""
    found = session.get(ErasureConfirmation, proposal_id)
    return found.by if found else None


def proposals_of(session: Session, pipeline: str) -> list[ErasureProposal]:
    """Return a pipeline's proposals, the one that ends last first."""
    query = select(ErasureProposal).where(ErasureProposal.pipeline == pipeline)
    return list(session.exec(query.order_by(col(ErasureProposal.expires_at).desc())))
