"""What the validator remembers: learned contracts, ids in the dataset, counts."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from driftloop.contracts.events import DatasetRef, RowKind
from driftloop.contracts.pipeline import Feature
from driftloop.validator.inference import Learned
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, Session, SQLModel, col, select

LOOKUP_KEYS = 5_000
"""Ids asked for in one statement; SQLite takes at most 32,766."""


class LearnedRow(SQLModel, table=True):
    """A contract that was inferred; see ``inference.py``."""

    __tablename__ = "validator_learned"
    pipeline: str = Field(primary_key=True)
    features: str = "{}"
    classes: str = "[]"
    row_count: int = 0


class KnownRow(SQLModel, table=True):
    """An id in a dataset, by ``row_keys``."""

    __tablename__ = "validator_known"
    __table_args__ = {"sqlite_with_rowid": False}
    key: bytes = Field(primary_key=True)
    has: int


class DatasetCount(SQLModel, table=True):
    """How many rows a dataset has, and of how many the target is known."""

    __tablename__ = "validator_dataset_count"
    pipeline: str = Field(primary_key=True)
    observation_count: int = 0
    label_count: int = 0


class ReferenceRow(SQLModel, table=True):
    """A pipeline's reference, or the rows it is to be made of; ``reference.py``.

    Attributes
    ----------
    made_for : digest of what the pipeline file said about it.
    rows : an Arrow stream while they are not enough.
    """

    __tablename__ = "validator_reference"
    pipeline: str = Field(primary_key=True)
    made_for: str = ""
    rows: bytes = b""
    profile: str | None = None


class SchemaRow(SQLModel, table=True):
    """The life of a pipeline's schema; see ``schemas.py``.

    Attributes
    ----------
    proposed, accepted : columns as JSON; accepted: only without a person.
    base : digest of the schema in force that ``proposed`` builds on.
    told : what was told already, JSON: to the condition of an alert, or nothing.
    """

    __tablename__ = "validator_schema"
    pipeline: str = Field(primary_key=True)
    proposed_version: int = 0
    proposed: str = ""
    base: str = ""
    accepted_version: int = 0
    accepted: str = ""
    told: str = "[]"


class ShardRow(SQLModel, table=True):
    """What checks remember of a shard; see ``inspection.ShardState``."""

    __tablename__ = "validator_shard"
    pipeline: str = Field(primary_key=True)
    shard: str = Field(primary_key=True)
    made_for: str = ""
    state: str = ""


class MaintenanceRow(SQLModel, table=True):
    """How far a dataset's maintenance is; see ``maintenance.py``.

    Attributes
    ----------
    newest : begin of the newest batch, event time.
    cutoff : rows before it were dropped.
    vacuumed_at : time of the event with which old files went last.
    observations, labels : versions that were told last; None: none was.
    """

    __tablename__ = "validator_maintenance"
    pipeline: str = Field(primary_key=True)
    newest: str = ""
    cutoff: str = ""
    vacuumed_at: str = ""
    observations: int | None = None
    labels: int | None = None


class JobRow(SQLModel, table=True):
    """The dataset version that a training refers to.

    Attributes
    ----------
    has_failed : it has made no model, so nothing refers to the version.
    """

    __tablename__ = "validator_job"
    pipeline: str = Field(primary_key=True)
    job_id: str = Field(primary_key=True)
    observations: int | None = None
    labels: int | None = None
    has_model: bool = False
    has_failed: bool = False


TABLES = (
    LearnedRow, KnownRow, DatasetCount, ReferenceRow, ShardRow, SchemaRow,
    MaintenanceRow, JobRow,
)  # fmt: skip


OBSERVATION, LABEL, UNIQUE, DROPPED = 1, 2, 4, 8
BOTH = OBSERVATION | LABEL
"""What a dataset has of an id, as bits: plain numbers, for there are many. ``UNIQUE``
marks the key of a ``unique`` check instead. ``DROPPED``: its row was there and went
with its age; the id stays taken."""


Row = TypeVar("Row", LearnedRow, DatasetCount, ReferenceRow)


def held(session: Session, kind: type[Row], pipeline: str) -> Row:
    """Return a pipeline's row, a new one where there is none, to be changed.

    It is held to the transaction's end: replicas that have batches of one pipeline
    at the same time take turns, and no change is lost. (An SQLite transaction holds
    the whole database anyway.)
    """
    row = session.get(kind, pipeline, with_for_update=True, populate_existing=True)
    if row is None and session.connection().dialect.name == "postgresql":
        values = kind(pipeline=pipeline).model_dump()
        session.execute(insert(kind).values(values).on_conflict_do_nothing())
        row = session.get(kind, pipeline, with_for_update=True)
    if row is None:
        row = kind(pipeline=pipeline)
        session.add(row)
    return row


def load_learned(session: Session, pipeline: str, *, hold: bool = False) -> Learned:
    """Return what the data of a pipeline have said so far; ``hold``: to add to it."""
    get = held if hold else Session.get
    row = get(session, LearnedRow, pipeline)
    if row is None:
        return Learned()
    features = {
        name: Feature.model_validate(feature)
        for name, feature in json.loads(row.features).items()
    }
    return Learned(features, tuple(json.loads(row.classes)), row.row_count)


def save_learned(session: Session, pipeline: str, learned: Learned) -> None:
    """Write down what the data have said, as part of the transaction."""
    row = held(session, LearnedRow, pipeline)
    features = {name: f.model_dump() for name, f in learned.features.items()}
    row.features = json.dumps(features)
    row.classes = json.dumps(learned.classes)
    row.row_count = learned.row_count


def known_rows(session: Session, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Return what the dataset has of those ids that it knows."""
    connection = session.connection()
    mark = _mark(connection)
    known: dict[bytes, int] = {}
    for start in range(0, len(keys), LOOKUP_KEYS):
        part = tuple(keys[start : start + LOOKUP_KEYS])
        marks = ",".join([mark] * len(part))
        query = f"SELECT key, has FROM validator_known WHERE key IN ({marks})"  # noqa: S608 - marks alone
        known |= {key: has for key, has in connection.exec_driver_sql(query, part)}  # noqa: C416 - rows are no pairs to mypy
    return known


