"""An explanation as JSON, for doors whose answers are objects."""

from typing import Any

import numpy as np
from driftloop.scorer.explaining.explainer import Unexplained
from driftloop.scorer.explaining.pool import Explanation
from driftloop.scorer.explaining.shapley import MIN_VISITS

NOT_FINITE = "the model has no finite answer to mixtures of its values and others"
NO_TIME = "there was no time for it"


def as_json(explanation: Explanation | Unexplained) -> dict[str, Any]:
    """Return an explanation as an answer has it.

    ``rows`` has an object for each row. Where there is no explanation, of a row or of
    any, ``missing`` says why.
    """
    if isinstance(explanation, Unexplained):
        return {"missing": explanation.reason, "timed_out": explanation.timed_out}
    return {
        **head_of(explanation),
        "rows": [_row(explanation, row) for row in range(len(explanation.answers))],
    }


def head_of(explanation: Explanation) -> dict[str, Any]:
    """Return what holds for all rows."""
    return {
        "unit": explanation.unit,
        "method": explanation.method,
        "background_rows": explanation.background_count,
        "model_calls": explanation.model_calls,
        "mixtures": explanation.predictions,
        "timed_out": explanation.timed_out,
    }


def _row(explanation: Explanation, row: int) -> dict[str, Any]:
    found, answer = explanation.found, float(explanation.answers[row])
    if not np.isfinite(found.values[row]).all():
        is_seen = found.visits[row] >= MIN_VISITS
        return {"answer": answer, "missing": NOT_FINITE if is_seen else NO_TIME}
    names = explanation.columns
    return {
        "answer": answer,
        "base": float(found.base[row]),
        "contributions": dict(zip(names, found.values[row].tolist(), strict=True)),
        "standard_errors": dict(zip(names, found.errors[row].tolist(), strict=True)),
    }
