"""Checks of the pipeline's own package: a function, or a pandera schema.

Code is imported only from modules that the installation allows by the setting
``DRIFTLOOP_VALIDATOR_CHECK_MODULES``: whoever may apply a pipeline file may otherwise
run any function that is installed. A check that cannot be imported or that raises
fails for all rows, at its own severity: rows never pass because a check broke.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from driftloop.contracts.checks import FunctionCheck, PanderaCheck
from driftloop.validator.columns import Failure
from driftloop.validator.values import Mask

SETTING = "DRIFTLOOP_VALIDATOR_CHECK_MODULES"
Found = tuple[str, Mask | None, str]
"""What failed, (n_rows,) which rows (None: the batch), and how."""


class CannotLoadError(Exception):
    """A check cannot be imported; the text names the setting or the remedy."""


class CustomChecks:
    """Imports checks when they are first needed and runs them.

    Parameters
    ----------
    allowed : modules, each with all below it.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = tuple(allowed)
        self._loaded: dict[str, Any] = {}

    def __call__(
        self, rule: FunctionCheck | PanderaCheck, frame: pl.DataFrame
    ) -> Iterator[Failure]:
        """Run a check and yield what it found."""
        run: Callable[[Any, pl.DataFrame], Iterator[Found]]
        if isinstance(rule, PanderaCheck):
            path, run = rule.pandera, _by_pandera
        else:
            path, run = rule.function, _by_function
        try:
            found = list(run(self._load(path), frame))
        except CannotLoadError as error:
            found = [(path, None, str(error))]
        except Exception as error:  # noqa: BLE001 - foreign code: rows must not pass by it
            detail = f"{path} raised {type(error).__name__}: {error}; correct it"
            found = [(path, None, detail)]
        for field, mask, detail in found:
            every = np.ones(len(frame), np.bool_)
            yield Failure(rule.check, field, every if mask is None else mask, detail)

    def _load(self, path: str) -> Any:
        if path not in self._loaded:
            self._loaded[path] = self._import(path)
        return self._loaded[path]

    def _import(self, path: str) -> Any:
        module, _, name = path.partition(":")
        if not any(module == a or module.startswith(f"{a}.") for a in self._allowed):
            top = module.split(".")[0]
            raise CannotLoadError(
                f"{path} was not run: the installation does not allow module "
                f"{module!r}; whoever runs the validator may allow it with "
                f"{SETTING}='[\"{top}\"]'"
            )
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise CannotLoadError(
                f"{path} cannot be imported: {error}; install its package beside the "
                "validator, or correct the path"
            ) from error
        return found


# ── functions ───────────────────────────────────────────────────────────────


def _by_function(function: Any, frame: pl.DataFrame) -> Iterator[Found]:
    """Read what a function returns; docs/checks.md says what it may."""
    name = f"{function.__module__}:{function.__qualname__}"
    result = function(frame)
    if isinstance(result, bool | np.bool_):
        if not result:
            yield name, None, _said(function, "the batch is not right")
    elif isinstance(result, Mapping):
        for text, right in result.items():
            yield from _wrong_rows(name, right, len(frame), str(text))
    elif _is_texts(result):
        yield from ((name, None, text) for text in result)
    else:
        text = _said(function, "the row is not right")
        yield from _wrong_rows(name, result, len(frame), text)


def _said(function: Any, otherwise: str) -> str:
    """Return the first line of a function's docstring, which says what is right."""
    lines = (function.__doc__ or "").strip().splitlines()
    return lines[0] if lines else otherwise


def _is_texts(result: Any) -> bool:
    return isinstance(result, list | tuple) and all(isinstance(t, str) for t in result)


def _wrong_rows(name: str, right: Any, count: int, text: str) -> Iterator[Found]:
    values = pl.Series(right).rechunk()
    if values.dtype != pl.Boolean or len(values) != count:
        raise TypeError(
            f"it has to return {count} booleans, one a row, a dict of these by text, "
            f"one boolean, or a list of texts, not {len(values)} of {values.dtype}"
        )
    wrong: Mask = (~values).fill_null(value=False).to_numpy()
    if wrong.any():
        yield name, wrong, text


# ── pandera ─────────────────────────────────────────────────────────────────


def _by_pandera(schema: Any, frame: pl.DataFrame) -> Iterator[Found]:
    """Validate with a ``pandera.polars`` schema or model; all errors at once."""
    try:
        from pandera.errors import SchemaErrors
        from pandera.polars import DataFrameModel, DataFrameSchema
    except ImportError as error:
        raise CannotLoadError(
            "pandera is not installed; install driftloop-validator[pandera]"
        ) from error
    is_model = isinstance(schema, type) and issubclass(schema, DataFrameModel)
    if not is_model and not isinstance(schema, DataFrameSchema):
        raise TypeError("it is no schema or model of pandera.polars")
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        yield from _cases(errors.failure_cases, len(frame))


def _cases(cases: pl.DataFrame, count: int) -> Iterator[Found]:
    for (column, check), found in cases.group_by(
        "column", "check", maintain_order=True
    ):
        at = found["index"].drop_nulls().to_numpy()
        mask = None
        if len(at):
            mask = np.zeros(count, np.bool_)
            mask[at] = True
        yield str(column), mask, f"does not keep {check}"
