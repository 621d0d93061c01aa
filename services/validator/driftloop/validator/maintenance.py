"""A dataset's upkeep by ``data.retention``: old rows go, and files nobody needs.

Rows go in event time, before the append of the batch that makes them too old, so that
a replay drops what the live run dropped. Files go by the clock, once a day: a version
can be read for as long as it is the newest, for some days more, and for ever if a
training that has not failed refers to it. Which ones these are comes from the log, and
as long as the log is not read to its end, as after the loss of the database, no file
goes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.contracts.events import (
    DatasetMaintained,
    DatasetRef,
    RowKind,
    TableMaintained,
    VacuumOutcome,
)
from driftloop.contracts.pipeline import Retention
from driftloop.contracts.rows import row_keys
from driftloop.runtime.data.vacuum import VacuumError, cutoff_of, plan_vacuum, vacuum
from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from driftloop.validator.datasets import KINDS, Datasets
from driftloop.validator.retention import drop_rows, dropped_ids, first_wanted_label
from driftloop.validator.tables import (
    MaintenanceRow,
    note_dropped,
    referred_versions,
)
from sqlmodel import Session

VACUUM_EVERY = timedelta(days=1)
AreReferencesKnown = Callable[[Session], bool]
"""Whether every training that the log holds has been read."""
logger = log(__name__)


@dataclass
class Maintenance:
    """One pipeline's upkeep in the transaction of one message.

    Attributes
    ----------
    now : time of the message.
    """

    pipeline: str
    rules: Retention
    now: datetime
    session: Session
    datasets: Datasets
    are_references_known: AreReferencesKnown
    _done: dict[RowKind, TableMaintained] = field(default_factory=dict)
    _cutoff: datetime | None = None

    def __post_init__(self) -> None:
        row = self.session.get(MaintenanceRow, self.pipeline)
        self._row = row or MaintenanceRow(pipeline=self.pipeline)
        self.session.add(self._row)

    def note_batch(self, start: datetime) -> None:
        """Take note of observations that came; those of the future are as of now.

        Parameters
        ----------
        start : oldest event time of the batch: one wrong time in it does no harm.
        """
        moment = min(start, self.now).astimezone(UTC).isoformat()
        self._row.newest = max(self._row.newest, moment)

    def note_version(self, dataset: DatasetRef) -> None:
        """Take note of the version that is told: it stays until a newer one is."""
        self._row.observations = dataset.observations.version
        self._row.labels = dataset.labels.version if dataset.labels else None

    def drop(self) -> bool:
        """Let rows go that have become too old.

        Returns
        -------
        bool
            Whether any went, now or by another replica a moment ago: what was known
            of ids may have changed.

        Raises
        ------
        Retry
            When rows went and the store does not say which.
        """
        if self.rules.keep_days is None or not self._row.newest:
            return False
        newest = datetime.fromisoformat(self._row.newest)
        cutoff = cutoff_of(newest, self.rules.keep_days)
        if self._is_done(cutoff):
            return False
        self.session.flush()
        self.session.refresh(self._row, with_for_update=True)  # one replica at a time
        if self._is_done(cutoff):
            return True
        try:
            return self._drop(cutoff)
        except (DeltaError, OSError) as error:
            # The next batch tries again; the append needs no more than it did.
            logger.warning("old rows stay", pipeline=self.pipeline, error=str(error))
            self.datasets.forget()
            return False

    def _is_done(self, cutoff: datetime) -> bool:
        done = self._row.cutoff
        return bool(done) and cutoff <= datetime.fromisoformat(done)

    def _drop(self, cutoff: datetime) -> bool:
        observations = self.datasets.table(self.pipeline, "observations")
        if observations is None:
            return False
        count = 0
        if drop_rows(observations, cutoff, None):
            ids = self._ids(observations, cutoff)
            note_dropped(self.session, self.pipeline, row_keys(self.pipeline, ids))
            count += self._note("observations", observations, len(ids))
        labels = self.datasets.table(self.pipeline, "labels")
        if labels is not None:
            until = first_wanted_label(observations, labels, cutoff)
            if drop_rows(labels, cutoff, until):
                count += self._note("labels", labels, len(self._ids(labels, cutoff)))
        self._row.cutoff = cutoff.isoformat()
        if count:
            self._cutoff = cutoff
        return bool(count)

    def _ids(self, table: DeltaTable, cutoff: datetime) -> list[str]:
        try:
            return dropped_ids(table, self.datasets.options, cutoff)
        except (DeltaError, OSError) as error:
            self.datasets.forget()
            raise Retry(f"datasets: {error}") from error

    def _note(self, kind: RowKind, table: DeltaTable, count: int) -> int:
        self._done[kind] = _maintained(table, dropped_count=count)
        return count

    def finish(self, requested_by: str | None = None) -> Iterator[DatasetMaintained]:
        """Let files go that are not needed, where it is time, and tell what was done.

        Parameters
        ----------
        requested_by : somebody who wants it now, and an answer in any case.
        """
        outcome = self._vacuum(is_now=requested_by is not None)
        did = any(t.dropped_count or t.vacuumed_count for t in self._done.values())
        if requested_by is None and not did:
            return
        for kind in KINDS:
            table = None if kind in self._done else self._table(kind)
            if table is not None:
                self._done[kind] = _maintained(table)
        if "observations" in self._done:
            yield DatasetMaintained(
                pipeline=self.pipeline,
                observations=self._done["observations"],
                labels=self._done.get("labels"),
                cutoff=self._cutoff,
                vacuum=outcome,
                requested_by=requested_by,
            )

    def _table(self, kind: RowKind) -> DeltaTable | None:
        try:
            return self.datasets.table(self.pipeline, kind)
        except (DeltaError, OSError) as error:
            self.datasets.forget()
            raise Retry(f"datasets: {error}") from error

    def _vacuum(self, *, is_now: bool) -> VacuumOutcome:
        days = self.rules.keep_versions_days
        if days is None:
            return "not_wanted"
        last = self._row.vacuumed_at
        if not last:
            self._row.vacuumed_at = self.now.isoformat()  # there is nothing old yet
        is_due = last and self.now >= datetime.fromisoformat(last) + VACUUM_EVERY
        # Which rows went is in the version before; it stays until it is stored here.
        if not is_now and (not is_due or self._cutoff is not None):
            return "not_due"
        is_told = self._row.observations is not None  # else: a new database
        if not is_told or not self.are_references_known(self.session):
            return "references_unknown"
        try:
            for kind in KINDS:
                self._vacuum_table(kind, timedelta(days=days))
        except (DeltaError, OSError, VacuumError) as error:
            logger.error("vacuum failed", pipeline=self.pipeline, error=str(error))
            self.datasets.forget()
            return "failed"
        finally:  # also after a failure: not with every batch
            self._row.vacuumed_at = self.now.isoformat()
        return "done"

    def _vacuum_table(self, kind: RowKind, age: timedelta) -> None:
        table = self.datasets.table(self.pipeline, kind)
        if table is None:
            return
        referred = referred_versions(self.session, self._row, kind)
        plan = plan_vacuum(
            table, self.datasets.options, referred, age, datetime.now(UTC)
        )
        vacuum(table, plan, age)
        before = self._done.get(kind)
        self._done[kind] = _maintained(
            table,
            dropped_count=before.dropped_count if before else 0,
            vacuumed_count=len(plan.sizes),
            freed_bytes=sum(plan.sizes.values()),
            kept_from=plan.kept_from,
            kept=list(plan.kept),
        )


def _maintained(table: DeltaTable, **done: Any) -> TableMaintained:
    return TableMaintained(
        version=table.version(), file_count=len(table.file_uris()), **done
    )
