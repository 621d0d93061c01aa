"""Whether a version in rollout goes on, waits or is taken back.

The comparison is paired (both versions predicted the same labelled rows) and is
looked at after each measurement, so the bound for stopping early is a sequential
one: looking often does not make a false alarm likelier.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from driftloop.contracts.events import (
    PerformanceMeasured,
    ScorerReported,
    ShadowReplayed,
    VersionReport,
)
from driftloop.contracts.pipeline import RolloutSection
from pydantic import BaseModel, ConfigDict

CLEARLY_WORSE_Z = 2.24
"""One-sided bound on the whole step: 2.5 % false alarms however often one looks.

Source: O'Brien & Fleming (1979), bound z / sqrt(t) at information share t; the
constant solves 2 (1 - Phi(z)) = 0.025, the reflection principle for a Brownian
path watched all the time.
"""
MIN_EARLY_ROWS = 20
"""Rows before which a standard error means too little to stop early."""
MIN_TIMED_CALLS = 5
"""Calls of both versions before their usual times are compared."""
UNNOTICED_S = 0.05
"""A call this short is not too slow, whatever the other version takes.

Source: half of the 0.1 s within which an answer seems immediate, J. Nielsen,
Usability Engineering (1993), section 5.5; the other half is left to the network.
"""
MOST_VARIANCE = 0.25
"""Of a yes or no, whatever its share."""


class Frozen(BaseModel):
    """A plain value of the deployer's state, stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Step(Frozen):
    """One stage of a rollout.

    Attributes
    ----------
    share : of rows answered by the new version, 0 to 1.
    rows : labelled rows to compare before the step is judged.
    ahead : replicas on which the new version answers everything.
    """

    name: str
    kind: Literal["shadow", "warming", "canary", "rolling", "full", "watching"]
    share: float = 0.0
    rows: int = 0
    ahead: tuple[str, ...] = ()


class Figures(Frozen):
    """What was seen of a version since its step began.

    Attributes
    ----------
    is_ready : a scorer serves the version as this step wants it.
    ready_on : replicas that have it in memory.
    failure : why a scorer cannot serve it.
    rival_failure : why a scorer cannot serve the version it is compared with.
    scored_rows, error_count : rows given to the version, and those it failed on.
    labelled_rows : rows of all paired comparisons; the sums below weigh each
        measurement by its rows.
    loss_sum, rival_loss_sum : of the version and of the one it is compared with.
    difference_sum, difference_square_sum : of the mean paired differences.
    variance_sum : sum of (rows x standard error) squared.
    timed_call_count : calls in reports that time both versions; the sums below weigh
        each report's median (seconds of a call) by them.
    compared_rows, differing_rows : rows that both versions answered, and those on
        which they differ; known without labels.
    """

    is_ready: bool = False
    ready_on: tuple[str, ...] = ()
    failure: str | None = None
    rival_failure: str | None = None
    scored_rows: int = 0
    error_count: int = 0
    measurement_count: int = 0
    labelled_rows: int = 0
    loss_sum: float = 0.0
    rival_loss_sum: float = 0.0
    difference_sum: float = 0.0
    difference_square_sum: float = 0.0
    variance_sum: float = 0.0
    timed_call_count: int = 0
    seconds_sum: float = 0.0
    rival_seconds_sum: float = 0.0
    compared_rows: int = 0
    differing_rows: int = 0

    @property
    def loss_ratio(self) -> float:
        """The version's loss to its rival's; 1 when both are without loss."""
        if self.rival_loss_sum > 0:
            return self.loss_sum / self.rival_loss_sum
        return 1.0 if self.loss_sum <= 0 else math.inf

    @property
    def z(self) -> float:
        """Mean paired difference in standard errors; positive is worse.

        The standard error is the larger of the one pooled from the measurements
        and the one seen between them: rows of one measurement (a day) depend on
        each other, and the pooled one alone would claim too much.
        """
        if not self.labelled_rows:
            return 0.0
        mean = self.difference_sum / self.labelled_rows
        variance = self.variance_sum / self.labelled_rows**2
        if self.measurement_count > 1:
            spread = self.difference_square_sum / self.labelled_rows - mean**2
            variance = max(variance, spread / (self.measurement_count - 1))
        if variance <= 0:
            return 0.0 if mean == 0 else math.copysign(math.inf, mean)
        return mean / math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Hold:
    """Too little was seen to decide."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The step is passed."""

    detail: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """The version is taken back."""

    reason: str


Verdict = Hold | Advance | RollBack


