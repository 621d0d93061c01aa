"""What the registry does at each event: store the fact, tell what follows from it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from driftloop.contracts.base import Event, Value, chain_of
from driftloop.contracts.events import (
    CURED_BY_TRAINING,
    ApprovalExpired,
    ApprovalGiven,
    ApprovalReminded,
    ApprovalRenewed,
    BatchRejected,
    BlobRef,
    CommentChanged,
    DatasetVersioned,
    DriftDetected,
    EdgeReported,
    ErasureSettled,
    ErasureTraced,
    ModelDeployed,
    ModelRegistered,
    ModelRolledBack,
    ModelSubmitted,
    ModelTrained,
    RolloutAdvanced,
    TrackingChanged,
    TrainingCancelled,
    TrainingFailed,
    TrainingSkipped,
    TrainingStarted,
    VerdictOverruled,
)
from driftloop.contracts.identity import AuditNoted
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.contracts.registered import VersionCreated
from driftloop.registry import audit, core, tables
from driftloop.registry.alerting.taking import (
    on_alert_acknowledged,
    on_alert_delivered,
    on_alert_raised,
    on_alert_resolved,
    on_alerts_silenced,
)
from driftloop.registry.comments import tables as comments
from driftloop.registry.deadlines import schedule
from driftloop.registry.edges import following as edges
from driftloop.registry.erasures import following
from driftloop.registry.erasures.tables import RegistryErasure
from driftloop.registry.gate import Cost, PackageFinding, judge
from driftloop.registry.ledger import Standing, State
from driftloop.registry.lineage import tables as lineage
from driftloop.registry.lineage.openlineage import Package, Reporter
from driftloop.registry.mlflow import apply
from driftloop.registry.mlflow.direct import quick
from driftloop.registry.mlflow.registered.pipelines import (
    next_version,
    version_for_job,
)
from driftloop.registry.mlflow.registered.shown import FailedSubmission, show
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.registry.tables import (
    RegistryDecision,
    RegistryExpiry,
    RegistryReminder,
    RegistryRenewal,
    RegistryServingChange,
    RegistryTrial,
    RegistryVersion,
)
from driftloop.registry.verdicts import tables as verdicts
from driftloop.runtime import handlers as runtime
from driftloop.runtime.artifacts import ArtifactStore, uri_of
from driftloop.runtime.envelope import decode, sequence_of
from driftloop.runtime.errors import Reject, Retry, Skip
from driftloop.runtime.transport import Message

SUPERSEDED_STEP = "waiting"
"""Of a version that a newer one has overtaken."""
Inspect = Callable[[ModelTrained], PackageFinding]
"""Opens the package an event names and tries its model."""


@dataclass(frozen=True)
class Deps(runtime.Deps):
    """What the registry's handlers use.

    Attributes
    ----------
    inspect : opens a package.
    recorded : verdicts that are in the log already.
    store : of artifacts; large events lie there.
    reporter : tells the chain as OpenLineage.
    has : whether the tables have a revision of what clients of MLflow changed.
    now : the clock that requests for approval begin by.
    """

    inspect: Inspect
    recorded: RecordedVerdicts
    store: ArtifactStore
    reporter: Reporter
    has: Callable[[int], bool]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def on_model_trained(event: ModelTrained, deps: Deps) -> Iterator[Event]:
    session, name = deps.session, event.pipeline
    if tables.version_of_job(session, name, event.job_id) is not None:
        raise Skip("job_already_registered")
    spec = deps.pipeline(name)
    recorded = deps.recorded.of_job(name, event.job_id)
    cost: Cost | None = None
    if recorded:
        version, gate, rule = recorded.version, recorded.gate, recorded.rule
    else:
        version = _version_of(event, deps)
        finding = deps.inspect(event)
        cost = finding.cost
        gate = judge(event.evaluation, spec.gate, finding)
        rule = core.approval_rule(spec, gate, deps.now())
    row = RegistryVersion(
        pipeline=name,
        version=version,
        job_id=event.job_id,
        event_id=event.meta.id,
        at=event.meta.time,
        trained=_stored(event),
        gate=[_stored(check) for check in gate],
        rule=tables.rule_of(rule) if rule else None,
        origin=chain_of(event.meta),
        latency_p99_ms=cost.p99_ms if cost else None,
    )
    session.add(row)
    if cost:
        session.add(RegistryTrial(pipeline=name, version=version, **asdict(cost)))
    session.flush()
    yield ModelRegistered(
        pipeline=name,
        version=version,
        job_id=event.job_id,
        package=event.package,
        algorithm=event.algorithm,
        evaluation=event.evaluation,
        gate=gate,
    )
    yield from _followed(row, "registered", deps)
    lineage.note_training(session, event)
    yield from deps.reporter.trained(event, version, gate)
    yield from following.follow(session, name, deps.recorded)


def _version_of(event: ModelTrained, deps: Deps) -> int:
    """Return the version that a model becomes: as it was registered, or the next.

    Raises
    ------
    Retry
        When a person registered it and that is not read from the log yet.
    """
    connection, name = deps.session.connection(), event.pipeline
    apply.revision_of(connection)  # no client takes the number meanwhile
    registered = version_for_job(connection, name, event.job_id)
    if registered is not None:
        return registered
    if event.trigger.event_type == ModelSubmitted.topic():
        raise Retry(f"the registration of job {event.job_id} is not read yet")
    return max(next_version(connection, name), deps.recorded.newest(name) + 1)


def _failed(event: TrainingFailed | TrainingCancelled, error: str, deps: Deps) -> None:
    """Tell of a model that a person registered why it cannot be served."""
    if event.trigger.event_type == ModelSubmitted.topic():
        deps.session.merge(
            FailedSubmission(job_id=event.job_id, pipeline=event.pipeline, error=error)
        )


def _stored(value: Value) -> dict[str, Any]:
    """Return a value for a JSON column: NaN as text, which PostgreSQL would refuse."""
    content: dict[str, Any] = json.loads(value.model_dump_json())
    return content


def on_approval_given(event: ApprovalGiven, deps: Deps) -> Iterator[Event]:
    """Count a decision; one that does not count is stored with the reason."""
    session, name = deps.session, event.pipeline
    before = tables.ledger_of(session, name).standings.get(event.version)
    session.add(
        RegistryDecision(
            event_id=event.meta.id,
            pipeline=name,
            version=event.version,
            at=event.meta.time,
            decision=event.decision,
            by=event.by,
            reason=event.reason,
            package_digest=event.package_digest,
            request=event.request,
            roles=event.roles,
        )
    )
    session.flush()
    yield from _changed(name, before, event.version, deps)


def on_approval_expired(event: ApprovalExpired, deps: Deps) -> Iterator[Event]:
    """End a request that was not decided in time, and tell people."""
    session, name = deps.session, event.pipeline
    before = tables.ledger_of(session, name).standings.get(event.version)
    session.add(
        RegistryExpiry(
            pipeline=name,
            version=event.version,
            request=event.request,
            event_id=event.meta.id,
            at=event.meta.time,
        )
    )
    session.flush()
    yield core.expiry_alert(event, _owner(name, deps))
    yield from _changed(name, before, event.version, deps)


def on_approval_renewed(event: ApprovalRenewed, deps: Deps) -> Iterator[Event]:
    """Open another request about a version whose last one is over."""
    session, name = deps.session, event.pipeline
    key = (name, event.version, event.request)
    if session.get(RegistryRenewal, key) is not None:
        raise Skip("approval_already_renewed")  # two people asked at once
    before = tables.ledger_of(session, name).standings.get(event.version)
    session.add(
        RegistryRenewal(
            pipeline=name,
            version=event.version,
            request=event.request,
            event_id=event.meta.id,
            at=event.meta.time,
            by=event.requested_by,
            reason=event.reason,
            package_digest=event.package_digest,
            rule=tables.rule_of(core.rule_in(event)),
        )
    )
    session.flush()
    yield core.expiry_over(event, _owner(name, deps))
    yield from _changed(name, before, event.version, deps)


def on_approval_reminded(event: ApprovalReminded, deps: Deps) -> Iterator[Event]:
    """Remember that people were reminded."""
    session, name = deps.session, event.pipeline
    session.add(
        RegistryReminder(
            pipeline=name,
            version=event.version,
            request=event.request,
            number=event.number,
        )
    )
    session.flush()
    standing = tables.ledger_of(session, name).standings.get(event.version)
    if standing is not None:
        schedule(session, name, standing)
    yield from ()


def _changed(
    name: str, before: Standing | None, version: int, deps: Deps
) -> Iterator[Event]:
    """Tell what follows for a version from a fact about its approval."""
    row = deps.session.get(RegistryVersion, (name, version))
    if before is None or row is None:
        return  # the log is read anew: it counts when the version is registered
    yield from _followed(row, before.state, deps)
    yield from following.follow(deps.session, name, deps.recorded)


def _followed(row: RegistryVersion, before: State, deps: Deps) -> Iterator[Event]:
    session, name = deps.session, row.pipeline
    after = tables.ledger_of(session, name).standings[row.version]
    schedule(session, name, after)
    show(session, name)
    trained = ModelTrained.model_validate(row.trained)
    for event in core.consequences(trained, row.fact().rule, before, after):
        if not deps.recorded.has_told(event):
            yield event


def _change(
    event: ModelDeployed | ModelRolledBack | RolloutAdvanced, **fields: Any
) -> RegistryServingChange:
    """Return what an event changes in which versions serve, or may."""
    return RegistryServingChange(
        event_id=event.meta.id,
        pipeline=event.pipeline,
        version=event.version,
        at=event.meta.time,
        rollout_id=event.rollout_id,
        **fields,
    )


def on_model_deployed(event: ModelDeployed, deps: Deps) -> Iterator[Event]:
    deps.session.add(_change(event, kind="deployed", generation=event.generation))
    show(deps.session, event.pipeline)
    return iter(())


def on_model_rolled_back(event: ModelRolledBack, deps: Deps) -> Iterator[Event]:
    change = _change(
        event,
        kind="rolled_back",
        generation=event.generation,
        restored=event.restored.version if event.restored else None,
        reason=event.reason,
    )
    deps.session.add(change)
    show(deps.session, event.pipeline)
    yield from deps.reporter.rolled_back(event)
    yield from edges.take_rollback(event, deps.session, _owner(event.pipeline, deps))


def on_edge_reported(event: EdgeReported, deps: Deps) -> Iterator[Event]:
    """Remember what a runner told; tell people if its version should not answer."""
    yield from edges.take_report(event, deps.session, _owner(event.pipeline, deps))


def _owner(pipeline: str, deps: Deps) -> str | None:
    applied = deps.pipelines.get(pipeline)
    return applied.spec.owner if applied else None


def on_rollout_advanced(event: RolloutAdvanced, deps: Deps) -> Iterator[Event]:
    lineage.note_step(deps.session, event)
    if event.environment != PRODUCTION and event.verdict == "failed":
        _note_stop(event, deps)
    is_new = lineage.is_new_rollout(deps.session, event)
    yield from deps.reporter.rollout(event, _package(event, deps), is_new=is_new)


def _note_stop(event: RolloutAdvanced, deps: Deps) -> None:
    """Remember that a version will not go into service, unless a newer one is first."""
    if event.step == SUPERSEDED_STEP:
        return
    change = _change(
        event,
        kind="stopped",
        generation=0,  # it has no place among the changes of what answers
        reason=f"in {event.environment}: {event.detail}",
    )
    deps.session.add(change)
    show(deps.session, event.pipeline)


def _package(event: RolloutAdvanced, deps: Deps) -> Package | None:
    """Return what a rollout is about; a registry that is built anew asks the log."""
    name, version = event.pipeline, event.version
    recorded = deps.recorded.job_of(name, version)
    if recorded is not None:
        return Package(
            version, recorded.job_id, recorded.package.digest, recorded.algorithm,
            recorded.evaluation,
        )  # fmt: skip
    row = deps.session.get(RegistryVersion, (name, version))
    if row is None:
        return None
    trained = ModelTrained.model_validate(row.trained)
    return Package(
        version, row.job_id, row.digest, trained.algorithm, trained.evaluation
    )


def on_dataset_versioned(event: DatasetVersioned, deps: Deps) -> Iterator[Event]:
    lineage.note_dataset(deps.session, event)
    yield from deps.reporter.versioned(event)


def on_batch_rejected(event: BatchRejected, deps: Deps) -> Iterator[Event]:
    yield from deps.reporter.rejected(event)


def on_drift_detected(event: DriftDetected, deps: Deps) -> Iterator[Event]:
    lineage.note_drift(deps.session, event)
    yield from ()


def on_verdict_overruled(event: VerdictOverruled, deps: Deps) -> Iterator[Event]:
    """Remember what a person said; tell of models that a verdict led to wrongly."""
    verdicts.note(deps.session, event)
    if event.verdict_cause not in CURED_BY_TRAINING or event.cause in CURED_BY_TRAINING:
        return
    book = tables.ledger_of(deps.session, event.pipeline)
    for row in tables.versions_of(deps.session, event.pipeline):
        trained = ModelTrained.model_validate(row.trained)
        if trained.trigger.event_id == event.verdict_id:
            state = book.standings[row.version].state
            owner = _owner(event.pipeline, deps)
            yield core.overruled_alert(event, row.version, state, owner)


def on_training_started(event: TrainingStarted, deps: Deps) -> Iterator[Event]:
    lineage.note_training(deps.session, event)
    yield from deps.reporter.training_started(event)


def on_training_skipped(event: TrainingSkipped, deps: Deps) -> Iterator[Event]:
    lineage.note_skip(deps.session, event)
    yield from ()


def on_training_failed(event: TrainingFailed, deps: Deps) -> Iterator[Event]:
    _failed(event, event.error, deps)
    lineage.note_training(deps.session, event)
    yield from deps.reporter.training_failed(event)
    yield from following.follow(deps.session, event.pipeline, deps.recorded)


def on_training_cancelled(event: TrainingCancelled, deps: Deps) -> Iterator[Event]:
    _failed(event, f"cancelled by {event.cancelled_by}: {event.reason}", deps)
    lineage.note_training(deps.session, event)
    yield from deps.reporter.training_cancelled(event)
    yield from following.follow(deps.session, event.pipeline, deps.recorded)


def on_erasure_traced(event: ErasureTraced, deps: Deps) -> Iterator[Event]:
    """Ask people about the models that have seen an erased subject's rows."""
    if deps.session.get(RegistryErasure, event.erasure_id) is not None:
        raise Skip("erasure_already_traced")
    yield from following.take_traced(event, deps.session, deps.recorded)


