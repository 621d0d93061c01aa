"""The gate that a trained version has to pass.

It judges what the trainer measured on the frozen hold-out and what was found in the
package. It looks at no other version: which model is the champion when the rollout
begins is the deployer's business, and a verdict that does not depend on it is the
same when the log is read again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from driftloop.contracts.describe import ROW_LOSS
from driftloop.contracts.events import Evaluation, GateCheck
from driftloop.contracts.pipeline import GateSection
from driftloop.registry.measured import measured_checks

MIN_HOLDOUT_ROWS = 30
"""Fewer rows and the normal bound on a mean is not to be trusted.

Source: the usual rule for the central limit theorem; Wasserman, All of Statistics,
section 5.4."""
USUAL_MEMORY_MIB = 512.0
"""Above it a model warns: several replicas of a scorer would each take it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs where it was tried: processor time, and resident memory.

    Attributes
    ----------
    p50_ms, p99_ms : of one row.
    hundred_rows_ms : median, of a call with a hundred rows.
    memory_mib : that loading it and these calls took.
    """

    p50_ms: float
    p99_ms: float
    hundred_rows_ms: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class PackageFinding:
    """What was found when a package was opened and its model was tried.

    Attributes
    ----------
    problem : why it may not be loaded; None: nothing is wrong with it.
    cost : what answering costs on this machine; None: it could not be tried.
    """

    problem: str | None = None
    cost: Cost | None = None


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
            evaluation.holdout_row_count,
            MIN_HOLDOUT_ROWS,
        ),
        _check(
            "better_than_no_skill",
            evaluation.candidate < evaluation.baseline,
            f"{evaluation.metric} {evaluation.candidate:.6g} against the no-skill "
            f"baseline's {evaluation.baseline:.6g}",
            evaluation.candidate,
            evaluation.baseline,
        ),
        *_compared(evaluation, gate),
        *measured_checks(evaluation, gate),
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


def _check(
    name: str,
    passed: bool,
    detail: str,
    value: float | None = None,
    limit: float | None = None,
) -> GateCheck:
    return GateCheck(name=name, passed=passed, detail=detail, value=value, limit=limit)


def _package_checks(gate: GateSection, finding: PackageFinding) -> Iterator[GateCheck]:
    ok = "signature, signer, every digest and the sample answers are right"
    yield _check("package_verified", finding.problem is None, finding.problem or ok)
    cost = finding.cost
    if cost is None:
        return
    yield _cost("latency", "p99 of one row", cost.p99_ms, gate.max_latency_ms, "ms")
    limit = gate.max_memory_mib
    memory = _cost(
        "memory",
        "loaded, and after 100 rows",
        cost.memory_mib,
        USUAL_MEMORY_MIB if limit is None else limit,
        "MiB",
    )
    yield memory.model_copy(update={"severity": "warn"}) if limit is None else memory


def _cost(name: str, what: str, value: float, limit: float, unit: str) -> GateCheck:
    """Return a check of a measured cost.

    The figure itself stays out of a passing check: an event's bytes must not depend
    on how busy the machine was.
    """
    passed = value <= limit
    found = "within" if passed else f"{value:.1f} {unit}, above"
    return _check(
        name,
        passed,
        f"{what}: {found} {limit:g} {unit}",
        None if passed else value,
        limit,
    )


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


def _compared(evaluation: Evaluation, gate: GateSection) -> Iterator[GateCheck]:
    """Yield what the comparison has to show; a first model has to be better."""
    margin = gate.non_inferiority_margin
    if margin is not None and evaluation.champion is not None:
        yield _not_inferior(evaluation, gate.confidence, margin)
        return
    yield _significantly_better(evaluation, gate.confidence)
    yield _improvement(evaluation, gate.min_improvement_ratio)


def _not_inferior(
    evaluation: Evaluation, confidence: float, margin: float
) -> GateCheck:
    """Return whether a candidate is at most so much worse than the champion.

    The margin is a share of the champion's mean loss a row.

    Source: the non-inferiority test, ICH E9 (1998), Statistical Principles for
    Clinical Trials, section 3.3.2.
    """
    comparison = evaluation.comparison
    bound = one_sided_bound(
        comparison.mean_difference, comparison.standard_error, confidence
    )
    name, loss = _opponent(evaluation)
    row_loss = loss**2 if evaluation.metric == "rmse" else loss
    return _check(
        "not_inferior",
        bound <= margin * row_loss,
        f"{ROW_LOSS.get(evaluation.metric, 'loss')} a row against {name}: "
        f"{comparison.mean_difference:+.6g}, upper bound {bound:+.6g} at "
        f"{confidence:.0%} over {comparison.row_count} rows; at most "
        f"{margin * row_loss:+.6g} ({margin:.1%} of its loss) is allowed"
        + _favoured(evaluation),
        bound,
        margin * row_loss,
    )


def _favoured(evaluation: Evaluation) -> str:
    """Say so where the champion is compared on rows that it has learned."""
    known = evaluation.champion_knows_rows
    return f" (the champion has learned {known} of them)" if known else ""


def _significantly_better(evaluation: Evaluation, confidence: float) -> GateCheck:
    comparison = evaluation.comparison
    bound = one_sided_bound(
        comparison.mean_difference, comparison.standard_error, confidence
    )
    name, _ = _opponent(evaluation)
    return _check(
        "significantly_better",
        bound < 0,
        f"{ROW_LOSS.get(evaluation.metric, 'loss')} a row against {name}: "
        f"{comparison.mean_difference:+.6g}, upper bound {bound:+.6g} at "
        f"{confidence:.0%} over {comparison.row_count} rows (p = "
        f"{comparison.p_value:.2g}); below 0 is better" + _favoured(evaluation),
        bound,
        0.0,
    )


def _improvement(evaluation: Evaluation, wanted_ratio: float) -> GateCheck:
    name, loss = _opponent(evaluation)
    passed = evaluation.candidate <= loss * (1 - wanted_ratio)
    ratio = 1 - evaluation.candidate / loss if loss else 0.0
    return _check(
        "improvement",
        passed,
        f"{abs(ratio):.1%} {'less' if ratio >= 0 else 'more'} {evaluation.metric} "
        f"than {name} ({evaluation.candidate:.4g} against {loss:.4g}), "
        f"at least {wanted_ratio:.1%} less wanted",
        ratio,
        wanted_ratio,
    )


def passes(gate: list[GateCheck]) -> bool:
    """Whether every check that blocks went well."""
    return all(check.passed or check.severity == "warn" for check in gate)
