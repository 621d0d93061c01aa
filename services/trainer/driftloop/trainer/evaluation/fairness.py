"""How differently a model treats groups of rows; by fairlearn, an extra."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.contracts.measures import GroupGap
from driftloop.trainer.evaluation.slices import MIN_ROWS, labels_of
from driftloop.trainer.evaluation.subject import Scene, Subject

MISSING = (
    "gate.fairness needs fairlearn, which is not installed; "
    "install driftloop-trainer[fairness]"
)
Gap = tuple[float | None, float | None, dict[str, dict[str, float]]]
"""Difference, loss ratio, and figures by group."""


def is_available() -> bool:
    """Whether fairlearn is installed."""
    return find_spec("fairlearn") is not None


def measure(scene: Scene, columns: list[str]) -> tuple[list[GroupGap], dict[str, Any]]:
    """Return the gap of each column, and both models' figures by group.

    Groups are a column's values, or quarters of a number; those with fewer than
    thirty hold-out rows are left out.

    Source: Agarwal et al. (2018), A Reductions Approach to Fair Classification, and
    Hardt, Price and Srebro (2016), Equality of Opportunity in Supervised Learning, as
    fairlearn computes them (Weerts et al. (2023), JMLR 24(257)).
    """
    gaps, full = [], dict[str, Any]()
    for column in scene.columns:
        if column.name not in columns:
            continue
        labels = labels_of(scene.rows, column, is_named=True)
        assert labels is not None  # noqa: S101 - a named column always has some
        sizes = {str(v): int((labels == v).sum()) for v in np.unique(labels)}
        groups = [value for value, count in sizes.items() if count >= MIN_ROWS]
        small = len(sizes) - len(groups)
        note = f"{small} of {len(sizes)} groups have too few rows" if small else ""
        if len(groups) < 2:
            note = note or "one group only"
            gaps.append(
                GroupGap(column=column.name, group_count=len(groups), detail=note)
            )
            continue
        index = np.flatnonzero(np.isin(labels, groups))
        found = {
            role: _gap(subject.take(index), labels[index])
            for role, subject in scene.subjects().items()
        }
        mine, theirs = found["candidate"], found.get("champion", (None, None, {}))
        gaps.append(
            GroupGap(
                column=column.name,
                group_count=len(groups),
                difference=mine[0],
                champion_difference=theirs[0],
                loss_ratio=mine[1],
                champion_loss_ratio=theirs[1],
                detail=note,
            )
        )
        full[column.name] = {role: gap[2] for role, gap in found.items()}
    return gaps, full


def _gap(subject: Subject, groups: npt.NDArray[np.str_]) -> Gap:
    classes = subject.target.classes
    if not classes:
        return _by_loss(subject, groups)
    truth, answer = subject.target.values, subject.predict().prediction
    if len(classes) == 2:
        return _of_two(truth == classes[1], answer == classes[1], groups)
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score

    frame = MetricFrame(
        metrics={"accuracy": accuracy_score},
        y_true=truth, y_pred=answer, sensitive_features=groups,
    )  # fmt: skip
    return float(frame.difference()["accuracy"]), None, _table(frame)


def _of_two(
    truth: npt.NDArray[np.bool_],
    answer: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.str_],
) -> Gap:
    from fairlearn import metrics

    given: dict[str, Any] = {
        "y_true": truth.astype(int),
        "y_pred": answer.astype(int),
        "sensitive_features": groups,
    }
    frame = metrics.MetricFrame(
        metrics={
            "selection_rate": metrics.selection_rate,
            "true_positive_rate": metrics.true_positive_rate,
            "false_positive_rate": metrics.false_positive_rate,
            "rows": metrics.count,
        },
        **given,
    )
    parity = float(metrics.demographic_parity_difference(**given))
    odds = float(metrics.equalized_odds_difference(**given))
    return max(parity, odds), None, _table(frame)


def _by_loss(subject: Subject, groups: npt.NDArray[np.str_]) -> Gap:
    from fairlearn.metrics import MetricFrame

    losses = subject.losses()
    frame = MetricFrame(
        metrics={"loss": lambda _, given: float(np.mean(given)), "rows": _count},
        y_true=losses, y_pred=losses, sensitive_features=groups,
    )  # fmt: skip
    table = _table(frame)
    means = [one["loss"] for one in table.values()]
    ratio = max(means) / min(means) if min(means) > 0 else None
    return None, ratio, table


def _count(_: object, given: npt.NDArray[np.float64]) -> int:
    return len(given)


def _table(frame: Any) -> dict[str, dict[str, float]]:
    """Return a MetricFrame's figures by group."""
    return {
        str(group): {name: float(value) for name, value in row.items()}
        for group, row in frame.by_group.to_dict(orient="index").items()
    }
