"""From fitted models and split rows to what the measurements look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from driftloop.contracts.measures import FitVerdict, Parity
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.models.onnx_model import (
    OnnxModel,
    Predictions,
    moment_array,
    number_array,
)
from driftloop.models.package import InputColumn
from driftloop.trainer import fitting, losses
from driftloop.trainer.candidates import target_unit
from driftloop.trainer.evaluation import fit
from driftloop.trainer.evaluation.measuring import Known
from driftloop.trainer.evaluation.subject import Scene, Spread, Subject, spread_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.losses import Floats

FITTED_ROWS = 1000
"""Of the rows that a candidate learned from: how well it knows them."""


@dataclass(frozen=True)
class Split:
    """Rows in order of time; ``training`` is ``fitting`` plus ``validation``."""

    fitting: pa.Table
    validation: pa.Table
    training: pa.Table
    holdout: pa.Table


def row_losses(
    spec: PipelineSpec,
    rows: pa.Table,
    predicted: Predictions,
    classes: tuple[str, ...],
) -> Floats:
    """Return (n_rows,) losses of predictions about labelled rows."""
    target = fitting.target_of(rows, spec, classes)
    return losses.row_losses(spec.metric, target, predicted)


def subject_of(
    model: OnnxModel, classes: Sequence[str], rows: pa.Table, spec: PipelineSpec
) -> Subject:
    """Return a model on labelled rows.

    Raises
    ------
    InputRefused
        When the rows lack a feature of the model.
    """
    target = fitting.target_of(rows, spec, tuple(classes))
    return Subject(model, spec.metric, target, model.feeds(rows))


def scene_of(
    candidate: Subject,
    champion: Subject | None,
    columns: tuple[InputColumn, ...],
    training: pa.Table,
    rows: pa.Table,
    spec: PipelineSpec,
) -> Scene:
    """Return both models, no skill, and what training saw, on the hold-out rows."""
    classes = candidate.target.classes
    guess = no_skill(training, rows, spec, classes)
    deviation = 1.0
    if spec.task == "regression":
        deviation = target_unit(
            fitting.target_of(training, spec).values.astype(np.float64)
        )
    return Scene(
        rows,
        columns,
        candidate,
        champion,
        row_losses(spec, rows, guess, classes),
        spreads_of(training, columns, spec.data.features),
        deviation,
        spec.train.seed,
    )


def spreads_of(
    rows: pa.Table, columns: Sequence[InputColumn], features: Mapping[str, Feature]
) -> dict[str, Spread]:
    """Return where each number and datetime lies that varies in the rows."""
    found = {}
    for column in columns:
        if column.type in ("number", "integer", "datetime"):
            read = moment_array if column.type == "datetime" else number_array
            values = read(rows.column(column.name).combine_chunks())
            feature = features.get(column.name)
            is_whole = column.type == "integer"
            spread = spread_of(values, feature, is_whole=is_whole)
            if spread is not None:
                found[column.name] = spread
    return found


def known_of(
    chosen: Fitted,
    tried: Fitted,
    split: Split,
    scene: Scene,
    spec: PipelineSpec,
    refit: Callable[[pa.Table], bytes],
) -> Known:
    """Return what the training found out on its way; see :class:`Known`."""
    errors = np.empty(0)
    if spec.task == "regression":
        truth = fitting.target_of(split.validation, spec).values.astype(np.float64)
        errors = tried.loaded().predict(split.validation).prediction - truth
    parity = None
    if chosen.parity is not None:
        parity = Parity(difference=chosen.parity, tolerance=fitting.PARITY_TOLERANCE)

    verdict = fit_verdict(chosen, tried, split, scene, spec)
    return Known(verdict, parity, errors, split.training, refit)


def fit_verdict(
    chosen: Fitted, tried: Fitted, split: Split, scene: Scene, spec: PipelineSpec
) -> FitVerdict:
    """Return the verdict on how the chosen candidate was fitted."""
    seen = split.fitting
    if seen.num_rows > FITTED_ROWS:
        index = np.linspace(0, seen.num_rows - 1, FITTED_ROWS).astype(np.int64)
        seen = seen.take(pa.array(index))

    def on(rows: pa.Table) -> fit.Losses:
        guess = no_skill(split.fitting, rows, spec, tried.classes)
        found = (tried.loaded().predict(rows), guess)
        each = [row_losses(spec, rows, one, tried.classes) for one in found]
        return fit.Losses(*(losses.metric_value(spec.metric, one) for one in each))

    holdout = fit.Losses(
        losses.metric_value(spec.metric, scene.candidate.losses()),
        losses.metric_value(spec.metric, scene.baseline),
    )
    return fit.judge(on(seen), on(split.validation), holdout, chosen.parameters)


def no_skill(
    training: pa.Table, rows: pa.Table, spec: PipelineSpec, classes: tuple[str, ...]
) -> Predictions:
    """Return the best constant answer: median, mean or the classes' shares."""
    known = fitting.target_of(training, spec, classes).values
    if spec.task == "regression":
        middle = np.median if spec.metric == "mae" else np.mean
        constant = float(middle(known.astype(np.float64)))
        return Predictions(np.full(rows.num_rows, constant))
    shares = np.array([float(np.mean(known == label)) for label in classes])
    label = classes[int(np.argmax(shares))]
    return Predictions(
        np.full(rows.num_rows, label), np.tile(shares, (rows.num_rows, 1))
    )