def plan(rules: RolloutSection, *, has_champion: bool) -> tuple[Step, ...]:
    """Return the steps of a rollout; a first version has nothing to compare with.

    >>> [step.name for step in plan(RolloutSection(), has_champion=True)]
    ['shadow', 'canary 10 %', 'canary 50 %', 'full', 'watching']
    >>> [step.name for step in plan(RolloutSection(), has_champion=False)]
    ['full']

    Rolling goes on as :func:`replica_by_replica` once all have the version in memory.
    """
    full = Step(name="full", kind="full", share=1.0)
    if not has_champion:
        return (full,)
    steps: list[Step] = []
    if rules.strategy == "shadow_then_canary":
        steps.append(Step(name="shadow", kind="shadow", rows=rules.shadow_rows))
    if rules.strategy in {"blue_green", "rolling"}:
        steps.append(Step(name="warming", kind="warming"))
    if rules.strategy in {"shadow_then_canary", "canary"}:
        steps += [
            Step(
                name=f"canary {share:.0%}".replace("%", " %"),
                kind="canary",
                share=share,
                rows=rules.step_rows,
            )
            for share in rules.steps
        ]
    steps.append(full)
    if rules.watch_rows:
        steps.append(
            Step(name="watching", kind="watching", share=1.0, rows=rules.watch_rows)
        )
    return tuple(steps)


def replica_by_replica(
    replicas: Sequence[str], rules: RolloutSection
) -> tuple[Step, ...]:
    """Return the steps of a rolling rollout; the last replica follows with full.

    >>> steps = replica_by_replica(["a", "b", "c"], RolloutSection())
    >>> [(step.name, step.ahead) for step in steps]
    [('replica 1 of 3', ('a',)), ('replica 2 of 3', ('a', 'b'))]
    """
    count = len(replicas)
    return tuple(
        Step(
            name=f"replica {number} of {count}",
            kind="rolling",
            rows=rules.step_rows,
            ahead=tuple(replicas[:number]),
        )
        for number in range(1, count)
    )


def with_report(
    figures: Figures, report: ScorerReported, version: int, rival: int | None
) -> Figures:
    """Add what a scorer says of ``version`` and of the one it is compared with."""
    for said in report.versions:
        reason = None
        if said.state == "failed":
            reason = f"{report.replica}: {said.detail or 'no reason given'}"
        update: dict[str, object] = {}
        if said.version == version:
            update = {
                "is_ready": figures.is_ready or reason is None,
                "failure": reason or figures.failure,
                "scored_rows": figures.scored_rows + said.row_count,
                "error_count": figures.error_count + said.error_count,
            }
        elif said.version == rival and reason:
            update = {"rival_failure": reason}
        figures = figures.model_copy(update=update)
    by_version = {said.version: said for said in report.versions}
    mine, other = by_version.get(version), by_version.get(rival or 0)
    if report.lease_seconds is not None:  # tells of all that the replica has loaded
        ready = set(figures.ready_on) - {report.replica}
        if mine is not None and mine.state == "ready":
            ready.add(report.replica)
        figures = figures.model_copy(update={"ready_on": tuple(sorted(ready))})
    if mine is None or other is None:
        return figures
    return figures.model_copy(update=_compared(figures, mine, other))


def _compared(
    figures: Figures, mine: VersionReport, other: VersionReport
) -> dict[str, float]:
    """Return what a report on both versions adds; either may be the candidate."""
    calls = min(mine.call_count, other.call_count)
    usual, others = mine.latency_p50_seconds or 0.0, other.latency_p50_seconds or 0.0
    compared = mine.compared_count + other.compared_count
    differing = mine.differing_count + other.differing_count
    return {
        "timed_call_count": figures.timed_call_count + calls,
        "seconds_sum": figures.seconds_sum + calls * usual,
        "rival_seconds_sum": figures.rival_seconds_sum + calls * others,
        "compared_rows": figures.compared_rows + compared,
        "differing_rows": figures.differing_rows + differing,
    }


def with_performance(
    figures: Figures,
    event: PerformanceMeasured | ShadowReplayed,
    version: int,
    rival: int,
) -> Figures | None:
    """Add a paired measurement; None when it is not one of these two versions.

    Roles are those at the time of scoring: after the switch to full, the last
    rows of the canary may still come, with the roles the other way round.
    """
    by_version = {m.version: m for m in event.measurements}
    mine, other = by_version.get(version), by_version.get(rival)
    pair = event.comparison
    if mine is None or other is None or pair is None:
        return None
    sign = 1 if mine.role == "candidate" else -1
    difference, rows = sign * pair.mean_difference, pair.row_count
    if not all(map(math.isfinite, (mine.value, other.value, difference))):
        return None
    return figures.model_copy(
        update={
            "measurement_count": figures.measurement_count + 1,
            "labelled_rows": figures.labelled_rows + rows,
            "loss_sum": figures.loss_sum + rows * mine.value,
            "rival_loss_sum": figures.rival_loss_sum + rows * other.value,
            "difference_sum": figures.difference_sum + rows * difference,
            "difference_square_sum": (
                figures.difference_square_sum + rows * difference**2
            ),
            "variance_sum": (figures.variance_sum + (rows * pair.standard_error) ** 2),
        }
    )


