"""One candidate from rows to ONNX bytes that are proven to answer like it."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import OnnxModel, category_array
from driftloop.models.package import InputColumn, PreprocessingStep
from driftloop.trainer import continuing
from driftloop.trainer.candidates import (
    UNWATCHED,
    CandidateRefused,
    Sample,
    Watch,
    candidate,
    target_unit,
)
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.candidates.own import own_candidate
from driftloop.trainer.continuing import Heritage
from driftloop.trainer.encoding import (
    Encoding,
    EncodingRefused,
    features_of,
    learn_encoding,
)
from driftloop.trainer.graph import Floats, Matrix, assemble
from driftloop.trainer.layout import layout_of
from driftloop.trainer.losses import Target
from driftloop.trainer.preprocessing.duplicates import without_duplicates
from threadpoolctl import threadpool_limits

MIN_ROWS = 2
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
    preprocessing : the steps before the model, and what they learned.
    classes : labels in the order of the score's columns; empty for regression.
    fit_seconds : wall clock, for people; never part of a package.
    parity : greatest difference of the graph from the library's answers, as
        :func:`check_parity` found it.
    state : files of a package for a next training to go on from, by name.
    note : what is to be told of the state.
    """

    name: str
    model: bytes
    inputs: tuple[InputColumn, ...]
    classes: tuple[str, ...]
    parameters: dict[str, Any]
    row_count: int
    fit_seconds: float
    preprocessing: tuple[PreprocessingStep, ...] = ()
    parity: float | None = None
    state: Mapping[str, bytes] = field(default_factory=dict)
    note: str = ""

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
    machine: Machine | int,
    watch: Watch = UNWATCHED,
    weigh: Callable[[pa.Table], Floats | None] = lambda _: None,
    allowed_imports: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    heritage: Heritage | None = None,
) -> Fitted:
    """Fit a candidate on rows in order of time and export it.

    Parameters
    ----------
    machine : what may be used of it; a number: so many threads of the CPU.
    weigh : gives the (n_rows,) weights of the rows that are learned from, or None.
    allowed_imports : modules that a candidate of the file may be imported from.
    parameters : instead of the candidate's usual ones, where they are named.
    heritage : of the champion, to go on from; None: learn from scratch.

    Raises
    ------
    CandidateRefused
        When the candidate cannot be used, or its export answers differently.
    """
    started, machine = time.perf_counter(), Machine.of(machine)
    learned, dropped = learned_rows(rows, spec)
    target = target_of(learned, spec)
    _check_target(target, spec)
    classes: tuple[str, ...] = ()
    numbers: npt.NDArray[Any] = target.values
    if spec.task != "regression":
        classes = heritage.classes if heritage else classes_of(target.values, spec)
        order = {label: number for number, label in enumerate(classes)}
        known = np.array([label in order for label in target.values])
        learned = learned.filter(pa.array(known))
        numbers = np.array([order[label] for label in target.values[known]])
    encoding, matrix = _encoded(learned, spec, outcomes(numbers, classes), heritage)
    layout = layout_of(encoding, learned, spec.train.sequences)
    sample = Sample(
        matrix, numbers, classes, spec.train.seed, machine.threads, watch,
        layout.groups, layout.channels, spec.metric, weigh(learned),
        parameters or {}, machine, spec.train.networks,
        start=None if heritage is None else heritage.start(learned["event_time"]),
        keeps_state=spec.train.continue_from_champion,
    )  # fmt: skip
    own = own_candidate(name, spec.train.candidates, allowed_imports)
    learn = own or candidate(name)  # with its library, so that threads can be limited
    with threadpool_limits(machine.threads):
        core = continuing.learned(learn, sample)
    state = continuing.files_of(name, core.state, encoding, learned, classes, spec)
    fitted = Fitted(
        name,
        assemble(encoding, core, classes),
        encoding.inputs,
        classes,
        core.parameters,
        len(numbers),
        time.perf_counter() - started,
        (*dropped, *encoding.records()),
        None,
        *state,
    )
    checked = rows.slice(max(0, rows.num_rows - PARITY_ROWS))
    difference = check_parity(
        fitted, checked, core.predict(encoding.matrix(checked)), numbers
    )
    return replace(fitted, parity=difference)


