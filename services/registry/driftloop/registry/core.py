"""The gate a trained version has to pass, and what each decision leads to.

The gate judges what the trainer measured on the frozen hold-out and what was found
in the package. It looks at no other version: which model is the champion when the
rollout begins is the deployer's business, and a verdict that does not depend on it
is the same when the log is read again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ApprovalRequested,
    Evaluation,
    GateCheck,
    ModelApproved,
    ModelRejected,
    ModelTrained,
    PackageRef,
)
from driftloop.contracts.pipeline import GateSection, PipelineSpec
from driftloop.registry.ledger import ApprovalRule, Standing, State

MIN_HOLDOUT_ROWS = 30
"""Fewer rows and the normal bound on a mean is not to be trusted.

Source: the usual rule for the central limit theorem; Wasserman, All of Statistics,
section 5.4."""

GATE = "gate"
"""Who approved or rejected when no person was asked."""


@dataclass(frozen=True, slots=True)
class PackageFinding:
    """What was found when a package was opened and its model was tried.

    Attributes
    ----------
    problem : why it may not be loaded; None: nothing is wrong with it.
    latency_p99_ms : of one row, in milliseconds; None: it could not be tried.
    """

    problem: str | None = None
    latency_p99_ms: float | None = None


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


def judge(
    evaluation: Evaluation, gate: GateSection, finding: PackageFinding
) -> list[GateCheck]:
    """Return every condition of the gate and how it went."""
    return [
        *_package_checks(gate, finding),
        _finite(evaluation),
        _check(
            "holdout_size",
            evaluation.holdout_row_count >= MIN_HOLDOUT_ROWS,
            f"{evaluation.holdout_row_count} rows, at least {MIN_HOLDOUT_ROWS} needed",
        ),
        _check(
            "better_than_no_skill",
            evaluation.candidate < evaluation.baseline,
            f"{evaluation.metric} {evaluation.candidate:.6g} against the no-skill "
            f"baseline's {evaluation.baseline:.6g}",
        ),
        _significantly_better(evaluation, gate.confidence),
        _improvement(evaluation, gate.min_improvement_ratio),
    ]


def one_sided_bound(
    mean_difference: float, standard_error: float, confidence: float
) -> float:
    """Return the upper bound of a mean difference of losses.

    With probability ``confidence`` the true mean lies below it.

    Source: one-sided normal confidence bound, mean + z(confidence) * standard error;
    Wasserman, All of Statistics, theorem 6.16. The paired comparison of two models
    by their per-row losses: Diebold and Mariano, Comparing Predictive Accuracy,
    Journal of Business & Economic Statistics 13 (1995).

    Examples
    --------
    >>> round(one_sided_bound(-1.0, 0.5, 0.95), 3)
    -0.178
    """
    return mean_difference + NormalDist().inv_cdf(confidence) * standard_error


def _check(name: str, passed: bool, detail: str) -> GateCheck:
    return GateCheck(name=name, passed=passed, detail=detail)


def _package_checks(gate: GateSection, finding: PackageFinding) -> Iterator[GateCheck]:
    ok = "signature, signer, every digest and the sample answers are right"
    yield _check("package_verified", finding.problem is None, finding.problem or ok)
    latency, limit = finding.latency_p99_ms, gate.max_latency_ms
    if latency is None:
        return
    # The figure itself stays out of a passing check: an event's bytes must not
    # depend on how busy the machine was.
    passed = latency <= limit
    found = "within" if passed else f"{latency:.1f} ms, above"
    yield _check("latency", passed, f"p99 of one row: {found} {limit:g} ms")


def _finite(evaluation: Evaluation) -> GateCheck:
    comparison = evaluation.comparison
    numbers = {
        "candidate": evaluation.candidate,
        "champion": evaluation.champion,
        "baseline": evaluation.baseline,
        "mean_difference": comparison.mean_difference,
        "standard_error": comparison.standard_error,
    }
    bad = [n for n, v in numbers.items() if v is not None and not math.isfinite(v)]
    detail = f"not finite: {', '.join(bad)}" if bad else "all figures are numbers"
    return _check("finite_metrics", not bad, detail)


def _opponent(evaluation: Evaluation) -> tuple[str, float]:
    if evaluation.champion is None:
        return "the no-skill baseline", evaluation.baseline
    return f"champion v{evaluation.champion_version}", evaluation.champion


def _significantly_better(evaluation: Evaluation, confidence: float) -> GateCheck:
    comparison = evaluation.comparison
    bound = one_sided_bound(
        comparison.mean_difference, comparison.standard_error, confidence
    )
    name, _ = _opponent(evaluation)
    return _check(
        "significantly_better",
        bound < 0,
        f"loss a row against {name}: {comparison.mean_difference:+.6g}, "
        f"upper bound {bound:+.6g} at {confidence:.0%} over "
        f"{comparison.row_count} rows",
    )


def _improvement(evaluation: Evaluation, wanted_ratio: float) -> GateCheck:
    name, loss = _opponent(evaluation)
    passed = evaluation.candidate <= loss * (1 - wanted_ratio)
    ratio = 1 - evaluation.candidate / loss if loss else 0.0
    return _check(
        "improvement",
        passed,
        f"{abs(ratio):.1%} {'less' if ratio >= 0 else 'more'} {evaluation.metric} "
        f"than {name}, "
        f"at least {wanted_ratio:.1%} wanted",
    )


def passes(gate: list[GateCheck]) -> bool:
    """Whether every check of the gate went well."""
    return all(check.passed for check in gate)


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
    pipeline: str,
    package: PackageRef,
    before: State,
    after: Standing,
) -> Iterator[Event]:
    """Tell the world about a version's new state; nothing when it is the old one.

    Parameters
    ----------
    before : the state before the event in hand.
    after : the standing with it.
    """
    if after.state == before:
        return
    version = after.version
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
