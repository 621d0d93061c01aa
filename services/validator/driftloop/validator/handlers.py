"""Batches are checked against the pipeline's contract and appended to its dataset.

What happens when the process is killed:

- before the append: nothing has happened, the batch comes again;
- between the append and the database's commit: the batch comes again, its rows are
  checked with the same result (the database has not moved), the append finds its
  own position in the table and adds nothing, and the commit stores what the first
  run would have stored;
- after the commit, before the events are published: the outbox publishes them;
- after publishing, before Kafka's commit: the batch comes again and is a repeat.

One thing can differ in the second case: a pipeline file that was applied between
the two runs. Then the events follow the new file and the dataset keeps the rows of
the old one for this batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.attachments import MAX_PAYLOAD_BYTES
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchIngested,
    BatchRejected,
    BatchValidated,
    DatasetVersioned,
    MaintenanceRequested,
    ModelTrained,
    RowKind,
    SchemaAccepted,
    Span,
    SubjectErased,
    TrainingCancelled,
    TrainingFailed,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import row_keys
from driftloop.runtime.errors import Retry
from driftloop.runtime.handlers import Chunk, Deps, EventHandler
from driftloop.runtime.payloads import PayloadStore
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.state import StateView
from driftloop.validator.core import Checked, Contract, check, contract_of
from driftloop.validator.custom import CustomChecks
from driftloop.validator.datasets import Datasets, Position
from driftloop.validator.erasure import note_erasure
from driftloop.validator.inference import Learned, learn
from driftloop.validator.inspecting import Inspector
from driftloop.validator.maintenance import AreReferencesKnown, Maintenance
from driftloop.validator.metrics import LABELS, ROWS, STEPS, WARNINGS
from driftloop.validator.payloads import Payloads, references
from driftloop.validator.schemas import Review
from driftloop.validator.tables import (
    LABEL,
    OBSERVATION,
    known_rows,
    load_learned,
    note_job,
    note_rows,
    save_learned,
)
from driftloop.validator.values import Mask


@dataclass(frozen=True)
class ValidatorDeps(Deps):
    """What the handler uses besides its transaction."""

    datasets: Datasets
    custom: CustomChecks = field(default_factory=CustomChecks)
    schemas: StateView[SchemaAccepted] = field(
        default_factory=lambda: StateView(SchemaAccepted)
    )
    are_references_known: AreReferencesKnown = lambda _: False
    payloads: PayloadStore | None = None
    recorded: Recorded = field(default_factory=Recorded)


def on_batch_ingested(event: BatchIngested, deps: ValidatorDeps) -> Iterator[Event]:
    """Quarantine what breaks the contract; the rest is a new dataset version.

    A batch that was judged with a database that is lost has its verdict: it is judged
    anew for what that teaches, and nothing else is said of its rows.
    """
    is_judged = deps.recorded.has_answered(event.meta.id)
    for told in _judged(event, deps):
        if not (is_judged and isinstance(told, BatchValidated | BatchRejected)):
            yield told


def _judged(event: BatchIngested, deps: ValidatorDeps) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    review = _review(event, spec, deps)
    learned = review.learned
    contracts = _contracts(spec, learned)
    contract = contracts[event.kind]
    keys = row_keys(event.pipeline, event.rows.column("id").to_pylist())
    with STEPS.labels("ids").time():
        known = known_rows(deps.session, list(dict.fromkeys(keys)))
    stored = _stored(keys, known)
    inspector = payloads = None
    if event.kind == "observations":
        payloads = _payloads(event, spec, deps)
        features = spec.data.features or learned.features
        inspector = Inspector(event, spec, deps.session, features, deps.custom)
    with STEPS.labels("checks").time():
        checked = check(event.rows, contract, stored, inspector, payloads)
        if inspector is not None:
            good = checked.good
            inspector.accept(good and good.drop_columns([*contract.attachments]))
    good_count = checked.good.num_rows if checked.good else 0
    bad_count = event.rows.num_rows - good_count
    ROWS.labels(event.pipeline, event.kind, "validated").inc(good_count)
    ROWS.labels(event.pipeline, event.kind, "quarantined").inc(bad_count)
    for warning in checked.warnings:
        WARNINGS.labels(event.pipeline, warning.check).inc()
    versioned, upkeep = None, _maintenance(event, spec, deps)
    if checked.good is not None:
        if event.kind == "observations":
            upkeep.note_batch(_span(checked.good).start)
        if upkeep.drop():
            known = known_rows(deps.session, list(dict.fromkeys(keys)))
        if checked.bad is not None:
            keys = row_keys(event.pipeline, checked.good.column("id").to_pylist())
        versioned = _append(
            event, checked.good, keys, contracts, known, deps, bad_count
        )
        yield BatchValidated(
            pipeline=event.pipeline,
            shard=event.shard,
            kind=event.kind,
            row_count=good_count,
            span=_span(checked.good),
            quarantined_count=bad_count,
            watermark=event.watermark,
            warnings=checked.warnings,
        ).with_rows(checked.good)
    if checked.bad is not None:
        yield _rejected(event, checked, checked.bad)
    if versioned is not None:
        yield versioned
    yield from review.events(versioned, deps.datasets)
    if versioned is not None:
        upkeep.note_version(versioned.dataset)
        yield from upkeep.finish()


def on_maintenance_requested(
    event: MaintenanceRequested, deps: ValidatorDeps
) -> Iterator[Event]:
    """Let old rows and files go now, and merge small files."""
    upkeep = _maintenance(event, deps.pipeline(event.pipeline), deps)
    upkeep.drop()
    deps.datasets.compact(event.pipeline)
    yield from upkeep.finish(event.requested_by)


def on_training_started(event: TrainingStarted, deps: ValidatorDeps) -> Iterator[Event]:
    """Keep the version that a training refers to."""
    note_job(deps.session, event.pipeline, event.job_id, event.dataset)
    yield from ()


def on_training_failed(event: TrainingFailed, deps: ValidatorDeps) -> Iterator[Event]:
    """Let the version of a training that made no model go."""
    note_job(deps.session, event.pipeline, event.job_id, has_failed=True)
    yield from ()


def on_training_cancelled(
    event: TrainingCancelled, deps: ValidatorDeps
) -> Iterator[Event]:
    """Let the version of a training that was called off go."""
    note_job(deps.session, event.pipeline, event.job_id, has_failed=True)
    yield from ()


def on_model_trained(event: ModelTrained, deps: ValidatorDeps) -> Iterator[Event]:
    """Keep the version that a model refers to for ever."""
    note_job(deps.session, event.pipeline, event.job_id, event.dataset, has_model=True)
    yield from ()


def on_subject_erased(event: SubjectErased, deps: ValidatorDeps) -> Iterator[Event]:
    """Have it looked for which versions and trainings have rows of the subject."""
    note_erasure(deps.session, event)
    yield from ()


def _maintenance(
    event: BatchIngested | MaintenanceRequested,
    spec: PipelineSpec,
    deps: ValidatorDeps,
) -> Maintenance:
    return Maintenance(
        event.pipeline,
        spec.data.retention,
        event.meta.time,
        deps.session,
        deps.datasets,
        deps.are_references_known,
    )


def _payloads(
    event: BatchIngested, spec: PipelineSpec, deps: ValidatorDeps
) -> Payloads | None:
    """Look at what the batch refers to: its URIs and digests came with it.

    Raises
    ------
    Retry
        When the store is away.
    """
    attachments = spec.data.attachments
    if not attachments:
        return None
    if deps.payloads is None:
        raise Retry("there is no store of payloads")
    own = (r for r in references(event.rows, [*attachments]) if r.pipeline == spec.name)
    found = deps.payloads.look_at_all(own, MAX_PAYLOAD_BYTES)
    return Payloads(spec.name, attachments, found)


def _review(event: BatchIngested, spec: PipelineSpec, deps: ValidatorDeps) -> Review:
    learned = _learned(event, spec, deps)
    accepted = deps.schemas.get(event.pipeline)
    return Review(event, spec, learned, accepted, deps.session)


def _learned(event: BatchIngested, spec: PipelineSpec, deps: ValidatorDeps) -> Learned:
    before = load_learned(deps.session, event.pipeline)
    after = learn(before, event.rows, spec, event.kind)
    if after != before:
        before = load_learned(deps.session, event.pipeline, hold=True)
        after = learn(before, event.rows, spec, event.kind)
        save_learned(deps.session, event.pipeline, after)
    return after


def _contracts(spec: PipelineSpec, learned: Learned) -> dict[RowKind, Contract]:
    features = spec.data.features or learned.features
    classes = spec.data.classes
    if spec.task == "binary" and classes is None and len(learned.classes) == 2:
        classes = list(learned.classes)
    return {
        kind: contract_of(spec, kind, features, classes)
        for kind in ("observations", "labels")
    }


def _stored(keys: Sequence[bytes], known: Mapping[bytes, int]) -> Mask | None:
    """Return which rows' ids the dataset has; None: no row's, as mostly."""
    if not known:
        return None
    return np.array([bool(known.get(key, 0) & OBSERVATION) for key in keys])


def _append(
    event: BatchIngested,
    rows: pa.RecordBatch,
    keys: Sequence[bytes],
    contracts: dict[RowKind, Contract],
    known: dict[bytes, int],
    deps: ValidatorDeps,
    quarantined_count: int,
) -> DatasetVersioned:
    meta = event.meta
    with STEPS.labels("dataset").time():
        dataset = deps.datasets.append(
            event.pipeline,
            event.kind,
            rows,
            Position(meta.topic, meta.partition, meta.offset),
            {kind: contract.schema for kind, contract in contracts.items()},
        )
    target = rows.column(contracts["labels"].columns[0].name)
    own = OBSERVATION if event.kind == "observations" else 0
    found = dict.fromkeys(keys, own | LABEL)
    if target.null_count:
        lacking = zip(keys, target.is_null().to_pylist(), strict=True)
        found |= {key: own for key, lacks_target in lacking if lacks_target}
    with STEPS.labels("ids").time():
        count = note_rows(deps.session, event.pipeline, found, known)
    early, met = _early_and_met(event.kind, found, known)
    LABELS.labels(event.pipeline, "before_row").inc(early)
    LABELS.labels(event.pipeline, "met_by_row").inc(met)
    return DatasetVersioned(
        pipeline=event.pipeline,
        kind=event.kind,
        dataset=dataset,
        added_count=rows.num_rows,
        observation_count=count.observation_count,
        label_count=count.label_count,
        early_label_count=early,
        met_label_count=met,
        span=_span(rows),
        source=event.shard,
        quarantined_count=quarantined_count,
        columns={column.name: str(column.type) for column in rows.schema},
    )


def _early_and_met(
    kind: RowKind, found: Mapping[bytes, int], known: Mapping[bytes, int]
) -> tuple[int, int]:
    """Count labels that came before their row, and rows that found theirs waiting."""
    before = [has for key, has in known.items() if key in found]
    if kind == "labels":
        return len(found) - sum(bool(has & OBSERVATION) for has in before), 0
    return 0, sum(bool(has & LABEL) and not has & OBSERVATION for has in before)


def _rejected(
    event: BatchIngested, checked: Checked, bad: pa.RecordBatch
) -> BatchRejected:
    return BatchRejected(
        pipeline=event.pipeline,
        shard=event.shard,
        kind=event.kind,
        row_count=bad.num_rows,
        span=_span(bad),
        batch_row_count=event.rows.num_rows,
        reasons=checked.reasons,
        warnings=[] if checked.good else checked.warnings,
    ).with_rows(bad)


def _span(rows: pa.RecordBatch) -> Span:
    ends = pc.min_max(rows.column("event_time"))
    return Span(start=ends["min"].as_py(), end=ends["max"].as_py())


HANDLERS: list[EventHandler | Chunk] = [
    on_batch_ingested,
    on_maintenance_requested,
    on_subject_erased,
    on_training_started,
    on_training_failed,
    on_training_cancelled,
    on_model_trained,
]
