"""river's models as JSON that a later training goes on from, and back.

No code travels: a state holds kinds of objects from an exact list
(:mod:`driftloop.trainer.candidates.river_kinds`), each with exactly the attributes that
it has in the version of river that wrote it; nothing else is made. The objects lie in
one flat list and refer to each other by number: what two share they still share, and
nothing is nested. A model that was loaded learns on as the one that was saved, its
dice included.
"""

import base64
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module, metadata
from typing import Any

from driftloop.trainer.candidates.river_kinds import KINDS, UNSAVED
from driftloop.trainer.candidates.river_window import check_window

SIZE_LIMIT_BYTES = 32 * 1024 * 1024
"""Of a state, written or read: half of what a package's file may have."""
DICE_WORDS = 625
DICE_VERSION = 3
DEFAULTS: dict[str, Callable[[], Any]] = {
    "default_int": int,
    "default_float": float,
    "default_row": partial(defaultdict, float),
}
"""Mappings with a value for what is missing, by that value."""
Row = list[Any]


class StateRefused(ValueError):  # noqa: N818 - says what happened
    """An object cannot be written, or what was written cannot be read, and why."""


@cache
def _classes() -> dict[str, tuple[type, tuple[str, ...]]]:
    """Return class and attributes by the class's name, which is each there once."""
    found = {}
    for path, attributes in KINDS.items():
        module, _, name = path.rpartition(".")
        kind = getattr(import_module(module), name)
        found[name] = kind, tuple(sorted(attributes.split()))
    return found


def river_version() -> str:
    return metadata.version("river")


# ── writing ─────────────────────────────────────────────────────────────────


