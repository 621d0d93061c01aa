"""An encoding as plain JSON, and back, for a training that goes on with it.

Steps are made by name from an exact list, with the fields that they have; arrays keep
every bit. Target encoding is not on the list: a model that is fitted again on the rows
that it was learned from would see their targets in it.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from driftloop.models.package import InputColumn
from driftloop.trainer.encoding import Encoding
from driftloop.trainer.preprocessing.blocks import Block, Column
from driftloop.trainer.preprocessing.categories import OneHot, Ordinal
from driftloop.trainer.preprocessing.hashing import Hashing
from driftloop.trainer.preprocessing.missing import (
    FillNumbers,
    FillTexts,
    NumberIndicator,
    TextIndicator,
)
from driftloop.trainer.preprocessing.moments import (
    FillMoments,
    MomentIndicator,
    Parts,
)
from driftloop.trainer.preprocessing.outliers import Clip
from driftloop.trainer.preprocessing.scaling import Scale
from driftloop.trainer.preprocessing.transforms import Log1p, QuantileMap, YeoJohnson
from driftloop.trainer.preprocessing.words import TfIdf, WordHashing

STEPS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        OneHot, Ordinal, Hashing, FillNumbers, FillTexts, NumberIndicator,
        TextIndicator, Clip, Scale, Log1p, QuantileMap, YeoJohnson, TfIdf, WordHashing,
        Parts, FillMoments, MomentIndicator,
    )
}  # fmt: skip
ARRAYS = ("float32", "float64", "int64")


class EncodingUnknown(ValueError):  # noqa: N818 - says what happened
    """An encoding cannot be written, or what was written is none, and why."""


def as_json(encoding: Encoding) -> dict[str, Any]:
    """Return an encoding as JSON.

    Raises
    ------
    EncodingUnknown
        When a step cannot be kept.
    """
    return {
        "inputs": [column.model_dump(mode="json") for column in encoding.inputs],
        "blocks": [
            {
                "columns": [_fields(column) for column in block.columns],
                "steps": [_step(step) for step in block.steps],
                "indicator": block.indicator and _step(block.indicator),
            }
            for block in encoding.blocks
        ],
    }


def of_json(content: Mapping[str, Any]) -> Encoding:
    """Return the encoding that :func:`as_json` was given.

    Raises
    ------
    EncodingUnknown
        When it is none.
    """
    try:
        return Encoding(
            tuple(InputColumn.model_validate(one) for one in content["inputs"]),
            tuple(
                Block(
                    tuple(
                        Column(one["name"], one["family"], tuple(one["inputs"]))
                        for one in block["columns"]
                    ),
                    tuple(_made(step) for step in block["steps"]),
                    _made(block["indicator"]) if block["indicator"] else None,
                )
                for block in content["blocks"]
            ),
        )
    except EncodingUnknown:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise EncodingUnknown(f"its encoding is not whole: {error!r}") from error


def _step(step: Any) -> dict[str, Any]:
    name = type(step).__name__
    if STEPS.get(name) is not type(step):
        raise EncodingUnknown(
            "target encoding is learned anew each time"
            if name == "TargetMean"
            else f"the step {name} cannot be kept"
        )
    return {"step": name, "fields": _fields(step)}


def _fields(given: Any) -> dict[str, Any]:
    return {one.name: _plain(getattr(given, one.name)) for one in fields(given)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.name not in ARRAYS:
            raise EncodingUnknown(f"numbers of type {value.dtype.name} cannot be kept")
        values = [v if np.isfinite(v) else repr(v) for v in value.ravel().tolist()]
        return {
            "type": value.dtype.name,
            "shape": list(value.shape),
            "values": values,
        }
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise EncodingUnknown(f"a {type(value).__name__} cannot be kept")


def _made(content: Mapping[str, Any]) -> Any:
    kind = STEPS.get(content["step"])
    if kind is None:
        raise EncodingUnknown(f"{content['step']!r} is no step of an encoding")
    return kind(**{name: _value(one) for name, one in content["fields"].items()})


def _value(content: Any) -> Any:
    if isinstance(content, dict):
        if content["type"] not in ARRAYS:
            raise EncodingUnknown(f"{content['type']!r} is no type of numbers")
        whole = content["type"] == "int64"
        values = [int(v) if whole else float(v) for v in content["values"]]
        return np.array(values, dtype=content["type"]).reshape(content["shape"])
    if isinstance(content, list):
        return tuple(_value(one) for one in content)
    return content
