"""The schema in force, and what is proposed and told when data leave it.

A pipeline file that names features is the schema itself. For others it is the last
``schema-accepted``; before the first one, what was learned (``inference.py``).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

import polars as pl
import pyarrow as pa
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    BatchIngested,
    DatasetVersioned,
    SchemaAccepted,
    SchemaProposed,
)
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.schema import SchemaColumn, features_of
from driftloop.runtime.data.inference import schema_of
from driftloop.runtime.data.profile import TECHNICAL, profile_of, profiles_of
from driftloop.validator.datasets import Datasets
from driftloop.validator.evolution import Change, changes_of, new_columns, present
from driftloop.validator.inference import FIRST_ROWS, Learned
from driftloop.validator.tables import SchemaRow
from sqlmodel import Session

AUTOMATIC = "data.evolution: accept"
"""Who accepts where no person is asked."""

Columns = dict[str, SchemaColumn]


def columns_from(text: str) -> Columns:
    """Return columns that :func:`columns_json` wrote."""
    stored = json.loads(text) if text else {}
    return {n: SchemaColumn.model_validate(column) for n, column in stored.items()}


def columns_json(columns: Mapping[str, SchemaColumn]) -> str:
    return json.dumps({n: c.model_dump(mode="json") for n, c in columns.items()})


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch and what its review needs."""

    event: BatchIngested
    spec: PipelineSpec
    learned: Learned

    @property
    def is_declared(self) -> bool:
        return bool(self.spec.data.features)

    @property
    def no_features(self) -> set[str]:
        return {self.spec.data.target, *self.spec.data.attachments}

    @property
    def is_automatic(self) -> bool:
        return self.spec.data.evolution == "accept"

    @property
    def is_learning(self) -> bool:
        """Whether columns are still taken up as they come."""
        return not self.is_declared and self.learned.row_count < FIRST_ROWS


