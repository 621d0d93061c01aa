"""Checks within a message's transaction: what they remember is read and stored here.

A batch that comes again after a kill finds what the first run found, as nothing was
committed; so a reference is the same whatever happened while it was taken.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import pyarrow as pa
from driftloop.contracts.checks import Unique, active_checks
from driftloop.contracts.events import BatchIngested
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.rows import row_keys
from driftloop.validator.columns import Failure
from driftloop.validator.custom import CustomChecks
from driftloop.validator.inspection import ShardState, Surroundings, inspect
from driftloop.validator.reference import Reference, reference_of
from driftloop.validator.rules import unique_texts
from driftloop.validator.tables import (
    ReferenceRow,
    ShardRow,
    held,
    known_rows,
    note_keys,
)
from sqlmodel import Session


class Inspector:
    """The checks of a pipeline on one batch of observations.

    Call it with the rows that keep the contract, then tell it by :meth:`accept`
    which rows went on.
    """

    def __init__(
        self,
        event: BatchIngested,
        spec: PipelineSpec,
        session: Session,
        features: Mapping[str, Feature],
        imported: CustomChecks,
    ) -> None:
        self._features = features
        self._event, self._spec, self._session = event, spec, session
        self._imported = imported
        self._checks = active_checks(spec.checks)
        self._unique = [rule for rule in self._checks if isinstance(rule, Unique)]
        self._row = _reference_row(session, spec)
        self._shard = session.get(ShardRow, (event.pipeline, event.shard))

    def __call__(self, rows: pa.RecordBatch) -> list[Failure]:
        """Return what the checks find; the state they leave is stored."""
        shard = self._shard
        fresh = shard is None or shard.made_for != self._row.made_for
        state = (
            ShardState()
            if shard is None or fresh
            else ShardState.model_validate_json(shard.state)
        )
        profile = self._row.profile
        around = Surroundings(
            features=self._features,
            came=self._event.rows.num_rows,
            arrived_at=self._event.meta.time,
            reference=Reference.model_validate_json(profile) if profile else None,
            known=self._known,
            imported=self._imported,
        )
        failures, after = inspect(rows, self._checks, state, around)
        if shard is None:
            shard = ShardRow(pipeline=self._event.pipeline, shard=self._event.shard)
        shard.made_for = self._row.made_for
        shard.state = after.model_dump_json()
        self._session.add(shard)
        return failures

    def accept(self, rows: pa.RecordBatch | None) -> None:
        """Remember rows that went on: unique keys, and the first as the reference."""
        if rows is None:
            return
        for rule in self._unique:
            texts = (text for text in unique_texts(rule, rows) if text is not None)
            note_keys(self._session, self._keys(rule, texts))
        if self._row.profile is None:
            _grow(self._row, rows, self._spec.data.reference_rows)

    def _keys(self, rule: Unique, texts: Iterable[str]) -> list[bytes]:
        scope = "\x1f".join([self._event.pipeline, "unique", *rule.columns])
        return row_keys(scope, texts)

    def _known(self, rule: Unique, texts: Iterable[str]) -> set[str]:
        by_key = {key: t for t in texts for key in self._keys(rule, [t])}
        return {by_key[key] for key in known_rows(self._session, list(by_key))}


def _reference_row(session: Session, spec: PipelineSpec) -> ReferenceRow:
    """Return the pipeline's reference, a new one where the file asks for it."""
    kinds = sorted((name, f.type) for name, f in spec.data.features.items())
    asked = repr((kinds, spec.data.reference_rows)).encode()
    made_for = blake2b(asked, digest_size=8).hexdigest()
    row = session.get(ReferenceRow, spec.name)
    if row is None or row.made_for != made_for or row.profile is None:
        row = held(session, ReferenceRow, spec.name)  # this batch may add to it
    if row.made_for != made_for:
        row.made_for, row.rows, row.profile = made_for, b"", None
    return row


def _grow(row: ReferenceRow, rows: pa.RecordBatch, wanted: int) -> None:
    """Take accepted rows up; with enough of them only their profile is kept."""
    tables = [pa.Table.from_batches([rows])]
    if row.rows:
        tables.insert(0, pa.ipc.open_stream(row.rows).read_all())
    table = pa.concat_tables(tables, promote_options="permissive")
    if table.num_rows >= wanted:
        row.profile = reference_of(table.slice(0, wanted)).model_dump_json()
        row.rows = b""
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    row.rows = sink.getvalue().to_pybytes()
