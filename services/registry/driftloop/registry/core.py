"""Whether an event is about the package it names, and what each decision leads to.

What a version has to be like is in ``gate.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.approval import Approval, in_words, seats_of
from driftloop.contracts.base import Event
from driftloop.contracts.describe import compared_in_words
from driftloop.contracts.events import (
    AlertRaised,
    ApprovalExpired,
    ApprovalRenewed,
    ApprovalRequested,
    Evaluation,
    GateCheck,
    ModelApproved,
    ModelRejected,
    ModelTrained,
    VerdictOverruled,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.registry.gate import passes
from driftloop.registry.ledger import ApprovalRule, Standing, State

GATE = "gate"
"""Who approved or rejected when no person was asked."""
EXPIRY = "expiry"
"""Who rejected when no person answered in time."""


@dataclass(frozen=True, slots=True)
class SignedFacts:
    """What the signed manifest says, to be compared with the event."""

    pipeline: str
    job_id: str
    evaluation: Evaluation


def disagreement(event: ModelTrained, signed: SignedFacts) -> str | None:
    """Return how an event differs from the package it names; None: not at all.

    The figures that the gate judges are thereby the signed ones.
    """
    claimed = SignedFacts(event.pipeline, event.job_id, event.evaluation)
    for name in ("pipeline", "job_id", "evaluation"):
        if getattr(claimed, name) != getattr(signed, name):
            return f"the event and the signed manifest differ in {name}"
    return None


def approval_rule(
    spec: PipelineSpec, gate: list[GateCheck], now: datetime
) -> ApprovalRule | None:
    """Return who has to say yes, and by when; None: nobody is asked.

    Nobody is asked about a version that did not pass the gate. With ``advise``
    nothing happens without a person, so what such a pipeline trained waits as well.
    """
    if spec.automation == "full" or not passes(gate):
        return None
    return asked_at(spec.rollout.approval, now)


def asked_at(approval: Approval, now: datetime) -> ApprovalRule:
    """Return what a request has to be answered by that is made now."""
    lifetime = approval.lifetime
    return ApprovalRule(
        approval.role,
        approval.people,
        None if lifetime is None else now + lifetime,
        tuple(now + after for after in approval.reminders),
        dict(approval.also),
    )


def rule_in(event: ApprovalRequested | ApprovalRenewed) -> ApprovalRule:
    """Return what an event says a request has to be answered by."""
    return ApprovalRule(
        event.role,
        event.people,
        event.expires_at,
        tuple(event.remind_at),
        dict(event.also),
    )


def loosens(before: PipelineSpec | None, after: PipelineSpec) -> bool:
    """Whether a pipeline file changes who decides, or what a model must be like.

    A new pipeline does that if it lets models go into service by themselves.
    """
    if before is None:
        return after.automation == "full"
    return any(
        getattr(before, name) != getattr(after, name)
        for name in ("automation", "gate", "rollout", "project", "shared_with")
    )


def expiry_alert(event: ApprovalExpired, owner: str | None) -> AlertRaised:
    """Return what people are told when nobody decided in time."""
    said = ", ".join(event.said_yes) or "nobody"
    return AlertRaised(
        pipeline=event.pipeline,
        condition=_expired(event.version, event.request),
        severity="warning",
        title=f"the approval of v{event.version} expired",
        detail=f"until {event.expires_at:%Y-%m-%d %H:%M} UTC {said} said yes, "
        f"{in_words(seats_of(event))} had to; ask again: driftloop request-approval "
        f"{event.pipeline}/{event.version}",
        owner=owner,
        can_end=True,
    )


def expiry_over(event: ApprovalRenewed, owner: str | None) -> AlertResolved:
    """Return what people are told when the question is asked again."""
    return AlertResolved(
        pipeline=event.pipeline,
        condition=_expired(event.version, event.request - 1),
        at=event.meta.time,
        why=f"{event.requested_by} has asked again: {event.reason}",
        owner=owner,
    )


def _expired(version: int, request: int) -> str:
    return f"approval-expired/{version}/{request}"


def overruled_alert(
    event: VerdictOverruled, version: int, state: State, owner: str | None
) -> AlertRaised:
    """Return what people are told of a model whose reason was overruled."""
    how = {
        "deployed": f"driftloop rollback {event.pipeline} takes it out",
        "awaiting_approval": f"driftloop reject {event.pipeline}/{version} refuses it",
    }.get(state, f"driftloop rollback {event.pipeline} ends its rollout")
    return AlertRaised(
        pipeline=event.pipeline,
        condition=f"verdict-overruled/{event.verdict_id}/{version}",
        severity="warning",
        title=f"v{version} was trained because of a verdict that did not hold",
        detail=f"{event.overruled_by} says {event.cause.replace('_', ' ')}, not "
        f"{event.verdict_cause.replace('_', ' ')}: {event.reason}. The version is "
        f"{state.replace('_', ' ')}; {how}",
        owner=owner,
    )


def consequences(
    trained: ModelTrained,
    first: ApprovalRule | None,
    before: State,
    after: Standing,
) -> Iterator[Event]:
    """Tell the world about a version's new state; nothing when it is the old one.

    When the log is read anew, people's decisions may have been read before the
    version: then it is asked for as it was, and leaves the wait at once.

    Parameters
    ----------
    trained : what the version came from.
    first : who was asked when it was registered; None: nobody.
    before : the state before the event in hand.
    after : the standing with it.
    """
    if after.state == before:
        return
    pipeline, package, version = trained.pipeline, trained.package, after.version
    if before == "registered" and first is not None:
        yield _asked(trained, version, first, 1)
    elif before == "expired" and after.rule is not None:
        yield _asked(trained, version, after.rule, after.request)
    if after.state in {"rejected", "expired"}:
        decided_by = after.decided_by[-1] if after.decided_by else GATE
        yield ModelRejected(
            pipeline=pipeline,
            version=version,
            reasons=list(after.reasons),
            rejected_by=EXPIRY if after.state == "expired" else decided_by,
            comparison=compared_in_words(trained.evaluation),
        )
    elif after.state in {"approved", "superseded"}:
        # Superseded: a newer version went into service while people decided. Their
        # decision stands, and the deployer says that the version comes too late.
        yield ModelApproved(
            pipeline=pipeline,
            version=version,
            package=package,
            approved_by=list(after.decided_by) or [GATE],
            author=trained.trigger.requested_by,
        )


def _asked(
    trained: ModelTrained, version: int, rule: ApprovalRule, request: int
) -> ApprovalRequested:
    return ApprovalRequested(
        pipeline=trained.pipeline,
        version=version,
        package=trained.package,
        role=rule.role,
        people=rule.people,
        also=dict(rule.also),
        request=request,
        expires_at=rule.expires_at,
        remind_at=list(rule.remind_at),
    )
