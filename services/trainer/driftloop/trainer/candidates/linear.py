"""Ridge and logistic regression on standardised columns."""

import warnings
from typing import Any

import numpy as np
from driftloop.trainer.candidates.sample import Sample
from driftloop.trainer.candidates.space import Setting
from driftloop.trainer.graph import (
    RAW,
    Core,
    Floats,
    Link,
    Matrix,
    constant,
    imputation,
    medians_of,
)
from onnx import NodeProto, TensorProto, helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

RIDGE = {"alpha": 1.0}
LOGISTIC = {"C": 1.0, "max_iter": 500}
SPACES = {
    "linear": (
        Setting("alpha", RIDGE["alpha"], 1e-3, 1e4, only="regression"),
        Setting("C", LOGISTIC["C"], 1e-4, 1e3, only="classes"),
    )
}


def standardised(
    matrix: Matrix,
) -> tuple[Matrix, Matrix, Matrix]:
    """Return (width,) medians for missing values, means and scales (never 0)."""
    medians = medians_of(matrix)
    filled = np.where(np.isnan(matrix), medians, matrix)
    means = filled.mean(axis=0, dtype=np.float64).astype(np.float32)
    scales = filled.std(axis=0, dtype=np.float64).astype(np.float32)
    noise = np.finfo(np.float32).eps * np.abs(means)  # of a column with one value
    return medians, means, np.where(scales > noise, scales, np.float32(1))


def apply_standard(
    matrix: Matrix, medians: Matrix, means: Matrix, scales: Matrix
) -> Matrix:
    """Return the (n_rows, width) standardised matrix without missing values."""
    result: Matrix = (np.where(np.isnan(matrix), medians, matrix) - means) / scales
    return result


def standard_nodes(
    medians: Matrix, means: Matrix, scales: Matrix, output: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes that do the same as :func:`apply_standard`."""
    nodes, constants = imputation(medians, "standard/filled")
    nodes += [
        helper.make_node("Sub", ["standard/filled", "standard/means"],
                         ["standard/centred"]),
        helper.make_node("Div", ["standard/centred", "standard/scales"], [output]),
    ]  # fmt: skip
    constants += [
        constant("standard/means", means.reshape(1, -1)),
        constant("standard/scales", scales.reshape(1, -1)),
    ]
    return nodes, constants


def linear(sample: Sample) -> Core:
    """Ridge regression, or logistic regression for classes."""
    standard = standardised(sample.matrix)
    scaled = apply_standard(sample.matrix, *standard).astype(np.float64)
    usual = LOGISTIC if sample.classes else RIDGE
    parameters: dict[str, Any] = {**usual, **sample.parameters}
    model = (LogisticRegression if sample.classes else Ridge)(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the evaluation says it
        model.fit(scaled, sample.target, sample_weight=sample.weights)
    if sample.classes:
        parameters["iterations"] = int(np.max(model.n_iter_))
    answer = sample.predictor(model)

    def predict(matrix: Matrix) -> Floats:
        return answer(apply_standard(matrix, *standard).astype(np.float64))

    nodes, constants = standard_nodes(*standard, "linear/scaled")
    weights = np.atleast_2d(model.coef_)
    nodes.append(
        helper.make_node(
            "Gemm", ["linear/scaled", "linear/weights", "linear/bias"], [RAW]
        )
    )
    constants += [
        constant("linear/weights", weights.T),
        constant("linear/bias", np.ravel(model.intercept_)),
    ]
    link: Link = "identity"
    if sample.classes:
        link = "sigmoid" if len(weights) == 1 else "softmax"
    return Core(nodes, constants, link, predict, parameters)