def saved(root: Any) -> bytes:
    """Return an object and all below it; the same bytes for the same content.

    Raises
    ------
    StateRefused
        When it holds what a state may not, or is too big.
    """
    data = json.dumps(
        {"river": river_version(), "objects": _Writer().rows(root)},
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    _check_size(data)
    return data


class _Writer:
    """Numbers objects as they are met; keeps each alive, so that ids stay unique."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._met: list[Any] = []

    def rows(self, root: Any) -> list[Row]:
        self._value(root)
        rows: list[Row] = []
        while len(rows) < len(self._met):
            rows.append(self._row(self._met[len(rows)]))
        return rows

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._met)
            self._met.append(value)
        return [number]

    def _row(self, given: Any) -> Row:
        kind = type(given)
        if kind is list:
            return ["list", *map(self._value, given)]
        if kind is set:
            return ["set", *sorted(given)]
        if kind in (dict, Counter, defaultdict) or kind.__name__ == "VectorDict":
            pairs = [part for item in given.items() for part in map(self._value, item)]
            return [_mapping_kind(given), *pairs]
        if kind is random.Random:
            version, words, gauss = given.getstate()
            if version != DICE_VERSION:
                raise StateRefused(f"dice of version {version} cannot be kept")
            return ["dice", gauss, *words]
        if kind.__name__ == "AdaptiveWindowing":
            _, (_, *arguments), content = given.__reduce_ex__(2)[:3]
            return ["window", *arguments, base64.b64encode(content).decode()]
        return self._instance(given)

    def _instance(self, given: Any) -> Row:
        kind = type(given)
        known, names = _classes().get(kind.__name__, (None, ()))
        if known is not kind:
            raise StateRefused(f"{kind.__module__}.{kind.__qualname__} is not known")
        unsaved = UNSAVED.get(f"{kind.__module__}.{kind.__qualname__}")
        has = set(vars(given)) if hasattr(given, "__dict__") else set(kind.__slots__)
        if has - {unsaved} != set(names):
            raise StateRefused(
                f"{kind.__name__} of river {river_version()} has the attributes "
                f"{sorted(has)}, which are not those that are known"
            )
        if unsaved is not None and not _is_usual(given):
            raise StateRefused(f"a {kind.__name__} is not as it is usually")
        return [kind.__name__, *(self._value(getattr(given, n)) for n in names)]


def _mapping_kind(given: Any) -> str:
    kind = type(given)
    if kind is defaultdict:
        factory = given.default_factory
        if isinstance(factory, partial) and factory.func is defaultdict:
            return "default_row"
        found = [n for n, made in DEFAULTS.items() if made is factory]
        if not found:
            raise StateRefused(f"a mapping with {factory!r} is not known")
        return found[0]
    if kind in (dict, Counter):
        return "dict" if kind is dict else "counter"
    if given.__reduce_ex__(2)[1][1:] != (None, None, True):
        raise StateRefused("a vector with defaults or a mask is not known")
    return "vector"


def _is_usual(given: Any) -> bool:
    """Whether what is not saved is as it is made anew."""
    if hasattr(given, "seed"):
        return given.seed is None
    return given._update_estimator is type(given)._update_estimator_univariate


# ── reading ─────────────────────────────────────────────────────────────────


def loaded(data: bytes) -> Any:
    """Return what :func:`saved` was given.

    Raises
    ------
    StateRefused
        When the bytes are not a state of this version of river. Says why.
    """
    _check_size(data)
    try:
        content = json.loads(data)
        version, rows = content["river"], content["objects"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateRefused(f"it is no state of a river model: {error!r}") from error
    if version != river_version():
        raise StateRefused(
            f"it was written with river {version}; here is {river_version()}"
        )
    try:
        return _read(rows)
    except StateRefused:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise StateRefused(f"it is not whole: {error!r}") from error


def _read(rows: list[Row]) -> Any:
    """Make all objects, then fill them, since each may refer to any."""
    if type(rows) is not list or not rows:
        raise StateRefused("it holds no objects")
    made = [_made(row) for row in rows]
    for given, row in zip(made, rows, strict=True):
        _fill(given, row, made)
    return made[0]


def _made(row: Row) -> Any:
    kind = row[0] if type(row) is list and row and type(row[0]) is str else None
    if kind in ("list", "set", "dict", "counter"):
        return {"list": list, "set": set, "dict": dict, "counter": Counter}[kind]()
    if kind in DEFAULTS:
        return defaultdict(DEFAULTS[kind])
    if kind == "dice":
        dice = random.Random()  # noqa: S311 - a model's, not a secret's
        dice.setstate((DICE_VERSION, tuple(row[2:]), row[1]))
        return dice
    if kind == "vector":
        from river._river_rust.vectordict import VectorDict

        numbers = [_number(value) for value in row[2::2]]
        return VectorDict(dict(zip(map(_key, row[1::2]), numbers, strict=True)))
    if kind == "window":
        return _window(row[1:])
    if kind is None or kind not in _classes():
        raise StateRefused(f"it holds a {str(kind)[:60]!r}, which no river model has")
    return object.__new__(_classes()[kind][0])


def _window(arguments: Row) -> Any:
    """Return ADWIN's window; its own form is looked at before it is taken."""
    from river._river_rust.drift import AdaptiveWindowing

    *settings, text = arguments
    content = base64.b64decode(text, validate=True)
    try:
        check_window(content, settings)
    except ValueError as error:
        raise StateRefused(str(error)) from error
    window = AdaptiveWindowing(*settings)
    window.__setstate__(content)
    return window


def _fill(given: Any, row: Row, made: list[Any]) -> None:
    kind, values = row[0], row[1:]

    def value(part: Any) -> Any:
        if type(part) is list:
            (number,) = part
            if type(number) is not int or number < 0:
                raise StateRefused(f"it refers to object {number!r}")
            return made[number]
        if type(part) is dict:
            return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[part["float"]]
        return part

    if kind in ("dice", "vector", "window"):
        return
    if kind == "list":
        given.extend(map(value, values))
    elif kind == "set":
        given.update(map(_key, values))
    elif kind in ("dict", "counter") or kind in DEFAULTS:
        pairs = zip(map(_key, values[::2]), map(value, values[1::2]), strict=True)
        dict.update(given, pairs)
    else:
        names = _classes()[kind][1]
        for name, part in zip(names, values, strict=True):
            object.__setattr__(given, name, value(part))
        _make_unsaved(given)


def _make_unsaved(given: Any) -> None:
    kind = type(given)
    unsaved = UNSAVED.get(f"{kind.__module__}.{kind.__qualname__}")
    if unsaved == "_rng":
        given._rng = random.Random(0)  # noqa: S311 - never thrown
    elif unsaved is not None:
        given._update_estimator = kind._update_estimator_univariate


def _key(value: Any) -> Any:
    if value is not None and type(value) not in (int, str, bool):
        raise StateRefused(f"{str(value)[:60]!r} is no key of a mapping")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise StateRefused(f"{str(value)[:60]!r} is no number of a vector")
    return float(value)


def _check_size(data: bytes) -> None:
    if len(data) > SIZE_LIMIT_BYTES:
        mib = 1024 * 1024
        raise StateRefused(
            f"it has {len(data) / mib:.0f} MiB; at most {SIZE_LIMIT_BYTES // mib} "
            "are kept"
        )
