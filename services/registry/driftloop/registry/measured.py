"""The gate's checks on what the trainer measured beside the loss.

A limit that the pipeline file sets blocks, and then the measurement has to be there;
where it sets none, a usual limit warns.
"""

from collections.abc import Callable, Iterator

from driftloop.contracts.events import Evaluation, GateCheck
from driftloop.contracts.measures import Degradation, Measures, SliceResult
from driftloop.contracts.pipeline import GateSection

USUAL_NOISE_LOSS = 0.5
"""Noise of a tenth of the spread should not cost half of a model's worth."""
USUAL_MISSING_LOSS = 1.0
"""Without one feature that may be missing a model should not be below no skill."""
USUAL_OUTLIER_LOSS = 5.0
"""A model that loses its worth five times over answers one wild value with another."""
USUAL_FLIP_RATIO = 0.1
USUAL_CALIBRATION_ERROR = 0.1
REFIT_Z = 1.645
"""A model that is worse on what it has learned by more than chance (95 %, one-sided)
was not fitted as the one that was judged."""
TOLD = 3
"""Slices that a check names; the card has all."""


def measured_checks(evaluation: Evaluation, gate: GateSection) -> Iterator[GateCheck]:
    """Yield each check that was asked for, or that the measurements allow."""
    measures = evaluation.measures or Measures()
    yield from _served_graph(measures)
    yield from _slices(evaluation, measures, gate)
    yield from _fairness(measures, gate)
    yield from _robustness(measures, gate)
    yield from _calibration(measures, gate)
    if measures.fit is not None:
        yield GateCheck(
            name="fit",
            passed=measures.fit.verdict == "good",
            detail=measures.fit.detail,
            severity=gate.fit,
        )
    elif gate.fit == "block":
        yield _unmeasured("fit")
    yield from _reproducible(measures, gate)


def _limited(
    name: str,
    value: float | None,
    limit: float | None,
    usual: float,
    words: Callable[[float], str],
) -> Iterator[GateCheck]:
    """Yield a check of a value that should not be above a limit.

    Parameters
    ----------
    limit : of the pipeline file; None: the usual one, as a warning.
    """
    if value is None:
        if limit is not None:
            yield _unmeasured(name)
        return
    most = usual if limit is None else limit
    yield GateCheck(
        name=name,
        passed=value <= most,
        detail=f"{words(value)}, at most {most:g} allowed",
        severity="warn" if limit is None else "block",
        value=value,
        limit=most,
    )


def _unmeasured(name: str) -> GateCheck:
    return GateCheck(
        name=name,
        passed=False,
        detail="the pipeline file asks for it, and it could not be measured",
    )


def _served_graph(measures: Measures) -> Iterator[GateCheck]:
    if (parity := measures.parity) is not None:
        yield GateCheck(
            name="parity",
            passed=parity.difference <= parity.tolerance,
            detail=f"the served graph differs by {parity.difference:.2g} from what was "
            f"trained, at most {parity.tolerance:g} allowed",
            value=parity.difference,
            limit=parity.tolerance,
        )
    if (again := measures.refit) is not None:
        bound = again.mean_difference - REFIT_Z * again.standard_error
        yield GateCheck(
            name="refit",
            passed=bound <= 0,
            detail=f"fitted again on all {again.row_count} rows, the hold-out too, "
            f"{'as good' if bound <= 0 else 'worse'} on rows that it knows now: "
            f"{again.mean_difference:+.4g} a row",
            value=bound,
            limit=0.0,
        )
    if (found := measures.robustness) is not None:
        kinds = (found.noise, found.missing, found.outliers)
        bad = sum(kind.non_finite_count for kind in kinds if kind is not None)
        yield GateCheck(
            name="finite_answers",
            passed=bad == 0,
            detail=f"{bad} answers to noisy, missing or wild values are no numbers"
            if bad
            else "a finite answer also to noisy, missing and wild values",
            value=bad,
            limit=0,
        )