def with_replay(
    figures: Figures, event: ShadowReplayed, version: int, rival: int
) -> Figures | None:
    """Add recorded rows; None when they are not of these two versions.

    Without labels there is still something to see: on how many rows it failed, and on
    how many the two differ.
    """
    if (event.candidate_version, event.champion_version) != (version, rival):
        return None
    figures = figures.model_copy(
        update={
            "scored_rows": figures.scored_rows + event.row_count,
            "error_count": figures.error_count + event.error_count,
            "compared_rows": figures.compared_rows + event.compared_count,
            "differing_rows": figures.differing_rows + event.different_count,
        }
    )
    return with_performance(figures, event, version, rival) or figures


def judge(
    figures: Figures,
    step: Step,
    rules: RolloutSection,
    replicas: Collection[str] | None = None,
) -> Verdict:
    """Return what the figures of a step mean under the pipeline's rules.

    Parameters
    ----------
    replicas : that live; None: not all of them are known yet.
    """
    if reason := _fault(figures, step, rules):
        return RollBack(reason)
    if step.kind == "warming":
        return _judge_warming(figures, replicas)
    if step.kind == "full":
        return Advance("a scorer serves it") if figures.is_ready else Hold()
    if step.kind == "watching" and figures.rival_failure:
        return Advance(f"nothing to compare with any more: {figures.rival_failure}")
    return _judge_comparison(figures, step, rules)


def _fault(figures: Figures, step: Step, rules: RolloutSection) -> str:
    """Return what is wrong with the version, without labels, or nothing."""
    if figures.failure:
        return f"a scorer cannot serve it: {figures.failure}"
    if figures.error_count > rules.max_error_ratio * max(
        step.rows, figures.scored_rows
    ):
        return (
            f"it failed on {figures.error_count} of {figures.scored_rows} rows; "
            f"max_error_ratio is {rules.max_error_ratio:g}"
        )
    return _too_slow(figures, rules) or _too_different(figures, step, rules)


def _judge_warming(figures: Figures, replicas: Collection[str] | None) -> Verdict:
    """Hold until each replica that lives has the version in memory."""
    if not replicas or not set(replicas) <= set(figures.ready_on):
        return Hold()
    return Advance(f"in memory on every replica: {', '.join(sorted(replicas))}")


def _too_slow(figures: Figures, rules: RolloutSection) -> str:
    """Return why the version is too slow beside its rival, or nothing."""
    calls = figures.timed_call_count
    if rules.max_latency_ratio is None or calls < MIN_TIMED_CALLS:
        return ""
    usual, others = figures.seconds_sum / calls, figures.rival_seconds_sum / calls
    if usual <= UNNOTICED_S or usual <= rules.max_latency_ratio * others:
        return ""
    return (
        f"too slow: a call takes {usual * 1000:.0f} ms, the other version's "
        f"{others * 1000:.2g} ms, over {calls} calls; "
        f"max_latency_ratio is {rules.max_latency_ratio:g}"
    )


def _too_different(figures: Figures, step: Step, rules: RolloutSection) -> str:
    """Return why the version differs too much from its rival, or nothing.

    Before the step's rows are seen, only what is clear: the bound is that of
    :data:`CLEARLY_WORSE_Z`, with the greatest variance that a share can have.
    """
    rows, allowed = figures.compared_rows, rules.max_prediction_shift
    if allowed is None or rows < MIN_EARLY_ROWS:
        return ""
    margin = 0.0
    if rows < step.rows:
        margin = CLEARLY_WORSE_Z * math.sqrt(MOST_VARIANCE * step.rows) / rows
    if figures.differing_rows / rows <= allowed + margin:
        return ""
    return (
        f"its predictions differ on {figures.differing_rows} of {rows} rows; "
        f"max_prediction_shift is {allowed:g}"
    )


def _judge_comparison(figures: Figures, step: Step, rules: RolloutSection) -> Verdict:
    rows = figures.labelled_rows
    ratio, z = figures.loss_ratio, figures.z
    seen = f"loss ratio {ratio:.3f} over {rows} labelled rows (z = {z:.2f})"
    progress = min(1.0, rows / step.rows)
    if rows >= min(MIN_EARLY_ROWS, step.rows) and z > CLEARLY_WORSE_Z / math.sqrt(
        progress
    ):
        return RollBack(f"clearly worse: {seen}")
    if rows < step.rows:
        return Hold()
    if rules.max_prediction_shift is not None and figures.compared_rows < step.rows:
        return Hold()
    if ratio > rules.max_loss_ratio:
        return RollBack(f"worse: {seen}; max_loss_ratio is {rules.max_loss_ratio:g}")
    return Advance(seen)