def on_erasure_settled(event: ErasureSettled, deps: Deps) -> Iterator[Event]:
    yield from following.take_settled(event, deps.session, deps.recorded)


def on_comment_changed(event: CommentChanged, deps: Deps) -> Iterator[Event]:
    comments.note(deps.session, event)
    yield from ()


def on_audit_noted(event: AuditNoted, deps: Deps) -> Iterator[Event]:
    """Add a note to the audit trail; what concerns an approval is anchored at once."""
    entry = audit.append(deps.session, event)
    if event.action == "approve":
        yield audit.anchor_of(entry)


def take_tracking(
    messages: Sequence[Message], deps: Deps
) -> Iterator[Event | runtime.DeadLetter]:
    """Take what clients of MLflow changed, unless the tables have it already.

    They have it where the request was answered; they lack it when they are built anew.
    """
    changes: list[TrackingChanged] = []
    for message in messages:
        try:
            event = decode(message, deps.store)
        except Reject as error:
            yield runtime.DeadLetter(message, error)
        else:
            assert isinstance(event, TrackingChanged)  # noqa: S101 - its topic says so
            changes.append(event)
    apply.take(quick(deps.session.connection()), changes)
    for event in changes:
        change = event.change
        if isinstance(change, VersionCreated) and change.job_id:
            yield _submitted(change, event.by)


