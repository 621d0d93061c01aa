"""The project's examples as rows that ingest and the validator have passed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import parse
from driftloop.trainer import fitting, judging, losses
from driftloop.trainer.encoding import learn_encoding
from driftloop.validator.core import check, contract_of

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {"bike-demand": "rentals.csv", "rain": "days.csv"}
"""Each example's real data."""

Floats = npt.NDArray[np.float64]
Learn = Callable[[npt.NDArray[np.float32], npt.NDArray[Any]], Any]


@dataclass(frozen=True)
class Example:
    """A pipeline and its good rows, (n_rows, n_columns), in order of event time."""

    spec: PipelineSpec
    rows: pa.Table

    def with_train(self, **settings: Any) -> PipelineSpec:
        """Return the pipeline with other settings under ``train``."""
        return self.changed({"train": settings}).spec

    def changed(self, sections: Mapping[str, Mapping[str, Any]]) -> "Example":
        """Return the same rows with other settings in some sections."""
        said = self.spec.model_dump(mode="json")
        changed = {name: said[name] | settings for name, settings in sections.items()}
        return Example(PipelineSpec.model_validate(said | changed), self.rows)


def load_example(name: str) -> Example:
    """Read an example's file as the door and the validator would."""
    spec = load_pipeline(EXAMPLES / name / "pipeline.yaml")
    parsed = parse((EXAMPLES / name / FILES[name]).read_bytes(), "text/csv")
    typed = typed_rows(parsed, spec, "observations", name)
    (batch,) = typed.table.combine_chunks().to_batches()
    contract = contract_of(spec, "observations", spec.data.features, spec.data.classes)
    good = pa.Table.from_batches([check(batch, contract).good])
    order = [("event_time", "ascending"), ("id", "ascending")]
    return Example(spec, good.sort_by(order))


def losses_of(
    learn: Learn, spec: PipelineSpec, known: pa.Table, asked: pa.Table
) -> Floats:
    """Return (n_rows,) losses of a scikit-learn model on the rows that are asked.

    It gets the same columns as driftloop's candidates do by default: numbers as they
    are, each category as columns of 0 and 1.
    """
    target = fitting.target_of(known, spec)
    classes: tuple[str, ...] = ()
    numbers: npt.NDArray[Any] = target.values
    if spec.task != "regression":
        classes = fitting.classes_of(target.values, spec)
        order = {label: number for number, label in enumerate(classes)}
        numbers = np.array([order[label] for label in target.values])
    outcomes = fitting.outcomes(numbers, classes)
    encoding, matrix = learn_encoding(known, spec, outcomes)
    model = learn(matrix, numbers)
    seen = encoding.matrix(asked)
    if not classes:
        said = judging.Predictions(np.asarray(model.predict(seen), dtype=np.float64))
    else:
        share = np.asarray(model.predict_proba(seen))
        likeliest = np.array(classes)[share.argmax(axis=1)]
        said = judging.Predictions(
            likeliest, share[:, 1] if len(classes) == 2 else share
        )
    truth = fitting.target_of(asked, spec, classes)
    return losses.row_losses(spec.metric, truth, said)
