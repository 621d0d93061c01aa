"""Whether an event is about the package it names, and what each decision leads to.

What a version has to be like is in ``gate.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from driftloop.contracts.base import Event
from driftloop.contracts.describe import compared_in_words
from driftloop.contracts.events import (
    ApprovalRequested,
    Evaluation,
    GateCheck,
    ModelApproved,
    ModelRejected,
    ModelTrained,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.registry.gate import passes
from driftloop.registry.ledger import ApprovalRule, Standing, State

GATE = "gate"
"""Who approved or rejected when no person was asked."""


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


def approval_rule(spec: PipelineSpec, gate: list[GateCheck]) -> ApprovalRule | None:
    """Return who has to say yes; None: nobody is asked.

    Nobody is asked about a version that did not pass the gate. With ``advise``
    nothing happens without a person, so what such a pipeline trained waits as well.
    """
    if spec.automation == "full" or not passes(gate):
        return None
    approval = spec.rollout.approval
    return ApprovalRule(approval.role, approval.people)


def consequences(
    trained: ModelTrained,
    before: State,
    after: Standing,
) -> Iterator[Event]:
    """Tell the world about a version's new state; nothing when it is the old one.

    Parameters
    ----------
    trained : what the version came from.
    before : the state before the event in hand.
    after : the standing with it.
    """
    if after.state == before:
        return
    pipeline, package, version = trained.pipeline, trained.package, after.version
    if after.rule is not None and _was_asked(before, after):
        yield ApprovalRequested(
            pipeline=pipeline,
            version=version,
            package=package,
            role=after.rule.role,
            people=after.rule.people,
        )
    if after.state == "rejected":
        yield ModelRejected(
            pipeline=pipeline,
            version=version,
            reasons=list(after.reasons),
            rejected_by=after.decided_by[-1] if after.decided_by else GATE,
            comparison=compared_in_words(trained.evaluation),
        )
    elif after.state == "approved":
        yield ModelApproved(
            pipeline=pipeline,
            version=version,
            package=package,
            approved_by=list(after.decided_by) or [GATE],
        )


def _was_asked(before: State, after: Standing) -> bool:
    """Whether people are asked now.

    When the log is read anew, their decisions may have been read before the
    version: then it leaves the wait at once.
    """
    is_waiting = after.state == "awaiting_approval"
    return before == "registered" and (is_waiting or bool(after.decided_by))
