"""A registered model as a candidate that is measured like any other.

Its bytes are parsed with the list of allowed operators before anything runs them, in
the training's own process; what it cannot be served with is a refusal in words.
"""

import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.formats import FormatRefused, check_onnx
from driftloop.models.onnx_graph import inputs_of
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import InputColumn
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.trainer import fitting, judging, losses
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.choosing import Chosen
from driftloop.trainer.encoding import features_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.judging import Split
from driftloop.trainer.recipes import Recipe
from driftloop.trainer.request import SubmittedModel
from driftloop.trainer.trials import Choice

NAME = "registered_onnx"


def candidate_of(
    found: SubmittedModel, split: Split, spec: PipelineSpec, store: ArtifactStore
) -> tuple[Fitted, Chosen]:
    """Return a registered model, and that it alone was tried.

    What it learned from is not known here. Validation and hold-out are judged like
    those of any model; the rollout compares it on rows that nobody had seen.

    Raises
    ------
    CandidateRefused
        When it takes or gives something else than the pipeline's rows need.
    Retry
        When the store is away.
    """
    data = store.get(found.model.uri, found.model.sha256)
    try:
        graph = check_onnx(data)
        features = features_of(split.training, spec)
        types = {name: one.type for name, one in features.items()}
        kinds = inputs_of(graph, types, spec.task)
    except FormatRefused as error:
        raise CandidateRefused(str(error)) from error
    inputs = tuple(
        InputColumn(
            name=name,
            type=kind,
            nullable=features[name].nullable,
            timezone=spec.data.timezone if kind == "datetime" else None,
        )
        for name, kind in kinds.items()
    )
    fitted = Fitted(
        NAME,
        data,
        inputs,
        _classes(split.training, spec),
        {"source": found.source, "sha256": found.model.sha256},
        split.training.num_rows,
        0.0,
    )
    try:
        said = fitted.loaded().predict(split.validation)
    except Exception as error:  # whatever a model does is its verdict
        raise CandidateRefused(f"it does not answer: {error}") from error
    _check_answers(said, fitted.classes)
    each = judging.row_losses(spec, split.validation, said, fitted.classes)
    tried = CandidateResult(
        name=NAME,
        validation_loss=losses.metric_value(spec.metric, each),
        fit_seconds=0.0,
        detail=f"from {found.source}",
    )
    return fitted, Chosen(Choice((Recipe(NAME),)), fitted, [tried])


def _classes(rows: pa.Table, spec: PipelineSpec) -> tuple[str, ...]:
    if spec.task == "regression":
        return ()
    return fitting.classes_of(fitting.target_of(rows, spec).values, spec)


def _check_answers(said: Predictions, classes: tuple[str, ...]) -> None:
    if said.non_finite_count():
        raise CandidateRefused("its answers on validation are not all finite")
    if not classes:
        return
    if strange := sorted(set(said.prediction.tolist()) - set(classes)):
        raise CandidateRefused(
            f"it answers {', '.join(map(repr, strange[:5]))}; the classes are "
            f"{', '.join(map(repr, classes))}"
        )
    shape = () if said.score is None else said.score.shape[1:]
    wanted = [(), (2,)] if len(classes) == 2 else [(len(classes),)]
    if said.score is None or shape not in wanted:
        raise CandidateRefused(
            f"its score has shape (n, {', '.join(map(str, shape))}); a probability of "
            f"each of {', '.join(map(repr, classes))}, in this order, is wanted"
        )
