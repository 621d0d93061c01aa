"""An explanation as tensors and parameters of the protocol; pure.

The protocol has no verb for it in version 2. A request asks by its ``parameters``
(``explain``, ``explain_ms``); contributions are one more output, with a column for each
input in the order of the metadata.
"""

import json
from typing import Any

import numpy as np
from driftloop.scorer.explaining.explainer import Unexplained
from driftloop.scorer.explaining.pool import Explanation
from driftloop.scorer.explaining.telling import head_of
from driftloop.scorer.open_inference.tensors import EXPLAINED, Output


def tensors_of(explanation: Explanation | Unexplained | None) -> list[Output] | None:
    """Return the outputs of an explanation; NaN where a row has none.

    None: it was not asked for.
    """
    if explanation is None:
        return None
    if isinstance(explanation, Unexplained):
        return []
    found = explanation.found
    n_rows, n_columns = found.values.shape
    wide, narrow = [n_rows, n_columns], [n_rows, 1]
    parts = (found.values, wide), (found.errors, wide), (found.base, narrow)
    return [
        Output(name, "FP64", shape, np.ascontiguousarray(values).reshape(-1))
        for name, (values, shape) in zip(EXPLAINED, parts, strict=True)
    ]


def parameters_of(
    explanation: Explanation | Unexplained | None,
) -> dict[str, str | int | bool]:
    """Return what an answer says of its explanation, beside the outputs."""
    if explanation is None:
        return {}
    told: dict[str, Any]
    if isinstance(explanation, Unexplained):
        told = {"missing": explanation.reason, "timed_out": explanation.timed_out}
    else:
        columns = json.dumps(explanation.columns, ensure_ascii=False)
        told = {**head_of(explanation), "columns": columns}
    return {f"explain_{name}": value for name, value in told.items()}
