"""Whether a new version of an event's schema breaks those who read the log.

Messages are kept for years, so every reader must be able to read what was written
under any earlier schema of the same major version: a field may be added with a
default, a value may be allowed that was not, and nothing else. Readers are
upgraded before writers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.topics import SERVICES, Topic

Schema = dict[str, Any]

LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT = ("pattern", "format", "uniqueItems", "multipleOf")
"""Constraints of which only dropping the whole is surely a widening."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One breaking change: where it is and what it does."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def breaches(old: Schema, new: Schema) -> list[Breach]:
    """Return what in ``new`` breaks readers of messages written under ``old``.

    >>> text = {"properties": {"a": {"type": "string"}}, "type": "object"}
    >>> [str(b) for b in breaches(text, {"type": "object", "properties": {}})]
    ['a: field removed or renamed']
    >>> breaches(text, text)
    []
    """
    return list(_Comparison(old, new).compare(old, new, ""))


def broken_readers(topic: Topic) -> tuple[str, ...]:
    """Services that read a topic: its consumers, and the console, which reads all."""
    return tuple(s for s in SERVICES if s in topic.consumers or s == "console")


def report(topic: Topic, found: Sequence[Breach]) -> str:
    """Say what a breaking change is, whom it breaks and what to do instead."""
    lines = [f"{topic.name}: the change breaks {', '.join(broken_readers(topic))}"]
    lines += [f"  {breach}" for breach in found]
    lines.append("  instead: add a field with a default, or a new major version")
    return "\n".join(lines)


class _Comparison:
    """Walks two schemas side by side; ``$ref`` is followed within each."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._open: set[tuple[int, int]] = set()

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[Breach]:
        pair = (id(old), id(new))
        if pair in self._open:
            return  # a schema that contains itself
        self._open.add(pair)
        new_choices = _choices(new, self._new)
        for choice in _choices(old, self._old):
            fits = [list(self._single(choice, other, path)) for other in new_choices]
            yield from min(fits, key=len)
        self._open.discard(pair)

    def _single(self, old: Schema, new: Schema, path: str) -> Iterator[Breach]:
        where = path or "event"
        if not _type_is_covered(old, new):
            yield Breach(
                where, f"{_kind(old)} is no longer accepted, only {_kind(new)}"
            )
            return
        yield from _narrowed(old, new, where)
        yield from self._fields(old, new, path)
        for keyword in ("items", "additionalProperties"):
            yield from self._inner(old, new, keyword, f"{path}[]")

    def _inner(
        self, old: Schema, new: Schema, keyword: str, path: str
    ) -> Iterator[Breach]:
        before, after = old.get(keyword, True), new.get(keyword, True)
        if after is True or before is False:
            return
        if after is False or before is True:
            yield Breach(path.removesuffix("[]") or "event", f"{keyword} is narrowed")
            return
        yield from self.compare(before, after, path)

    def _fields(self, old: Schema, new: Schema, path: str) -> Iterator[Breach]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            where = f"{path}.{name}" if path else name
            if name in after:
                yield from self.compare(schema, after[name], where)
            else:
                yield Breach(where, "field removed or renamed")
        for name in new.get("required", ()):
            if name not in old.get("required", ()):
                where = f"{path}.{name}" if path else name
                kind = "required now" if name in before else "new required field"
                yield Breach(where, f"{kind}; messages in the log do not have it")


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    """Return the alternatives of a schema, references followed, in a flat list."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _choices(target, root)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return [c for part in schema[keyword] for c in _choices(part, root)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": name} for name in schema["type"]]
    return [schema]


def _kind(schema: Schema) -> str:
    return str(schema.get("type", "anything"))


def _type_is_covered(old: Schema, new: Schema) -> bool:
    before, after = old.get("type"), new.get("type")
    return after is None or before == after or (before, after) == ("integer", "number")


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _narrowed(old: Schema, new: Schema, where: str) -> Iterator[Breach]:
    before, after = _values(old), _values(new)
    if after is not None:
        gone = after if before is None else [v for v in before if v not in after]
        if before is None:
            yield Breach(where, f"only {after} is accepted now")
        elif gone:
            yield Breach(where, f"{gone} is no longer accepted")
    for keyword in (*LOWER_BOUNDS, *UPPER_BOUNDS):
        was, is_now = old.get(keyword), new.get(keyword)
        if is_now is None:
            continue
        tighter = was is None or (
            is_now > was if keyword in LOWER_BOUNDS else is_now < was
        )
        if tighter:
            yield Breach(where, f"{keyword} is narrowed from {was} to {is_now}")
    for keyword in EXACT:
        if keyword in new and new[keyword] != old.get(keyword):
            yield Breach(
                where, f"{keyword} changed from {old.get(keyword)} to {new[keyword]}"
            )
