"""What the registry does at each event: store the fact, tell what follows from it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from driftloop.contracts.base import Event, Value, chain_of
from driftloop.contracts.events import (
    ApprovalGiven,
    ModelDeployed,
    ModelRegistered,
    ModelRolledBack,
    ModelTrained,
)
from driftloop.registry import core, tables
from driftloop.registry.gate import Cost, PackageFinding, judge
from driftloop.registry.ledger import State
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.registry.tables import (
    RegistryDecision,
    RegistryServingChange,
    RegistryTrial,
    RegistryVersion,
)
from driftloop.runtime import handlers as runtime
from driftloop.runtime.errors import Skip

Inspect = Callable[[ModelTrained], PackageFinding]
"""Opens the package an event names and tries its model."""


@dataclass(frozen=True)
class Deps(runtime.Deps):
    """What the registry's handlers use.

    Attributes
    ----------
    inspect : opens a package.
    recorded : verdicts that are in the log already.
    """

    inspect: Inspect
    recorded: RecordedVerdicts


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
        newest = max(tables.last_version(session, name), deps.recorded.newest(name))
        finding = deps.inspect(event)
        version, cost = newest + 1, finding.cost
        gate = judge(event.evaluation, spec.gate, finding)
        rule = core.approval_rule(spec, gate)
    row = RegistryVersion(
        pipeline=name,
        version=version,
        job_id=event.job_id,
        event_id=event.meta.id,
        at=event.meta.time,
        trained=_stored(event),
        gate=[_stored(check) for check in gate],
        rule={"role": rule.role, "people": rule.people} if rule else None,
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
    standing = tables.ledger_of(session, name).standings[version]
    yield from core.consequences(event, "registered", standing)


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
        )
    )
    session.flush()
    row = session.get(RegistryVersion, (name, event.version))
    if before is None or row is None:
        return  # the log is read anew: it counts when the version is registered
    state: State = before.state
    after = tables.ledger_of(session, name).standings[event.version]
    trained = ModelTrained.model_validate(row.trained)
    yield from core.consequences(trained, state, after)


def on_model_deployed(event: ModelDeployed, deps: Deps) -> Iterator[Event]:
    deps.session.add(
        RegistryServingChange(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            version=event.version,
            at=event.meta.time,
            generation=event.generation,
            kind="deployed",
            rollout_id=event.rollout_id,
        )
    )
    return iter(())


def on_model_rolled_back(event: ModelRolledBack, deps: Deps) -> Iterator[Event]:
    deps.session.add(
        RegistryServingChange(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            version=event.version,
            at=event.meta.time,
            generation=event.generation,
            kind="rolled_back",
            rollout_id=event.rollout_id,
            restored=event.restored.version if event.restored else None,
            reason=event.reason,
        )
    )
    return iter(())


HANDLERS: list[runtime.EventHandler] = [
    on_model_trained,
    on_approval_given,
    on_model_deployed,
    on_model_rolled_back,
]
