"""What a registry's database holds, to be compared with what the log says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from driftloop.registry.alerting.tables import RegistryAlertFact
from driftloop.registry.comments.tables import RegistryComment
from driftloop.registry.deadlines import RegistryDue
from driftloop.registry.digests import digests, table_of
from driftloop.registry.edges.tables import RegistryEdge
from driftloop.registry.erasures.tables import TABLES as ERASURE_TABLES
from driftloop.registry.lineage.tables import (
    RegistryDataset,
    RegistryDrift,
    RegistryRollout,
    RegistryRolloutStep,
    RegistrySkip,
    RegistryTraining,
)
from driftloop.registry.mlflow.tables import TABLES as TRACKING_TABLES
from driftloop.registry.tables import (
    RegistryDecision,
    RegistryExpiry,
    RegistryReminder,
    RegistryRenewal,
    RegistryServingChange,
    RegistryVersion,
)
from driftloop.runtime.database import (
    Outbox,
    Unsent,
    Watermark,
    reading_engine,
)
from sqlalchemy import Connection, create_engine, text
from sqlmodel import Session, SQLModel, col, select

FACTS: tuple[type[SQLModel], ...] = (
    RegistryVersion,
    RegistryDecision,
    RegistryExpiry,
    RegistryRenewal,
    RegistryReminder,
    RegistryDue,
    RegistryServingChange,
    RegistryDataset,
    RegistryTraining,
    RegistrySkip,
    RegistryDrift,
    RegistryRollout,
    RegistryRolloutStep,
    RegistryComment,
    RegistryEdge,
    RegistryAlertFact,
    *ERASURE_TABLES,
)
OF_THE_MACHINE = {"registry_version": {"latency_p99_ms"}}
"""Columns that were measured where the registry ran; the log does not hold them. (The
table of trials holds nothing else and is left out as a whole.)"""
ORDER = {
    "registry_decision": ("pipeline", "position"),
    "registry_comment": ("pipeline", "position"),
}
"""Those of a pipeline have an order, those of two pipelines have none."""
_REVISION = text("SELECT revision FROM mlflow_state WHERE singleton = 1")


@dataclass(frozen=True)
class Snapshot:
    """One moment of a database.

    Attributes
    ----------
    digests : of each table whose rows follow from the log.
    revision : the last change by clients of MLflow that it has; 0: none.
    ends : first offset by topic and partition whose effects it does not have.
    unsent : events that it holds and the log may not, in their order.
    """

    digests: dict[str, str]
    revision: int
    ends: dict[tuple[str, int], int]
    unsent: list[Unsent]

    def differing(self, other: "Snapshot") -> list[str]:
        """Return the tables whose rows differ."""
        return sorted(
            name
            for name in self.digests | other.digests
            if self.digests.get(name) != other.digests.get(name)
        )


def snapshot_of(connection: Connection) -> Snapshot:
    """Read what a database holds, in the transaction at hand."""
    tables = [table_of(cls) for cls in (*FACTS, *TRACKING_TABLES)]
    session = Session(connection)
    marks = session.exec(select(Watermark)).all()
    rows = session.exec(select(Outbox).order_by(col(Outbox.position))).all()
    return Snapshot(
        digests(connection, tables, OF_THE_MACHINE, ORDER),
        int(connection.execute(_REVISION).scalar() or 0),
        {(mark.topic, mark.partition): mark.next_offset for mark in marks},
        [Unsent.of(row) for row in rows],
    )


@contextmanager
def one_view(url: str) -> Iterator[Connection]:
    """One moment of a database that others may write to; nothing is changed.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        When it cannot be read.
    """
    plain = create_engine(url, hide_parameters=True)
    engine = reading_engine(plain)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
        plain.dispose()
