"""What a backtest found, as plain values for programs, pages and terminals."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.backtest.detecting import noticed
from driftloop.backtest.plan import Plan
from driftloop.backtest.policies import ORACLE
from driftloop.backtest.stream import Stream
from driftloop.backtest.weighing import (
    CONFIDENCE,
    Recommendation,
    Weighed,
    cost_in_loss,
    recommend,
)
from driftloop.backtest.work import Outcome
from driftloop.contracts.retraining import CostSection
from driftloop.monitor.error_drift import block_rows

Floats = npt.NDArray[np.float64]
BINS = 120
"""Of the curve of losses over time: as many as a line on a screen shows."""
DAY_S = 86_400.0
MAX_TOLD = 400
"""Events of a policy that the report lists; the counts are of all."""


@dataclass(frozen=True)
class Hindsight:
    """The oracle's course.

    Attributes
    ----------
    rows : after which it trained, the first model not counted.
    of : the policy whose own course it is; None: one of its own.
    """

    losses: Floats
    rows: Sequence[int]
    of: str | None


@dataclass(frozen=True)
class Recorded:
    """All that a report is made of; ``counted`` are the rows that all answered."""

    plan: Plan
    stream: Stream
    refused_rows: int
    outcomes: Sequence[Outcome]
    losses: dict[str, Floats]
    counted: npt.NDArray[np.bool_]
    course: Hindsight | None


def counted(losses: Sequence[Floats]) -> npt.NDArray[np.bool_]:
    """Return (n_rows,) the rows that every policy answered."""
    found: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(each) for each in losses]
    )
    return found


def report_of(found: Recorded, elapsed_s: float) -> dict[str, Any]:
    """Return the report.

    ``policies`` are in the order in which they were asked, the oracle last;
    ``changes`` are the known moments that delays and false alarms are counted from.
    """
    plan, stream, course = found.plan, found.stream, found.course
    times = stream.rows["event_time"]
    changes = sorted(plan.known_drifts)
    lines = [_line(found, outcome, changes) for outcome in found.outcomes]
    cost = plan.spec.retrain.cost
    weighed = [
        Weighed(
            outcome.policy.name,
            found.losses[outcome.policy.name][found.counted],
            outcome.counts.get("training", 0),
            _costs(cost, outcome),
        )
        for outcome in found.outcomes
    ]
    if course is not None:
        lines.append(_oracle_line(found, course))
    starts, curves = _curves(found)
    for line in lines:
        line["curve"] = curves[line["name"]]
    span = times[0].as_py(), times[len(times) - 1].as_py()
    rhythm = plan.rhythm.model_dump(exclude_none=True)
    return {
        "pipeline": plan.spec.name,
        "source": plan.source,
        "metric": plan.spec.metric,
        "start": span[0].isoformat(),
        "end": span[1].isoformat(),
        "rows": stream.rows.num_rows,
        "refused_rows": found.refused_rows,
        "compared_rows": int(found.counted.sum()),
        "rhythm": rhythm,
        "came": _came(stream, plan),
        "candidates": plan.candidates,
        "cost": cost.model_dump() if cost.loss_unit_value else None,
        "changes": [time.isoformat() for time in changes],
        "bins": starts,
        "policies": lines,
        "recommendation": _recommended(weighed, plan),
        "elapsed_seconds": round(elapsed_s, 1),
    }


def _came(stream: Stream, plan: Plan) -> str:
    """Say in which rhythm rows and labels came."""
    if stream.arrivals is not None:
        return "as they were recorded"
    how = plan.rhythm
    rows = how.batch_rows or block_rows(plan.spec.monitor.window_rows)
    batches = f"{rows:,} rows" if how.batch_hours is None else f"{how.batch_hours:g} h"
    labels = "with their rows" if stream.known_us is None else "when they were known"
    if how.label_delay_hours is not None:
        labels = f"{how.label_delay_hours:g} h later"
    return f"batches of {batches}, labels {labels}"


def _recommended(weighed: Sequence[Weighed], plan: Plan) -> dict[str, Any]:
    best = recommend(weighed, plan.spec.monitor.window_rows, plan.seed)
    return {
        "policy": best.name,
        "is_clear": best.is_clear,
        "alike": list(best.alike),
        "confidence": CONFIDENCE,
        "differences": [asdict(difference) for difference in best.differences],
        "text": _text(best, weighed),
    }


def _text(best: Recommendation, weighed: Sequence[Weighed]) -> str:
    """Say why, for people."""
    mine = next(policy for policy in weighed if policy.name == best.name)
    what = "loss and cost" if any(p.costs for p in weighed) else "loss"
    trainings = f"{mine.trainings} training{'s' if mine.trainings != 1 else ''}"
    if len(weighed) == 1:
        return f"{best.name} is the only policy here, with {trainings}."
    if best.is_clear:
        nearest = min(best.differences, key=lambda d: d.mean)
        return (
            f"{best.name}, with {trainings}: its {what} a row is less than that of "
            f"each other policy by more than chance; the nearest is {nearest.name}, "
            f"{nearest.mean:+.4g} a row ({nearest.low:+.4g} to {nearest.high:+.4g})."
        )
    return (
        f"No clear winner. {best.name}, with {trainings}, comes first, but "
        f"{' and '.join(best.alike)} cannot be told apart from it by {what}: "
        "the differences may be chance."
    )


def _listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _costs(cost: CostSection, outcome: Outcome) -> float:
    """Return costs in losses of a row; the first model, which all need, is free."""
    return cost_in_loss(cost, outcome.later_trainings, outcome.later_rollouts)


def _line(
    found: Recorded, outcome: Outcome, changes: Sequence[datetime]
) -> dict[str, Any]:
    policy, counts = outcome.policy, outcome.counts
    losses = found.losses[policy.name]
    verdicts = [
        datetime.fromisoformat(entry["at"])
        for entry in outcome.timeline
        if entry["what"] == "drift" and entry["advised"]
    ]
    seen = noticed(changes, verdicts)
    delays = [None if d is None else d.total_seconds() / DAY_S for d in seen.delays]
    skips = Counter(e["reason"] for e in outcome.timeline if e["what"] == "skip")
    return {
        "name": policy.name,
        "kind": policy.kind,
        "description": policy.description,
        "changes": policy.changes,
        "loss": _metric(found, losses),
        "trainings": counts.get("training", 0),
        "failed": counts.get("failed", 0),
        "refused": counts.get("refused", 0),
        "deployed": counts.get("deployed", 0),
        "taken_back": counts.get("taken_back", 0),
        "skips": dict(sorted(skips.items())),
        "verdicts": len(verdicts),
        "delays_days": delays,
        "missed": seen.missed if changes else None,
        "repeats": seen.repeats if changes else None,
        "false_alarms": seen.false_alarms if changes else None,
        "cpu_seconds": outcome.cpu_seconds,
        "bill": _bill(found, losses, outcome.later_trainings, outcome.later_rollouts),
        "digest": outcome.digest,
        "timeline": outcome.timeline[:MAX_TOLD],
    }


def _oracle_line(found: Recorded, course: Hindsight) -> dict[str, Any]:
    times = found.stream.rows["event_time"]
    own = f"as {course.of}: nothing else was better" if course.of else ""
    return {
        "name": ORACLE,
        "kind": "oracle",
        "description": own or "knows the whole stream",
        "loss": _metric(found, course.losses),
        "trainings": len(course.rows) + 1,
        "of": course.of,
        "bill": _bill(found, course.losses, len(course.rows), len(course.rows)),
        "timeline": [
            {
                "at": times[row - 1].as_py().isoformat(), "row": row,
                "what": "training", "detail": "", "reason": "hindsight",
            }
            for row in course.rows
        ],
    }  # fmt: skip


def _metric(found: Recorded, losses: Floats) -> float:
    """Return the metric on the rows that all policies answered."""
    mean = float(np.mean(losses[found.counted]))
    return math.sqrt(mean) if found.plan.spec.metric == "rmse" else mean


def _bill(
    found: Recorded, losses: Floats, trainings: int, rollouts: int
) -> dict[str, float] | None:
    """Return what a policy cost in the pipeline's unit; None: it names none."""
    cost = found.plan.spec.retrain.cost
    if cost.loss_unit_value is None:
        return None
    lost = float(np.sum(losses[found.counted])) * cost.loss_unit_value
    parts = {
        "losses": lost,
        "trainings": cost.training * trainings,
        "rollouts": cost.rollout * max(0, rollouts),
    }
    return parts | {"total": sum(parts.values())}


def _curves(found: Recorded) -> tuple[list[str], dict[str, list[float]]]:
    """Return the bins' first moments, and each policy's metric in each of them.

    Bins hold as many rows each; a bin without an answer is null.
    """
    rows = np.flatnonzero(found.counted)
    parts = np.array_split(rows, min(BINS, len(rows)))
    times = found.stream.rows["event_time"]
    starts = [times[int(part[0])].as_py().isoformat() for part in parts]
    all_losses = dict(found.losses)
    if found.course is not None:
        all_losses[ORACLE] = found.course.losses
    is_root = found.plan.spec.metric == "rmse"
    curves = {}
    for name, losses in all_losses.items():
        means = [float(np.mean(losses[part])) for part in parts]
        curves[name] = [
            round(math.sqrt(mean) if is_root else mean, 6) for mean in means
        ]
    return starts, curves
