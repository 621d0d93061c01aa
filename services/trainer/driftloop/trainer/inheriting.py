"""What the champion left, and whether this training can go on from it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import ServedModel
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.package import InputColumn, Package
from driftloop.trainer import encoding_json, fitting
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.continuing import (
    HEADER_FILE,
    MISFITS,
    Header,
    Heritage,
    said,
)
from driftloop.trainer.encoding import Encoding, EncodingRefused, learn_encoding
from driftloop.trainer.encoding_json import EncodingUnknown
from driftloop.trainer.preprocessing.blocks import Block
from pydantic import ValidationError


def heritage_of(
    spec: PipelineSpec,
    rows: pa.Table,
    champion: ServedModel | None,
    package: Package | None,
) -> Heritage | None:
    """Return what the champion left; None where nobody asks for it, or none is there.

    Parameters
    ----------
    rows : of training and validation, in order of time.
    package : the champion's, with the files that only a training needs.
    """
    if not (champion and package and spec.train.continue_from_champion):
        return None
    version = champion.version
    try:
        return _left(version, package.files.get, rows, spec)
    except ValidationError as error:
        named = ".".join(map(str, error.errors()[0]["loc"]))
        why = f"its state is of another form ({named})"
    except (CandidateRefused, EncodingRefused, EncodingUnknown) as error:
        why = str(error)
    return Heritage(version, why=f"version {version}: {why}")


def _left(
    version: int,
    file: Callable[[str], bytes | None],
    rows: pa.Table,
    spec: PipelineSpec,
) -> Heritage:
    """Return what there is to go on from, or raise why there is nothing."""
    content = file(HEADER_FILE)
    if content is None:
        raise CandidateRefused("it keeps no state")
    header = Header.model_validate_json(content)
    encoding = _fitting_encoding(header, rows, spec)
    state = file(header.state_file)
    if state is None:
        raise CandidateRefused(f"it lacks {header.state_file}")
    return Heritage(version, header, state, encoding)


def _fitting_encoding(header: Header, rows: pa.Table, spec: PipelineSpec) -> Encoding:
    """Return a state's encoding.

    Raises
    ------
    CandidateRefused
        When these rows, or this pipeline file, need another one, or have other classes.
    """
    if changed := _changed(header, spec):
        raise CandidateRefused(f"{changed} has changed since")
    learned, _ = fitting.learned_rows(rows, spec)
    target = fitting.target_of(learned, spec)
    outcome = np.zeros((learned.num_rows, 1))
    if spec.task != "regression":
        found = fitting.classes_of(target.values, spec)
        if new := [label for label in found if label not in header.classes]:
            raise CandidateRefused(f"{_new_values(spec.data.target, new)} since")
    fresh, _ = learn_encoding(learned, spec, outcome)
    known = encoding_json.of_json(header.encoding)
    if changed := difference(known, fresh):
        raise CandidateRefused(f"{changed} since")
    try:
        known.matrix(learned.slice(0, 1))
    except MISFITS as error:
        raise EncodingUnknown(f"its encoding is not whole: {error!r}") from error
    return replace(known, inputs=_named(known, fresh))


def _changed(header: Header, spec: PipelineSpec) -> str | None:
    """Return the key of the pipeline file that a state was learned with another of."""
    had = {
        "task": header.task,
        "data.target": header.target,
        "train.preprocessing": header.preprocessing,
        "train.sequences": header.sequences,
    }
    has = said(spec)
    return next((key for key, value in had.items() if has[key] != value), None)


def difference(known: Encoding, fresh: Encoding) -> str | None:
    """Return what rows need that an encoding does not have; None: nothing.

    What was learned about numbers may differ (a scale, a median): the known one holds
    on. A category of which a new value is frequent enough to count does not.
    """
    if _types(known) != _types(fresh):
        return "the features have changed"
    if [_shape(block) for block in known.blocks] != [
        _shape(block) for block in fresh.blocks
    ]:
        return "other columns have had values"
    for before, now in zip(known.blocks, fresh.blocks, strict=True):
        had = {value for step in before.steps for value in _values(step)}
        new = [v for step in now.steps for v in _values(step) if v not in had]
        if new:
            return _new_values(before.columns[0].name, new)
    return None


def _new_values(name: str, values: list[str]) -> str:
    return f"{name} has had new values, such as {values[0]!r},"


def _types(encoding: Encoding) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in encoding.inputs]


def _shape(block: Block) -> tuple[object, ...]:
    steps = [*block.steps, *([block.indicator] if block.indicator else [])]
    return block.columns, tuple(type(step).__name__ for step in steps)


def _values(step: object) -> tuple[str, ...]:
    values: tuple[str, ...] = getattr(step, "categories", ())
    return values


def _named(known: Encoding, fresh: Encoding) -> tuple[InputColumn, ...]:
    """Return this training's features, with the known encoding's categories."""
    return tuple(
        now.model_copy(update={"categories": before.categories})
        for before, now in zip(known.inputs, fresh.inputs, strict=True)
    )