def note_rows(
    session: Session,
    pipeline: str,
    found: Mapping[bytes, int],
    known: Mapping[bytes, int],
) -> DatasetCount:
    """Write down ids that are now in the dataset and return the new counts.

    Parameters
    ----------
    found : what a batch has of each of its ids.
    known : what the dataset had of them.
    """
    added = {key: has for key, has in found.items() if key not in known}
    changed = {
        key: after
        for key, before in known.items()
        if (after := before | found.get(key, 0)) != before
    }
    new = Counter(added.values())
    observations, labels = new[OBSERVATION] + new[BOTH], new[BOTH]
    for key, after in changed.items():
        observations += after & ~known[key] & OBSERVATION
        labels += after == BOTH
    connection = session.connection()
    mark = _mark(connection)
    if added:
        connection.exec_driver_sql(
            f"INSERT INTO validator_known (key, has) VALUES ({mark}, {mark})",  # noqa: S608 - marks alone
            list(added.items()),
        )
    if changed:
        connection.exec_driver_sql(
            f"UPDATE validator_known SET has = {mark} WHERE key = {mark}",  # noqa: S608 - marks alone
            [(after, key) for key, after in changed.items()],
        )
    count = held(session, DatasetCount, pipeline)
    count.observation_count += observations
    count.label_count += labels
    return count


def note_dropped(session: Session, pipeline: str, keys: Sequence[bytes]) -> None:
    """Take rows that went with their age out of the counts, each once."""
    count = held(session, DatasetCount, pipeline)
    connection = session.connection()
    mark = _mark(connection)
    for start in range(0, len(keys), LOOKUP_KEYS):
        known = known_rows(session, keys[start : start + LOOKUP_KEYS])
        gone = {k: h for k, h in known.items() if h & OBSERVATION and not h & DROPPED}
        if gone:
            connection.exec_driver_sql(
                f"UPDATE validator_known SET has = {mark} WHERE key = {mark}",  # noqa: S608 - marks alone
                [(has | DROPPED, key) for key, has in gone.items()],
            )
        count.observation_count -= len(gone)
        count.label_count -= sum(has == BOTH for has in gone.values())


def note_job(
    session: Session,
    pipeline: str,
    job_id: str,
    dataset: DatasetRef | None = None,
    *,
    has_model: bool = False,
    has_failed: bool = False,
) -> None:
    """Write down what is known of a training; its events may come in any order."""
    row = session.get(JobRow, (pipeline, job_id))
    row = row or JobRow(pipeline=pipeline, job_id=job_id)
    if dataset is not None:
        row.observations = dataset.observations.version
        row.labels = dataset.labels.version if dataset.labels else None
    row.has_model = row.has_model or has_model
    row.has_failed = row.has_failed or has_failed
    session.add(row)


def referred_versions(
    session: Session, told: MaintenanceRow, kind: RowKind
) -> set[int]:
    """Return versions of a table that a training, or the last event, refers to."""
    rows: list[JobRow | MaintenanceRow] = [told]
    rows += referring_jobs(session, told.pipeline)
    found = {getattr(row, kind) for row in rows}
    return {version for version in found if version is not None}


def referring_jobs(session: Session, pipeline: str) -> list[JobRow]:
    """Return the trainings that refer to a version: all but those that failed."""
    query = select(JobRow).where(JobRow.pipeline == pipeline)
    rows = session.exec(query.order_by(col(JobRow.job_id)))
    return [job for job in rows if job.has_model or not job.has_failed]


def note_keys(session: Session, keys: Sequence[bytes]) -> None:
    """Write down new keys that no later row may have."""
    if not keys:
        return
    connection = session.connection()
    mark = _mark(connection)
    connection.exec_driver_sql(
        f"INSERT INTO validator_known (has, key) VALUES ({mark}, {mark}) "  # noqa: S608 - marks alone
        "ON CONFLICT DO NOTHING",
        [(UNIQUE, key) for key in keys],
    )


def _mark(connection: Connection) -> str:
    """Return the driver's placeholder: these statements go to it as they are."""
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"
