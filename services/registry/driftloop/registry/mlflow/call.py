"""A request's fields, read one by one: what is missing or of another kind is told."""

import base64
import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.tracking import Change, Texts
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.limits import LONGEST
from driftloop.registry.mlflow.registered.pipelines import NO_PIPELINES, Pipelines
from sqlalchemy import Connection

Json = dict[str, Any]
DEFAULT_USER = "token"
"""Who writes when the request names nobody."""
VIEWS = {"ACTIVE_ONLY": (True,), "DELETED_ONLY": (False,), "ALL": (True, False)}
VIEW_NUMBERS = {"1": "ACTIVE_ONLY", "2": "DELETED_ONLY", "3": "ALL"}


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes
    ----------
    fields : of the body, or of the query string, where each is a list of texts.
    by : who asks, as they say.
    size_bytes : of the body.
    pipelines : are registered models, too.
    """

    journal: Journal
    fields: Json
    by: str
    size_bytes: int = 0
    pipelines: Pipelines = NO_PIPELINES

    def reading(self) -> AbstractContextManager[Connection]:
        return self.journal.reading()

    def write(
        self,
        decide: Callable[[Connection], Change | None],
        then: Callable[[Connection], Json] | None = None,
    ) -> Json:
        """Make a change; return what ``then`` reads with it made."""
        return self.journal.write(self.by, decide, then) or {}

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; without a default it has to be there."""
        value = self.fields.get(name)
        if value is None or value == "":
            if default is None:
                raise missing(name)
            return default
        return text_of(value, name)

    def maybe(self, name: str) -> str | None:
        """Return a text; None: it is not there, or empty."""
        return self.text(name, "") or None

    def run_id(self) -> str:
        """Return the run's id, which old clients call ``run_uuid``."""
        found = self.text("run_id", "") or self.text("run_uuid", "")
        if not found:
            raise missing("run_id")
        return found

    def version(self) -> int:
        """Return the number of a version, which clients send as text."""
        version = number_of(self.text("version"), "version")
        if version < 1:
            raise invalid(f"version: {version} is not a number from 1 on")
        return version

    def experiment_id(self) -> int:
        return experiment_number(self.text("experiment_id"))

    def number(self, name: str, default: int | None = None) -> int:
        value = self.fields.get(name)
        if value is None:
            if default is None:
                raise missing(name)
            return default
        return number_of(value, name)

    def flag(self, name: str) -> bool:
        """Return a truth value; not there: false."""
        value = self.fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if value in {"true", "false"}:
            return bool(value == "true")
        raise invalid(f"{name}: {value!r} is neither true nor false")

    def items(self, name: str) -> list[Any]:
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise invalid(f"{name}: not a list")
        return value

    def texts(self, name: str) -> list[str]:
        return [text_of(v, f"{name}[{n}]") for n, v in enumerate(self.items(name))]

    def objects(self, name: str) -> list[Json]:
        return [object_of(v, f"{name}[{n}]") for n, v in enumerate(self.items(name))]

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Return ``[{"key": ..., "value": ...}]``."""
        return pairs_of(self.objects(name), name)

    def tags(self) -> Texts:
        return dict(self.pairs("tags"))

    def stages(self, name: str) -> Sequence[bool]:
        """Return which values of ``is_active`` a view shows."""
        value = str(self.fields.get(name) or "ACTIVE_ONLY")
        view = VIEWS.get(VIEW_NUMBERS.get(value, value))
        if view is None:
            raise invalid(f"{name}: {value!r} is none of {', '.join(VIEWS)}")
        return view

    def page_size(self, default: int, most: int) -> int:
        size = self.number("max_results", default)
        if not 1 <= size <= most:
            raise invalid(f"max_results: {size} is not between 1 and {most}")
        return size

    def offset(self) -> int:
        """Return where a page begins."""
        token = self.fields.get("page_token")
        if not token:
            return 0
        try:
            offset = json.loads(base64.b64decode(str(token), validate=True))["offset"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise invalid("page_token: not one that was given here") from error
        if not isinstance(offset, int) or not 0 < offset <= LONGEST:
            raise invalid("page_token: not one that was given here")
        return offset


def page(name: str, rows: list[Json], size: int, offset: int) -> Json:
    """Return a page of ``rows``, of which one more than the page was asked for."""
    answer: Json = {name: rows[:size]} if rows else {}
    if len(rows) > size:
        token = json.dumps({"offset": offset + size}).encode()
        answer["next_page_token"] = base64.b64encode(token).decode()
    return answer


def missing(name: str) -> Refusal:
    return invalid(f"Missing value for required parameter '{name}'.")


def text_of(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{name}: {type(value).__name__} where a text should be")
    if "\0" in value:
        raise invalid(f"{name}: holds a NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise invalid(f"{name}: not text of Unicode") from error
    return value


def number_of(value: Any, name: str) -> int:
    """Return a whole number; JSON of protocol buffers writes one as text, too."""
    try:
        if isinstance(value, bool):
            raise TypeError("a truth value")
        number = int(value)
        if isinstance(value, float) and value != number:
            raise ValueError("a fraction")
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"{name}: {value!r} is not a whole number") from error
    if not -LONGEST <= number <= LONGEST:
        raise invalid(f"{name}: {number} does not fit into 64 bits")
    return number


def float_of(value: Any, name: str) -> float:
    """Return a number; NaN and Infinity come as text."""
    try:
        if isinstance(value, bool):
            raise TypeError("a truth value")
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"{name}: {value!r} is not a number") from error


def float_as_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def object_of(value: Any, name: str) -> Json:
    if not isinstance(value, dict):
        raise invalid(f"{name}: {type(value).__name__} where an object should be")
    return value


def pairs_of(objects: Sequence[Json], name: str) -> list[tuple[str, str]]:
    found = []
    for number, item in enumerate(objects):
        if item.get("key") is None:
            raise missing(f"{name}[{number}].key")
        key = text_of(item["key"], f"{name}[{number}].key")
        value = item.get("value")
        found.append((key, text_of(value or "", f"{name}[{number}].value")))
    return found


def experiment_number(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise invalid(f"experiment_id: {text!r} is not a number") from error
    if not 0 <= number <= LONGEST:
        raise invalid(f"experiment_id: {text} is not an id of an experiment")
    return number
