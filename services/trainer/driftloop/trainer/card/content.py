"""The model card as JSON values, in the sections of the model card paper.

Source: Mitchell et al. (2019), Model Cards for Model Reporting, FAT*, doi
10.1145/3287560.3287596.
"""

from typing import Any

from driftloop.contracts.describe import (
    ROW_LOSS,
    compared_in_words,
    left_out_in_words,
)
from driftloop.contracts.events import Evaluation
from driftloop.contracts.measures import Measures
from driftloop.models.package import Manifest

UNSEEN = "The newest rows, which training never saw."
LEARNED_SINCE = (
    "The newest rows. All of this was measured before the model learned them: it was "
    "fitted once more on all rows after that, and is served so."
)
CAVEATS = [
    "Values outside of what training saw are extrapolated without a warning; the "
    "monitor reports when inputs or errors change.",
    "Contributions and curves show what the model does, not what causes what.",
    "The search for small changes that turn an answer over tries some; what it does "
    "not find may exist.",
]


def card_of(
    manifest: Manifest,
    description: str,
    owner: str | None,
    importance: dict[str, float],
    report: dict[str, Any],
    explanation: dict[str, Any],
) -> dict[str, Any]:
    """Return the card.

    Parameters
    ----------
    importance : increase of the loss when a feature is shuffled.
    report : content of ``evaluation.json``.
    explanation : how the model answers, and what changed; see ``measuring.Measured``.
    """
    evaluation = manifest.evaluation
    measures = evaluation.measures or Measures()
    return {
        "schema_version": 1,
        "model_details": {
            "pipeline": manifest.pipeline,
            "algorithm": manifest.algorithm,
            "parameters": manifest.parameters,
            "inputs": [c.model_dump(mode="json") for c in manifest.inputs],
            "outputs": [c.model_dump(mode="json") for c in manifest.outputs],
            "classes": manifest.classes,
            "owner": owner,
            "code_version": manifest.code_version,
            "seed": manifest.seed,
            "job_id": manifest.job_id,
            "cause": manifest.cause_reason,
            "parent_digest": manifest.parent_digest,
            "tried": [t.model_dump(mode="json") for t in manifest.tried],
        },
        "intended_use": {
            "primary": description or f"Predicts {manifest.target} ({manifest.task}).",
            "target": manifest.target,
            "task": manifest.task,
            "out_of_scope": "Rows of another kind than those that it learned from, and "
            "decisions that its owner did not foresee.",
        },
        "factors": {
            "slices": sorted({one["column"] for one in report["slices"]}),
            "groups": [gap.column for gap in measures.fairness],
        },
        "metrics": {
            "metric": evaluation.metric,
            "meaning": f"mean {ROW_LOSS.get(evaluation.metric, 'loss')} a row"
            + (", its root" if evaluation.metric == "rmse" else "")
            + "; lower is better",
            "candidate": evaluation.candidate,
            "champion": evaluation.champion,
            "champion_version": evaluation.champion_version,
            "no_skill": evaluation.baseline,
        },
        "training_data": {
            "rows": manifest.train_row_count,
            "span": (manifest.learned_span or manifest.train_span).model_dump(
                mode="json"
            ),
            "dataset": manifest.dataset.model_dump(mode="json"),
            "left_out": [left_out_in_words(each) for each in manifest.left_out],
        },
        "evaluation_data": {
            "rows": evaluation.holdout_row_count,
            "span": manifest.holdout_span.model_dump(mode="json"),
            "why": UNSEEN if manifest.learned_span is None else LEARNED_SINCE,
        },
        "quantitative_analyses": {
            "comparison": compared_in_words(evaluation),
            "permutation_importance": importance,
            **report,
        },
        "explanation": explanation,
        "ethical_considerations": _ethics(measures),
        "caveats_and_recommendations": [*_warnings(evaluation), *CAVEATS],
    }


def _ethics(measures: Measures) -> list[str]:
    if not measures.fairness:
        return [
            "No groups of people were named (gate.fairness.columns), so whether the "
            "model treats them alike was not measured."
        ]
    return [
        f"{gap.column}: {_gap(gap.difference, gap.loss_ratio)} between "
        f"{gap.group_count} groups" + (f" ({gap.detail})" if gap.detail else "")
        for gap in measures.fairness
    ]


def _gap(difference: float | None, ratio: float | None) -> str:
    if difference is not None:
        return f"a difference of {difference:.3f}"
    return "not measured" if ratio is None else f"a loss ratio of {ratio:.2f}"


def _warnings(evaluation: Evaluation) -> list[str]:
    measures = evaluation.measures
    found = []
    if measures and measures.fit and measures.fit.verdict != "good":
        found.append(f"{measures.fit.detail}.")
    if evaluation.champion is None and evaluation.champion_version is not None:
        found.append(
            f"Champion version {evaluation.champion_version} cannot answer these rows; "
            "the comparison is with no skill."
        )
    return found
