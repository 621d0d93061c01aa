"""The federations that the trainer knows, and the updates of the round that is open."""

import json
from datetime import datetime

from driftloop.contracts.base import Meta, origin_from
from driftloop.contracts.events import FederatedUpdateSubmitted
from driftloop.contracts.federated import FederatedEncoding, FederationRules
from driftloop.trainer.federated.core import Round, Update
from sqlalchemy import func
from sqlmodel import Field, Session, SQLModel, col, select


class Federation(SQLModel, table=True):
    """One federation; JSON columns hold contract values.

    Attributes
    ----------
    state : "open"; "waiting" for rows to measure the result on; "done" or "failed".
    sites : JSON list of all sites that took part so far.
    row_count : of the sites of the newest round, as they say it.
    """

    __tablename__ = "trainer_federation"
    id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    state: str = "open"
    requested_by: str
    request_id: str
    origin: str
    rules: str
    encoding: str
    number: int = 1
    weights: str
    opened_at: str
    deadline: str
    sites: str = "[]"
    row_count: int = 0

    def how(self) -> FederationRules:
        return FederationRules.model_validate_json(self.rules)

    def encoded(self) -> FederatedEncoding:
        return FederatedEncoding.model_validate_json(self.encoding)

    def meta(self) -> Meta:
        """Where the request came from, so that its chain goes on."""
        return origin_from(json.loads(self.origin))

    def now(self) -> Round:
        return Round(
            self.number,
            tuple(json.loads(self.weights)),
            datetime.fromisoformat(self.opened_at),
            datetime.fromisoformat(self.deadline),
        )

    def set_round(self, now: Round) -> None:
        self.number, self.weights = now.number, json.dumps(now.weights)
        self.opened_at = now.opened_at.isoformat()
        self.deadline = now.deadline.isoformat()


class FederationUpdate(SQLModel, table=True):
    """An update of a round that is open, or that opens later in a replay of the log.

    Attributes
    ----------
    reason, detail : why it does not count; its numbers are not kept then.
    """

    __tablename__ = "trainer_federation_update"
    id: int | None = Field(default=None, primary_key=True)
    federation_id: str = Field(index=True)
    round: int
    site: str
    sent_at: str
    row_count: int
    numbers: str
    reason: str | None = None
    detail: str = ""

    @classmethod
    def of(cls, event: FederatedUpdateSubmitted) -> "FederationUpdate":
        return cls(
            federation_id=event.federation_id,
            round=event.round,
            site=event.site,
            sent_at=event.meta.time.isoformat(),
            row_count=event.row_count,
            numbers=json.dumps(event.update),
        )

    def value(self) -> Update:
        return Update(
            self.site,
            self.round,
            datetime.fromisoformat(self.sent_at),
            self.row_count,
            tuple(json.loads(self.numbers)),
        )


def waiting_federations(session: Session, pipeline: str) -> list[Federation]:
    """Return the federations of a pipeline whose result is still to be measured."""
    query = (
        select(Federation)
        .where(Federation.pipeline == pipeline, Federation.state == "waiting")
        .order_by(col(Federation.opened_at), col(Federation.id))
    )
    return list(session.exec(query))


def updates_of(
    session: Session, federation_id: str, number: int
) -> list[FederationUpdate]:
    """Return a round's updates in the order in which they came."""
    query = (
        select(FederationUpdate)
        .where(
            FederationUpdate.federation_id == federation_id,
            FederationUpdate.round == number,
        )
        .order_by(col(FederationUpdate.id))
    )
    return list(session.exec(query))


def kept_count(session: Session, federation_id: str | None) -> int:
    """Return how many updates of a federation are kept; None: of all."""
    query = select(func.count(col(FederationUpdate.id)))
    if federation_id is not None:
        query = query.where(FederationUpdate.federation_id == federation_id)
    return session.exec(query).one()
