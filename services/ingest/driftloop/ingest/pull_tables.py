"""How far pull sources are, and which replica fetches from each."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, select


class PulledObject(SQLModel, table=True):
    """A file or object, and how many of its messages Kafka has.

    Attributes
    ----------
    fingerprint : what tells cheaply whether it may have changed.
    digest : sha256 of the bytes that were published.
    problem : why it could not be read; empty: it could.
    """

    __tablename__ = "ingest_pulled_object"
    pipeline: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    fingerprint: str
    digest: str
    next_message: int = 0
    is_done: bool = False
    problem: str = ""


class PulledTable(SQLModel, table=True):
    """The high-water mark of an SQL table.

    Attributes
    ----------
    mark : type and value of the cursor of the last row, JSON.
    ties : digests of the ids that were published with this value, JSON.
    """

    __tablename__ = "ingest_pulled_table"
    pipeline: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    mark: str
    ties: str


class PullLease(SQLModel, table=True):
    """Who fetches from a source, and until when unless renewed."""

    __tablename__ = "ingest_pull_lease"
    pipeline: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    owner: str
    epoch: int = 0
    expires_at: float


PULL_TABLES = (PulledObject, PulledTable, PullLease)


class LeaseLostError(Exception):
    """Another replica fetches from the source by now; nothing was stored."""


@dataclass(frozen=True)
class Held:
    """One source, held by this process; stores positions while it is.

    Each taking has a new epoch: whoever has an older one (it was frozen, say, and woke
    later) can store nothing. What it published meanwhile has ids that are known.
    """

    engine: Engine
    pipeline: str
    source: str
    epoch: int
    seconds: float

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Store a position, and hold the source for a while longer.

        Raises
        ------
        LeaseLostError
            When another replica has taken the source.
        """
        with Session(self.engine) as session:
            key = (self.pipeline, self.source)
            row = session.get(PullLease, key, with_for_update=True)
            if row is None or row.epoch != self.epoch:
                raise LeaseLostError(f"{self.pipeline}/{self.source}")
            row.expires_at = time.time() + self.seconds
            yield session
            session.commit()

    def renew(self) -> None:
        with self.transaction():
            pass

    def objects(self) -> dict[str, PulledObject]:
        """Return what is known of the source's objects, by name."""
        with Session(self.engine, expire_on_commit=False) as session:
            query = select(PulledObject).where(
                PulledObject.pipeline == self.pipeline,
                PulledObject.source == self.source,
            )
            return {row.name: row for row in session.exec(query)}

    def put_object(self, name: str, **values: Any) -> None:
        with self.transaction() as session:
            row = PulledObject(
                pipeline=self.pipeline, source=self.source, name=name, **values
            )
            session.merge(row)

    def mark(self) -> tuple[Any, frozenset[str]]:
        """Return an SQL table's position and the ids at it; None: the beginning."""
        with Session(self.engine) as session:
            row = session.get(PulledTable, (self.pipeline, self.source))
            if row is None:
                return None, frozenset()
            return json.loads(row.mark), frozenset(json.loads(row.ties))

    def put_mark(self, mark: Any, ties: frozenset[str]) -> None:
        with self.transaction() as session:
            session.merge(
                PulledTable(
                    pipeline=self.pipeline,
                    source=self.source,
                    mark=json.dumps(mark),
                    ties=json.dumps(sorted(ties)),
                )
            )


def take(
    engine: Engine, pipeline: str, source: str, owner: str, seconds: float
) -> Held | None:
    """Take a source that is free or was ours; None while another one has it.

    Parameters
    ----------
    owner : stable name of this replica; after a restart it goes on at once.
    """
    now = time.time()
    try:
        with Session(engine) as session:
            row = session.get(PullLease, (pipeline, source), with_for_update=True)
            if row is None:
                row = PullLease(
                    pipeline=pipeline, source=source, owner=owner, expires_at=0
                )
            elif row.owner != owner and row.expires_at >= now:
                return None
            row.owner, row.epoch = owner, row.epoch + 1
            row.expires_at = now + seconds
            session.add(row)
            session.commit()
            return Held(engine, pipeline, source, row.epoch, seconds)
    except IntegrityError:  # another replica was first
        return None


def give_back(held: Held) -> None:
    """Let another replica take the source at once."""
    with suppress(LeaseLostError), held.transaction() as session:
        row = session.get(PullLease, (held.pipeline, held.source))
        if row is not None:
            row.expires_at = 0
