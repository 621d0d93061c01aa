"""A federation's weights as a candidate that is measured like any other.

Its served graph is checked against the very functions that the sites trained with.
"""

from functools import partial

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.federated import FederatedColumn, FederatedEncoding
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.preprocessing import FAMILIES
from driftloop.models.federated import RowsRefused, answers_of, matrix_of
from driftloop.models.package import InputColumn
from driftloop.trainer import fitting, judging, losses
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.choosing import Chosen
from driftloop.trainer.encoding import MATRIX, Encoding
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.graph import RAW, Core, Floats, Link, assemble, constant
from driftloop.trainer.judging import Split
from driftloop.trainer.preprocessing.blocks import Block, Column
from driftloop.trainer.preprocessing.categories import OneHot
from driftloop.trainer.preprocessing.missing import FillNumbers
from driftloop.trainer.preprocessing.scaling import Scale
from driftloop.trainer.recipes import Recipe
from driftloop.trainer.request import FederatedResult
from driftloop.trainer.trials import Choice
from onnx import helper

NAME = "federated_linear"
LINKS: dict[str, Link] = {
    "regression": "identity", "binary": "sigmoid", "multiclass": "softmax",
}  # fmt: skip


def candidate_of(
    found: FederatedResult, split: Split, spec: PipelineSpec
) -> tuple[Fitted, Chosen]:
    """Return the model of the weights, and that it alone was tried.

    None of the pipeline's rows were learned from, so validation judges this model too.

    Raises
    ------
    CandidateRefused
        When the graph answers otherwise than the sites' functions, or not finitely.
    """
    fitted = fitted_of(found, split.training)
    said = fitted.loaded().predict(split.validation)
    if said.non_finite_count():
        raise CandidateRefused("its answers on validation are not all finite")
    each = judging.row_losses(spec, split.validation, said, fitted.classes)
    told = f"{found.rounds} rounds, {len(found.sites)} sites"
    tried = CandidateResult(
        name=NAME,
        validation_loss=losses.metric_value(spec.metric, each),
        fit_seconds=0.0,
        detail=told,
    )
    return fitted, Chosen(Choice((Recipe(NAME),)), fitted, [tried])


def fitted_of(found: FederatedResult, rows: pa.Table) -> Fitted:
    """Return the served model of the weights.

    Parameters
    ----------
    rows : on which graph and functions are compared.
    """
    how = found.encoding
    encoding, classes = encoding_of(how), tuple(how.classes)
    fitted = Fitted(
        NAME,
        assemble(encoding, _core_of(found), classes),
        encoding.inputs,
        classes,
        {
            "federation": found.federation_id,
            "rounds": found.rounds,
            "sites": len(found.sites),
        },
        found.row_count,
        0.0,
        encoding.records(),
    )
    checked = rows.slice(max(0, rows.num_rows - fitting.PARITY_ROWS))
    try:
        answers = answers_of(found.weights, matrix_of(checked, how), how)
    except RowsRefused as error:
        raise CandidateRefused(str(error)) from error
    unit = np.zeros(1)
    if how.task == "regression":
        answers = answers[:, 0] * how.target_half_range + how.target_centre
        unit = np.array([-1.0, 1.0]) * how.target_half_range
    elif how.task == "binary":
        answers = np.hstack([1 - answers, answers])
    parity = fitting.check_parity(fitted, checked, answers, unit)
    return Fitted(
        fitted.name, fitted.model, fitted.inputs, fitted.classes, fitted.parameters,
        fitted.row_count, fitted.fit_seconds, fitted.preprocessing, parity,
    )  # fmt: skip


def encoding_of(how: FederatedEncoding) -> Encoding:
    """Return the same encoding as steps of a served graph."""
    inputs = tuple(
        InputColumn(
            name=column.name,
            type=column.type,
            nullable=column.nullable,
            categories=column.values if column.type == "category" else None,
        )
        for column in how.columns
    )
    return Encoding(inputs, tuple(_block(column) for column in how.columns))


def _block(column: FederatedColumn) -> Block:
    family = FAMILIES[column.type]
    read = (Column(column.name, family, (column.name,)),)
    if family == "category":
        return Block(read, (OneHot(tuple(column.values)),))
    centre = np.array([column.centre], dtype=np.float32)
    width = np.array([column.half_range], dtype=np.float32)
    fill = FillNumbers("constant", centre)
    return Block(read, (fill, Scale("range", centre, width)))


def _core_of(found: FederatedResult) -> Core:
    how = found.encoding
    table = np.asarray(found.weights, np.float64).reshape(how.output_count, -1)
    weights, bias = table[:, :-1], table[:, -1]
    if how.task == "regression":
        weights = weights * how.target_half_range
        bias = bias * how.target_half_range + how.target_centre
    node = helper.make_node(
        "Gemm", [MATRIX, "federated/weights", "federated/bias"], [RAW]
    )
    constants = [
        constant("federated/weights", weights.T),
        constant("federated/bias", bias),
    ]
    return Core([node], constants, LINKS[how.task], partial(_answers, found))


def _answers(found: FederatedResult, matrix: Floats) -> Floats:
    return answers_of(found.weights, matrix.astype(np.float64), found.encoding)