def _submitted(change: VersionCreated, by: str) -> ModelSubmitted:
    """Return what the trainer is told of a model that was registered."""
    digest = change.model_sha256
    return ModelSubmitted(
        pipeline=change.name,
        version=change.version,
        job_id=change.job_id,
        model=BlobRef(uri=uri_of(digest), sha256=digest, size_bytes=change.model_bytes),
        source=change.source,
        submitted_by=by,
    )


def is_known(message: Message, deps: Deps) -> bool:
    """Whether a change is in the tables already and leads to nothing else.

    Asked of each message before it is decoded. A metric may be called as the mark is:
    then it is decoded for nothing.
    """
    revision = sequence_of(message)
    if revision is None or not deps.has(revision):
        return False
    value = message.value or b""
    return VERSION_MARK not in value or NO_JOB_MARK in value


VERSION_MARK = json.dumps(VersionCreated.model_fields["kind"].default).encode()
"""In the bytes of each change that may lead to an event; see :func:`take_tracking`."""
NO_JOB_MARK = b'"job_id":""'
"""In those of a version that belongs to no pipeline. No text in them can hold it: there
a quotation mark has a backslash before it."""

HANDLERS: list[runtime.EventHandler | runtime.Chunk] = [
    on_model_trained,
    on_approval_given,
    on_approval_expired,
    on_approval_renewed,
    on_approval_reminded,
    on_model_deployed,
    on_model_rolled_back,
    on_rollout_advanced,
    on_edge_reported,
    on_dataset_versioned,
    on_batch_rejected,
    on_drift_detected,
    on_verdict_overruled,
    on_training_started,
    on_training_skipped,
    on_training_failed,
    on_training_cancelled,
    on_erasure_traced,
    on_erasure_settled,
    on_comment_changed,
    on_audit_noted,
    on_alert_raised,
    on_alert_resolved,
    on_alert_acknowledged,
    on_alerts_silenced,
    on_alert_delivered,
    runtime.Chunk(TrackingChanged.topic(), take_tracking, is_known),
]
