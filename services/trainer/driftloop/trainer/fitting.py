"""One candidate from rows to ONNX bytes that are proven to answer like it."""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import OnnxModel, category_array
from driftloop.models.package import InputColumn
from driftloop.trainer.candidates import (
    UNWATCHED,
    CandidateRefused,
    Sample,
    Watch,
    candidate,
)
from driftloop.trainer.encoding import learn_encoding
from driftloop.trainer.graph import Floats, assemble
from driftloop.trainer.losses import Target
from threadpoolctl import threadpool_limits

PARITY_ROWS = 500
PARITY_TOLERANCE = 1e-4
"""Greatest difference of the served graph from the library's answer: of the
probability, or of the prediction relative to the target's standard deviation.
float32 keeps about seven digits; sums over hundreds of trees lose two or three."""


@dataclass(frozen=True)
class Fitted:
    """A candidate that can be served.

    Attributes
    ----------
    model : ONNX bytes.
    classes : labels in the order of the score's columns; empty for regression.
    fit_seconds : wall clock, for people; never part of a package.
    """

    name: str
    model: bytes
    inputs: tuple[InputColumn, ...]
    classes: tuple[str, ...]
    parameters: dict[str, Any]
    row_count: int
    fit_seconds: float

    def loaded(self) -> OnnxModel:
        return self._loaded

    @cached_property
    def _loaded(self) -> OnnxModel:
        return OnnxModel(self.model, list(self.inputs))


def target_of(
    rows: pa.Table, spec: PipelineSpec, classes: tuple[str, ...] = ()
) -> Target:
    """Return the true values of rows: numbers, or class labels as text."""
    column = rows.column(spec.data.target).combine_chunks()
    if spec.task == "regression":
        return Target(np.asarray(column.cast(pa.float64()).to_numpy()))
    return Target(category_array(column).astype(str), classes)


def classes_of(labels: npt.NDArray[Any], spec: PipelineSpec) -> tuple[str, ...]:
    """Return the classes that are there, as the pipeline file orders them.

    Raises
    ------
    CandidateRefused
        When there are too few to tell apart, or more than two for a binary task.
    """
    present = sorted(set(labels.tolist()))
    if spec.data.classes:
        named = category_array(pa.array([_text(c) for c in spec.data.classes]))
        present = [label for label in named.tolist() if label in present]
    if len(present) < 2 or (spec.task == "binary" and len(present) > 2):
        raise CandidateRefused(
            f"the target {spec.data.target!r} has the classes {present} in training; "
            f"a {spec.task} task needs {'two' if spec.task == 'binary' else 'several'}"
        )
    return tuple(present)


def _text(label: str | int | bool) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def fit(
    name: str,
    rows: pa.Table,
    spec: PipelineSpec,
    threads: int,
    watch: Watch = UNWATCHED,
) -> Fitted:
    """Fit a candidate on rows in order of time and export it.

    Raises
    ------
    CandidateRefused
        When the candidate cannot be used, or its export answers differently.
    """
    started = time.perf_counter()
    encoding = learn_encoding(rows, spec.data.features, spec.data.target)
    matrix = encoding.matrix(rows)
    target = target_of(rows, spec)
    classes: tuple[str, ...] = ()
    numbers: npt.NDArray[Any] = target.values
    if spec.task != "regression":
        classes = classes_of(target.values, spec)
        order = {label: number for number, label in enumerate(classes)}
        known = np.array([label in order for label in target.values])
        matrix = matrix[known]
        numbers = np.array([order[label] for label in target.values[known]])
    sample = Sample(matrix, numbers, classes, spec.train.seed, threads, watch)
    learn = candidate(name)  # loads the library, so that its threads can be limited
    with threadpool_limits(threads):
        core = learn(sample)
    model = assemble(encoding, core, classes)
    seconds = time.perf_counter() - started
    fitted = Fitted(
        name, model, encoding.inputs, classes, core.parameters, len(numbers), seconds
    )
    checked = rows.slice(max(0, rows.num_rows - PARITY_ROWS))
    check_parity(fitted, checked, core.predict(encoding.matrix(checked)), numbers)
    return fitted


def check_parity(
    fitted: Fitted, rows: pa.Table, expected: Floats, target: npt.NDArray[Any]
) -> None:
    """Return if the served graph answers what the library answers.

    Parameters
    ----------
    expected : (n_rows,) for regression, else (n_rows, n_classes).
    target : of training; its spread is the unit of a regression's difference.

    Raises
    ------
    CandidateRefused
        Names the difference.
    """
    found = fitted.loaded().predict(rows)
    unit = 1.0
    if found.score is None:
        answer = found.prediction
        unit = float(np.std(target)) or 1.0
    else:
        answer = found.score
        expected = expected[:, 1] if answer.ndim == 1 else expected
    difference = float(np.max(np.abs(answer - expected))) / unit
    if not difference <= PARITY_TOLERANCE:  # also true for NaN
        raise CandidateRefused(
            f"the exported graph differs by {difference:.2g} from what was trained; "
            f"{PARITY_TOLERANCE} is allowed"
        )


def save(fitted: Fitted, folder: Path, stage: str) -> None:
    """Write a checkpoint; a training that is repeated goes on from it."""
    path = folder / f"{stage}-{fitted.name}"
    _replace(path.with_suffix(".onnx"), fitted.model)
    facts = {
        "inputs": [column.model_dump(mode="json") for column in fitted.inputs],
        "classes": fitted.classes,
        "parameters": fitted.parameters,
        "row_count": fitted.row_count,
        "fit_seconds": fitted.fit_seconds,
    }
    _replace(path.with_suffix(".json"), json.dumps(facts).encode())


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_suffix(f"{path.suffix}.draft")
    draft.write_bytes(data)
    draft.replace(path)


def saved(folder: Path, stage: str, name: str) -> Fitted | None:
    """Return a checkpoint that :func:`save` completed, if there is one."""
    path = folder / f"{stage}-{name}"
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
        model = path.with_suffix(".onnx").read_bytes()
    except FileNotFoundError:
        return None
    return Fitted(
        name,
        model,
        tuple(InputColumn.model_validate(column) for column in facts["inputs"]),
        tuple(facts["classes"]),
        facts["parameters"],
        facts["row_count"],
        facts["fit_seconds"],
    )
