"""The loop's own versions as MLflow's clients see them: rows beside the clients' own.

They follow from the facts of ``ledger.py`` and are written in the transaction that
stores a fact, so that searches find both kinds with one statement.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from driftloop.contracts.approval import in_words
from driftloop.contracts.describe import compared
from driftloop.contracts.events import ModelTrained
from driftloop.registry import tables
from driftloop.registry.ledger import Ledger, Standing, State
from driftloop.registry.mlflow.apply import revision_of
from driftloop.registry.mlflow.columns import LONG, PACKED
from driftloop.registry.tables import RegistryVersion
from sqlalchemy import Engine
from sqlmodel import Field, Session, SQLModel, col, select

PREFIX = "driftloop."
"""Of the tags that the loop writes; clients write none of them on a pipeline."""
PLACE = "mlflow-artifacts:/pipelines/"
"""Where clients read the files of the loop's versions; see ``packages.py``."""
STAGES: dict[State, str] = {
    "registered": "None",
    "rejected": "None",
    "expired": "None",
    "awaiting_approval": "Staging",
    "approved": "Staging",
    "deployed": "Production",
    "superseded": "Archived",
    "rolled_back": "Archived",
}


class ShownVersion(SQLModel, table=True):
    """A version of a pipeline."""

    __tablename__ = "registry_shown_version"
    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_type=LONG)
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)
    source: str
    stage: str
    status_message: str = ""


class ShownTag(SQLModel, table=True):
    """What the loop says about a version."""

    __tablename__ = "registry_shown_tag"
    __table_args__ = PACKED
    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: str


class ShownAlias(SQLModel, table=True):
    """What one of the loop's aliases means."""

    __tablename__ = "registry_shown_alias"
    __table_args__ = PACKED
    name: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: int = Field(sa_type=LONG)


class FailedSubmission(SQLModel, table=True):
    """A model that was registered under a pipeline's name and cannot be served."""

    __tablename__ = "registry_failed_submission"
    job_id: str = Field(primary_key=True)
    pipeline: str
    error: str


SHOWN_TABLES: list[type[SQLModel]] = [
    ShownVersion,
    ShownTag,
    ShownAlias,
    FailedSubmission,
]


def show(session: Session, pipeline: str) -> None:
    """Write what follows from a pipeline's facts; only rows that differ are touched."""
    session.flush()
    rows = tables.versions_of(session, pipeline)
    book = tables.ledger_of(session, pipeline)
    touched = {entry.version: entry.at for entry in book.history}
    wanted: list[SQLModel] = []
    for row in rows:
        standing = book.standings[row.version]
        wanted.append(_version(row, standing, touched.get(row.version)))
        wanted += [
            ShownTag(name=pipeline, version=row.version, key=PREFIX + key, value=value)
            for key, value in _tags(row, standing)
        ]
    wanted += _aliases(pipeline, book)
    for table in (ShownVersion, ShownTag, ShownAlias):
        _replace(session, table, pipeline, [w for w in wanted if type(w) is table])


def show_all(engine: Engine) -> None:
    """Write what is missing, in a database from before versions were shown."""
    with Session(engine) as session:
        revision_of(session.connection())  # one replica does it
        for pipeline in tables.pipelines_of(session):
            show(session, pipeline)
        session.commit()


def _replace(
    session: Session, table: type[Any], pipeline: str, wanted: list[SQLModel]
) -> None:
    stored = session.exec(select(table).where(col(table.name) == pipeline)).all()
    names = [key.name for key in table.__table__.primary_key.columns]

    def key_of(row: Any) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in names)

    before = {key_of(row): row for row in stored}
    for row in wanted:
        known = before.pop(key_of(row), None)
        if known is None:
            session.add(row)
            continue
        for name, value in row.model_dump().items():
            if getattr(known, name) != value:
                setattr(known, name, value)
    for row in before.values():
        session.delete(row)
    session.flush()


def _version(
    row: RegistryVersion, standing: Standing, touched: datetime | None
) -> ShownVersion:
    created = row.fact().at
    return ShownVersion(
        name=row.pipeline,
        version=row.version,
        created_ms=_ms(created),
        updated_ms=_ms(touched or created),
        source=f"{PLACE}{row.pipeline}/{row.version}",
        stage=STAGES[standing.state],
        status_message="; ".join(standing.reasons),
    )


def _tags(row: RegistryVersion, standing: Standing) -> Iterator[tuple[str, str]]:
    trained = ModelTrained.model_validate(row.trained)
    failed = row.fact().failures
    yield "state", standing.state
    yield "gate", f"failed: {'; '.join(failed)}" if failed else "passed"
    if standing.rule is not None:
        yield "approval", in_words(standing.rule.seats)
    if standing.decided_by:
        yield "decided_by", ", ".join(standing.decided_by)
    yield "algorithm", trained.algorithm
    yield "comparison", compared(trained.evaluation)
    yield "trigger", trained.trigger.reason
    yield "job_id", row.job_id
    yield "package", row.digest


def _aliases(pipeline: str, book: Ledger) -> list[SQLModel]:
    return [
        ShownAlias(name=pipeline, alias=alias, version=version)
        for alias, version in book.aliases.items()
    ]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