def _slices(
    evaluation: Evaluation, measures: Measures, gate: GateSection
) -> Iterator[GateCheck]:
    if not measures.slice_count:
        if gate.slices:
            yield _unmeasured("no_slice_worse")
        return
    ratio, alpha = gate.max_slice_loss_ratio, 1 - gate.confidence
    worse = [
        one
        for one in measures.slices
        if one.p_value <= alpha and one.candidate > ratio * one.other
    ]
    told = [_slice(evaluation.metric, one) for one in worse[:TOLD]]
    more = len(worse) - len(told)
    yield GateCheck(
        name="no_slice_worse",
        passed=not worse,
        detail=f"worse on {'; '.join(told)}{f'; and {more} more' if more else ''}"
        if worse
        else f"none of {measures.slice_count} slices is worse by more than "
        f"{ratio - 1:.0%} at {gate.confidence:.0%} confidence",
        severity="warn" if gate.slices is None else "block",
        value=len(worse),
        limit=0,
    )


def _slice(metric: str, one: SliceResult) -> str:
    return (
        f"{one.column} {one.value}: {metric} {one.candidate:.4g} against "
        f"{one.other:.4g} on {one.row_count} rows (p = {one.p_value:.2g})"
    )


def _fairness(measures: Measures, gate: GateSection) -> Iterator[GateCheck]:
    wanted = gate.fairness
    if not wanted.columns:
        return
    found = {gap.column: gap for gap in measures.fairness}
    if set(wanted.columns) - set(found):
        yield _unmeasured("fairness")
        return
    failures, told = [], []
    for name in wanted.columns:
        gap = found[name]
        if gap.difference is not None:
            words = f"{name}: difference {gap.difference:.3f}"
            is_over = gap.difference > wanted.max_difference
            limit = f"{wanted.max_difference:g}"
        elif gap.loss_ratio is not None:
            words = f"{name}: loss ratio {gap.loss_ratio:.2f}"
            is_over = gap.loss_ratio > wanted.max_loss_ratio
            limit = f"{wanted.max_loss_ratio:g}"
        else:
            told.append(f"{name}: not enough to tell ({gap.detail})")
            continue
        words += f" between {gap.group_count} groups, at most {limit} allowed"
        told.append(words)
        if is_over:
            failures.append(words)
    yield GateCheck(
        name="fairness", passed=not failures, detail="; ".join(failures or told)
    )


def _robustness(measures: Measures, gate: GateSection) -> Iterator[GateCheck]:
    found, wanted = measures.robustness, gate.robustness
    for name, degradation, limit, usual, cause in (
        (
            "noise",
            found.noise if found else None,
            wanted.max_noise_loss,
            USUAL_NOISE_LOSS,
            "with noise on its numbers",
        ),
        (
            "missing_features",
            found.missing if found else None,
            wanted.max_missing_loss,
            USUAL_MISSING_LOSS,
            "without {feature}",
        ),
        (
            "outliers",
            found.outliers if found else None,
            wanted.max_outlier_loss,
            USUAL_OUTLIER_LOSS,
            "with wild values in {feature}",
        ),
    ):
        value = degradation.lost if degradation else None
        yield from _limited(name, value, limit, usual, _loses(cause, degradation))
    flips = found.flip_ratio if found else None
    yield from _limited(
        "small_changes",
        flips,
        wanted.max_flip_ratio,
        USUAL_FLIP_RATIO,
        lambda value: (
            f"small changes turn {value:.1%} of the sure answers over"
            + _beside(found.champion_flip_ratio if found else None)
        ),
    )


def _loses(cause: str, found: Degradation | None) -> Callable[[float], str]:
    feature = found.feature if found else None
    champion = found.champion_lost if found else None
    return lambda value: (
        f"{cause.format(feature=feature)} it loses {value:.0%} of its advantage over "
        f"no skill{_beside(champion)}"
    )


def _beside(champion: float | None) -> str:
    return "" if champion is None else f" (champion {champion:.0%})"


def _calibration(measures: Measures, gate: GateSection) -> Iterator[GateCheck]:
    found = measures.calibration
    is_classes = found is not None and found.brier is not None
    what = (
        "probabilities are off on average by {:.3f} beyond chance"
        if is_classes
        else "its mean is off by {:.3f} of the target's spread beyond chance"
    )
    yield from _limited(
        "calibration",
        found.error if found else None,
        gate.max_calibration_error,
        USUAL_CALIBRATION_ERROR,
        what.format,
    )


def _reproducible(measures: Measures, gate: GateSection) -> Iterator[GateCheck]:
    if not gate.reproducible:
        return
    found = measures.reproducibility
    if found is None:
        yield _unmeasured("reproducible")
        return
    yield GateCheck(
        name="reproducible",
        passed=found.same,
        detail=f"trained twice on the newest {found.row_count} rows: "
        + ("the same bytes" if found.same else "two different models"),
    )