class Review:
    """One batch beside the schema in force.

    Made before the batch is checked, as an accepted change holds for it already.

    Attributes
    ----------
    learned : what was learned, with the features in force in place of its own.
    """

    def __init__(
        self,
        event: BatchIngested,
        spec: PipelineSpec,
        learned: Learned,
        accepted: SchemaAccepted | None,
        session: Session,
    ) -> None:
        self._batch = _Batch(event, spec, learned)
        self._session = session
        row = session.get(SchemaRow, event.pipeline)
        self._row = row or SchemaRow(pipeline=event.pipeline)
        self._events: list[Event] = []
        self._has_schema = False
        in_force = self._accepted(accepted)
        if in_force and not self._batch.is_declared:
            self._has_schema = True
            self.learned = replace(learned, features=features_of(in_force))
        else:
            self.learned = learned
        if event.kind == "observations":
            self._look()

    def _accepted(self, told: SchemaAccepted | None) -> Columns:
        """Return the columns that a person accepted last, or that went by themselves.

        What this process accepted is followed a moment later; where a person decides,
        only the person counts.
        """
        own = self._row.accepted_version if self._batch.is_automatic else 0
        if told is not None and told.version >= own:
            return told.columns
        return columns_from(self._row.accepted) if own else {}

    def _look(self) -> None:
        batch, spec = self._batch, self._batch.spec
        features = spec.data.features or self.learned.features
        rows = batch.event.rows
        changes = [
            change
            for change in changes_of(rows, features, batch.no_features)
            if not _is_private(change, spec)
        ]
        if batch.is_learning and not self._has_schema:
            changes = [c for c in changes if c.told.kind == "missing_column"]
        conditions = _conditions(self._row.told)
        before = set(conditions)
        known = before - present(rows, features)
        fresh = [change for change in changes if change.keys - known]
        told = known.union(*(change.keys for change in changes))
        alerts = [(c, self._alert(c)) for c in fresh if c.feature is None]
        if told != before:
            over = [conditions.pop(key) for key in sorted(before - told)]
            self._events += [self._over(condition) for condition in over if condition]
            now = {key: alert.condition for c, alert in alerts for key in c.keys}
            kept = {key: now.get(key, conditions.get(key, "")) for key in sorted(told)}
            self._row.told = json.dumps(kept)
            self._session.add(self._row)
        self._events += [alert for _, alert in alerts]
        if any(c.feature for c in fresh):
            self._propose_changes(changes, features)

    def _alert(self, change: Change) -> AlertRaised:
        event, told = self._batch.event, change.told
        return AlertRaised(
            pipeline=event.pipeline,
            condition=f"{told.kind}/{told.column}/{event.span.start:%Y-%m-%d}",
            severity="warning",
            title=f"{told.column} does not come any more",
            detail=f"{told.column} {told.detail}",
            owner=self._batch.spec.owner,
            can_end=True,
        )

    def _over(self, condition: str) -> AlertResolved:
        event = self._batch.event
        return AlertResolved(
            pipeline=event.pipeline,
            condition=condition,
            at=event.span.start,
            why=f"It comes again, in rows from {event.span.start:%Y-%m-%d %H:%M}.",
            owner=self._batch.spec.owner,
        )

    def _propose_changes(
        self, changes: list[Change], features: Mapping[str, Feature]
    ) -> None:
        base = self._pending(features)
        rows = self._batch.event.rows
        arrays = new_columns(rows, features, self._batch.no_features)
        columns = dict(base)
        for change in changes:
            if change.feature is not None:
                columns[change.told.column] = _merged(change, columns, arrays)
        told = [change.told for change in changes if change.feature is not None]
        event = SchemaProposed(
            pipeline=self._batch.event.pipeline,
            version=self._next_version(columns),
            columns=columns,
            changes=told,
            row_count=rows.num_rows,
        )
        self._say(event)

    def _pending(self, features: Mapping[str, Feature]) -> Columns:
        """Return what is proposed already, where it still builds on what holds."""
        digest = _digest(features)
        if self._row.base == digest and self._row.proposed:
            return columns_from(self._row.proposed)
        self._row.base = digest
        return {name: SchemaColumn(feature=f) for name, f in features.items()}

    def _next_version(self, columns: Columns) -> int:
        self._row.proposed_version += 1
        self._row.proposed = columns_json(columns)
        self._session.add(self._row)
        return self._row.proposed_version

    def _say(self, proposed: SchemaProposed) -> None:
        self._events.append(proposed)
        if not self._batch.is_automatic:
            return
        self._row.accepted_version = proposed.version
        self._row.accepted = columns_json(proposed.columns)
        self.learned = replace(self.learned, features=features_of(proposed.columns))
        self._has_schema = True
        self._events.append(
            SchemaAccepted(
                pipeline=proposed.pipeline,
                version=proposed.version,
                columns=proposed.columns,
                accepted_by=AUTOMATIC,
            )
        )

    def events(
        self, versioned: DatasetVersioned | None, datasets: Datasets
    ) -> Iterator[Event]:
        """Return what there is to tell, once the batch is in the dataset."""
        if (
            versioned is not None
            and not self._batch.is_declared
            and not self._batch.is_learning
            and not self._has_schema
            and self._row.proposed_version == 0
        ):
            self._propose_first(versioned, datasets)
        yield from self._events

    def _propose_first(self, versioned: DatasetVersioned, datasets: Datasets) -> None:
        rows = datasets.read(versioned.dataset.observations)
        left_out = {*TECHNICAL, self._batch.spec.data.target}
        inferred = schema_of(profiles_of(rows, left_out), not self._batch.is_automatic)
        columns = {
            name: inferred[name] for name in self.learned.features if name in inferred
        }
        if not columns:
            return
        self._row.base = _digest(self.learned.features)
        event = SchemaProposed(
            pipeline=versioned.pipeline,
            version=self._next_version(columns),
            columns=columns,
            changes=[],
            row_count=rows.height,
        )
        self._say(event)


def _is_private(change: Change, spec: PipelineSpec) -> bool:
    """Whether a proposal would list values of a column with a privacy rule.

    Proposals are kept for ever, and what such a column is stands in the file.
    """
    return change.feature is not None and change.told.column in spec.data.privacy


def _merged(
    change: Change, columns: Columns, arrays: Mapping[str, pa.Array]
) -> SchemaColumn:
    """Return a column's rules with a change in them, and with those proposed before."""
    name = change.told.column
    assert change.feature is not None  # noqa: S101 - the caller has looked
    if change.told.kind == "new_column":
        rows = pl.Series(name, pl.from_arrow(arrays[name]))
        return SchemaColumn(feature=change.feature, profile=profile_of(rows))
    column = columns[name]
    if change.told.kind == "type_widened":
        update: dict[str, object] = {"type": "number"}
    else:
        values = column.feature.values or []
        update = {"values": [*values, *(v for v in change.values if v not in values)]}
    feature = column.feature.model_copy(update=update)
    return column.model_copy(update={"feature": feature})


def _digest(features: Mapping[str, Feature]) -> str:
    text = json.dumps({n: f.model_dump(mode="json") for n, f in features.items()})
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _conditions(told: str) -> dict[str, str]:
    """Return what was told, with the condition of the alert about it; empty: none."""
    found = json.loads(told)
    return found if isinstance(found, dict) else dict.fromkeys(found, "")