def _encoded(
    rows: pa.Table, spec: PipelineSpec, outcome: Floats, heritage: Heritage | None
) -> tuple[Encoding, Matrix]:
    """Return the encoding of rows to learn, or the champion's, and their matrix."""
    if heritage is not None and heritage.encoding is not None:
        return heritage.encoding, heritage.encoding.matrix(rows)
    try:
        return learn_encoding(rows, spec, outcome)
    except EncodingRefused as error:
        raise CandidateRefused(str(error)) from error


def _check_target(target: Target, spec: PipelineSpec) -> None:
    """Refuse rows that nothing can be learned from."""
    name = spec.data.target
    if len(target.values) < MIN_ROWS:
        raise CandidateRefused(
            f"{len(target.values)} rows with a target {name!r}; "
            f"a model needs {MIN_ROWS} at least"
        )
    if target.values.dtype.kind == "f":
        wrong = int(np.sum(~np.isfinite(target.values)))
        if wrong:
            raise CandidateRefused(
                f"{wrong} values of the target {name!r} are missing or infinite; "
                "leave those rows out"
            )


def learned_rows(
    rows: pa.Table, spec: PipelineSpec
) -> tuple[pa.Table, list[PreprocessingStep]]:
    """Return the rows to learn from, and what the manifest says of those dropped."""
    if spec.train.preprocessing.duplicates == "keep":
        return rows, []
    columns = ["event_time", *features_of(rows, spec), spec.data.target]
    kept = without_duplicates(rows, columns)
    count = {"rows": {"dropped": rows.num_rows - kept.num_rows}}
    return kept, [
        PreprocessingStep(step="drop_duplicates", columns=columns, fitted=count)
    ]


def outcomes(numbers: npt.NDArray[Any], classes: tuple[str, ...]) -> Floats:
    """Return (n_rows, n_outcomes) of what target encoding takes the mean.

    The target, or 0 and 1: for the second of two classes, else for each class.
    """
    found: Floats = numbers.astype(np.float64).reshape(-1, 1)
    if len(classes) > 2:
        found = np.eye(len(classes))[numbers]
    return found


def check_parity(
    fitted: Fitted, rows: pa.Table, expected: Floats, target: npt.NDArray[Any]
) -> float:
    """Return how far the served graph answers otherwise than the library.

    To one digit, upward: what a processor's order of sums decides is no more.

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
        unit = target_unit(target)
    else:
        answer = found.score
        expected = expected[:, 1] if answer.ndim == 1 else expected
    difference = float(np.max(np.abs(answer - expected))) / unit
    if not difference <= PARITY_TOLERANCE:  # also true for NaN
        raise CandidateRefused(
            f"the exported graph differs by {difference:.2g} from what was trained; "
            f"{PARITY_TOLERANCE} is allowed"
        )
    if difference == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(difference))
    return float(f"{math.ceil(difference / unit) * unit:.0e}")


def save(fitted: Fitted, folder: Path, stage: str) -> None:
    """Write a checkpoint; a training that is repeated goes on from it."""
    path = folder / f"{stage}-{fitted.name}"
    for name, data in fitted.state.items():
        _replace(path.with_suffix(f".{name}"), data)
    _replace(path.with_suffix(".onnx"), fitted.model)
    facts = {
        "inputs": [column.model_dump(mode="json") for column in fitted.inputs],
        "classes": fitted.classes,
        "parameters": fitted.parameters,
        "row_count": fitted.row_count,
        "fit_seconds": fitted.fit_seconds,
        "preprocessing": [s.model_dump(mode="json") for s in fitted.preprocessing],
        "parity": fitted.parity,
        "state": list(fitted.state),
        "note": fitted.note,
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
        state = {
            name: path.with_suffix(f".{name}").read_bytes()
            for name in facts.get("state", [])
        }
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
        tuple(PreprocessingStep.model_validate(s) for s in facts["preprocessing"]),
        facts.get("parity"),
        state,
        facts.get("note", ""),
    )
