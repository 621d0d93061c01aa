"""What runners at the edge told: one row for each version that one has answered with.

Each row follows from ``edge-reported``, which is kept for ever.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from driftloop.contracts.events import EdgeReported
from sqlalchemy import JSON, BigInteger
from sqlmodel import Column, Field, Session, SQLModel, col, select

SUMMED = (
    "request_count",
    "refused_count",
    "row_count",
    "error_count",
    "unfamiliar_row_count",
    "sampled_row_count",
    "lost_report_count",
    "lost_row_count",
)


class RegistryEdge(SQLModel, table=True):
    """What a runner did with one version, over all its reports.

    Attributes
    ----------
    first_at, last_at : begin of its first report, end of its last, by its own clock.
    last : the last report, as it came.
    position : counts the reports of the runner; the version with the greatest one is
        that which answers now.
    """

    __tablename__ = "registry_edge"
    pipeline: str = Field(primary_key=True)
    edge: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    package_digest: str
    first_at: datetime
    last_at: datetime
    position: int
    report_count: int = 0
    request_count: int = Field(default=0, sa_type=BigInteger)
    refused_count: int = Field(default=0, sa_type=BigInteger)
    row_count: int = Field(default=0, sa_type=BigInteger)
    error_count: int = Field(default=0, sa_type=BigInteger)
    unfamiliar_row_count: int = Field(default=0, sa_type=BigInteger)
    sampled_row_count: int = Field(default=0, sa_type=BigInteger)
    lost_report_count: int = Field(default=0, sa_type=BigInteger)
    lost_row_count: int = Field(default=0, sa_type=BigInteger)
    last: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


TABLES: list[type[SQLModel]] = [RegistryEdge]


def note(session: Session, event: EdgeReported) -> bool:
    """Add a report to what is known; return whether its runner has a new version."""
    rows = _of_runner(session, event.pipeline, event.edge)
    position = max((row.position for row in rows), default=0) + 1
    row = next((row for row in rows if row.version == event.version), None)
    is_new = row is None
    if row is None:
        row = RegistryEdge(
            pipeline=event.pipeline,
            edge=event.edge,
            version=event.version,
            package_digest=event.package_digest,
            first_at=event.since,
            last_at=event.until,
            position=position,
            last={},
        )
    is_new = is_new or row.package_digest != event.package_digest
    row.package_digest = event.package_digest
    row.last_at, row.position = event.until, position
    row.report_count += 1
    for name in SUMMED:
        setattr(row, name, getattr(row, name) + getattr(event, name))
    row.last = event.model_dump(mode="json", exclude={"pipeline"})
    session.add(row)
    session.flush()
    return is_new


def _of_runner(session: Session, pipeline: str, edge: str) -> Sequence[RegistryEdge]:
    query = select(RegistryEdge).where(
        RegistryEdge.pipeline == pipeline, RegistryEdge.edge == edge
    )
    return session.exec(query).all()


def runners_of(session: Session, pipelines: Collection[str]) -> list[RegistryEdge]:
    """Return what is known of the runners of some pipelines, version by version."""
    query = select(RegistryEdge).where(col(RegistryEdge.pipeline).in_(list(pipelines)))
    return list(session.exec(query))


def answering(rows: Sequence[RegistryEdge]) -> list[RegistryEdge]:
    """Return of each runner the row of the version that it told of last."""
    newest: dict[tuple[str, str], RegistryEdge] = {}
    for row in rows:
        before = newest.get((row.pipeline, row.edge))
        if before is None or row.position > before.position:
            newest[row.pipeline, row.edge] = row
    return [newest[key] for key in sorted(newest)]
