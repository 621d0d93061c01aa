"""Where rows of an erased subject are: versions of the dataset, and who refers to them.

A row is the subject's when a text of it was encrypted for them, or is a token that
stood for their id. The rows stay; what was encrypted in them nobody can read any more.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.contracts.base import chain_of, origin_from
from driftloop.contracts.events import (
    ErasureTraced,
    RowKind,
    Span,
    SubjectErased,
    TracedJob,
    TracedVersion,
)
from driftloop.contracts.privacy import ENCRYPTED
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.outbox import Cause
from driftloop.runtime.service import Runtime
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message
from driftloop.validator.datasets import KINDS, Datasets
from driftloop.validator.maintenance import AreReferencesKnown
from driftloop.validator.settings import ValidatorSettings
from driftloop.validator.tables import MaintenanceRow, referred_versions, referring_jobs
from sqlalchemy import JSON
from sqlmodel import Column, Field, Session, SQLModel, col, select

if TYPE_CHECKING:
    import pyarrow.dataset as ds  # imports pandas, which the service starts without

POLL_S = 1.0
RETRY_S = 5.0
LOG_TIMEOUT_S = 30.0
TIME = "event_time"
logger = log(__name__)


@dataclass(slots=True)
class Finds:
    """How many rows were found, and their event times."""

    row_count: int = 0
    times: list[datetime] = field(default_factory=list)

    def add(self, other: "Finds") -> None:
        self.row_count += other.row_count
        self.times += other.times


class ErasureRow(SQLModel, table=True):
    """An erased subject whose rows are to be looked for.

    Attributes
    ----------
    event : the whole ``subject-erased``.
    origin : its place in its chain, and the id of the request.
    """

    __tablename__ = "validator_erasure"
    event_id: str = Field(primary_key=True)
    event: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    origin: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    is_traced: bool = Field(default=False, index=True)


def note_erasure(session: Session, event: SubjectErased) -> None:
    """Write down that there is something to look for; :class:`Tracing` does it."""
    origin = {**chain_of(event.meta), "request": event.meta.causation_id}
    session.add(
        ErasureRow(
            event_id=event.meta.id, event=event.model_dump(mode="json"), origin=origin
        )
    )


class Tracing:
    """Looks for what was noted, in a thread of its own: it may take long.

    It waits until every training that the log holds is known, which the handlers
    see to meanwhile. What the log says of an erasure already is not said again, as a
    dataset that has gone on would give another answer.
    """

    def __init__(
        self,
        runtime: Runtime[ValidatorSettings],
        datasets: Datasets,
        are_references_known: AreReferencesKnown,
    ) -> None:
        self._runtime = runtime
        self._datasets = datasets
        self._are_references_known = are_references_known

    def run(self) -> None:
        """Look again and again, until the process stops."""
        while not self._runtime.stopping.wait(POLL_S):
            if not self._runtime.recorded.complete.is_set():
                continue  # what was traced before is not known yet
            try:
                self._look()
            except Retry as error:
                logger.warning("erasures wait", why=str(error))
                self._runtime.stopping.wait(RETRY_S)

    def _look(self) -> None:
        with Session(self._runtime.engine) as session:
            query = select(ErasureRow).where(col(ErasureRow.is_traced).is_(False))
            rows = list(session.exec(query))
            if not rows or not self._are_references_known(session):
                return
        told = self._told()
        for row in rows:
            event = SubjectErased.model_validate(row.event)
            event = event.with_meta(origin_from(row.origin))
            erasure_id = row.origin["request"] or row.event_id
            found = None
            if erasure_id not in told:
                with Session(self._runtime.engine) as session:
                    found = trace(event, erasure_id, session, self._datasets)
            cause = Cause.of(event.meta)
            with self._runtime.outbox.unit(cause) as (session, events):
                kept = session.get_one(ErasureRow, row.event_id, with_for_update=True)
                if found is not None and not kept.is_traced:
                    events.append(found)
                kept.is_traced = True

    def _told(self) -> set[str]:
        """Return the erasures whose traces are in the log.

        Raises
        ------
        Retry
            When the log cannot be read.
        """
        told: set[str] = set()

        def take(message: Message) -> None:
            with suppress(Reject):
                event = decode(message, self._runtime.store)
                assert isinstance(event, ErasureTraced)  # noqa: S101 - its topic says so
                told.add(event.erasure_id)

        settings = self._runtime.settings
        topics = [ErasureTraced.topic()]
        follower = LogFollower(settings.broker, topics, take, settings.kafka_config)
        if not follower.read_to_end(LOG_TIMEOUT_S):
            raise Retry("the broker does not say what was traced before")
        return told


def trace(
    event: SubjectErased, erasure_id: str, session: Session, datasets: Datasets
) -> ErasureTraced:
    """Look for a subject's rows in each version that is referred to, and the newest.

    Raises
    ------
    Retry
        When the store is away.
    """
    name = event.pipeline
    told = session.get(MaintenanceRow, name) or MaintenanceRow(pipeline=name)
    wanted = {kind: sorted(referred_versions(session, told, kind)) for kind in KINDS}
    referring = [
        TracedJob(job_id=job.job_id, observations=job.observations, labels=job.labels)
        for job in referring_jobs(session, name)
        if job.observations is not None
    ]
    session.rollback()  # what follows takes long, and reads files alone
    search = Search(event, datasets)
    found: dict[tuple[RowKind, int], TracedVersion] = {}
    for kind in KINDS:
        for version in wanted[kind]:
            traced = search.version(kind, version)
            if traced is not None:
                found[kind, version] = traced
    jobs = [
        job
        for job in referring
        if ("observations", job.observations) in found
        or ("labels", job.labels) in found
    ]
    return ErasureTraced(
        pipeline=name,
        erasure_id=erasure_id,
        subject=event.subject,
        requested_by=event.requested_by,
        erased_at=event.meta.time,
        key_count=event.key_count,
        token_count=event.token_count,
        payload_count=event.payload_count,
        versions=list(found.values()),
        jobs=jobs,
    )


class Search:
    """Looks into each file once, in however many versions it is."""

    def __init__(self, event: SubjectErased, datasets: Datasets) -> None:
        self._pipeline = event.pipeline
        quoted = [f'"{token}"' for token in event.tokens]  # within the JSON of extra
        self._marks = [f"{ENCRYPTED}:{event.subject}:", *quoted]
        self._tokens = event.tokens
        self._datasets = datasets
        self._files: dict[str, Finds] = {}

    def version(self, kind: RowKind, version: int) -> TracedVersion | None:
        """Return what a version has of the subject; None: nothing, or it is gone."""
        found = Finds()
        try:
            table = self._table(kind, version)
            if table is None:
                return None
            for fragment in table.to_pyarrow_dataset().get_fragments():
                found.add(self._file(kind, fragment))
        except FileNotFoundError:
            logger.warning("version is gone", kind=kind, version=version)
            return None
        except (DeltaError, OSError) as error:
            raise Retry(f"datasets: {error}") from error
        if not found.row_count:
            return None
        span = Span(start=min(found.times), end=max(found.times))
        return TracedVersion(
            kind=kind, version=version, row_count=found.row_count, span=span
        )

    def _table(self, kind: RowKind, version: int) -> DeltaTable | None:
        newest = self._datasets.table(self._pipeline, kind)
        if newest is None:
            return None
        return DeltaTable(
            newest.table_uri, version=version, storage_options=self._datasets.options
        )

    def _file(self, kind: RowKind, fragment: "ds.Fragment") -> Finds:
        place = f"{kind}/{fragment.path}"
        if place not in self._files:
            found = Finds()
            for batch in _batches(fragment):
                found.add(self._rows(batch))
            self._files[place] = found
        return self._files[place]

    def _rows(self, batch: pa.RecordBatch) -> Finds:
        theirs = pa.array([False] * batch.num_rows)
        for name in batch.schema.names:
            if name == TIME:
                continue
            column = batch.column(name)
            found = [pc.match_substring(column, mark) for mark in self._marks]
            found.append(pc.is_in(column, pa.array(self._tokens, column.type)))
            for marked in found:
                theirs = pc.or_(theirs, pc.fill_null(marked, False))
        times = batch.column(TIME).filter(theirs)
        ends = pc.min_max(times)
        if not len(times):
            return Finds()
        return Finds(len(times), [ends["min"].as_py(), ends["max"].as_py()])


def _batches(fragment: "ds.Fragment") -> Iterator[pa.RecordBatch]:
    """Return a file's texts and times."""
    schema = fragment.physical_schema
    texts: Sequence[str] = [
        column.name
        for column in schema
        if pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
        or column.name == TIME
    ]
    yield from fragment.to_batches(columns=texts)
