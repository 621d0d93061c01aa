"""The filter language of MLflow's searches: text to a typed tree.

``comparison { AND comparison }``; a comparison is ``[entity.]key operator value``,
``key [NOT] IN (values)`` or ``key IS [NOT] NULL``. What may be compared with what is
the business of each search's :class:`Grammar`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from driftloop.registry.mlflow.errors import Refusal, invalid

Entity = Literal["attribute", "metric", "parameter", "tag", "dataset"]
Scalar = str | int | float
ENTITIES: Mapping[str, Entity] = {
    "attribute": "attribute",
    "attributes": "attribute",
    "attr": "attribute",
    "run": "attribute",
    "metric": "metric",
    "metrics": "metric",
    "parameter": "parameter",
    "parameters": "parameter",
    "param": "parameter",
    "params": "parameter",
    "tag": "tag",
    "tags": "tag",
    "dataset": "dataset",
    "datasets": "dataset",
}
NUMBERS = frozenset({"=", "!=", "<", "<=", ">", ">="})
TEXTS = frozenset({"=", "!=", "LIKE", "ILIKE"})
LISTS = frozenset({"IN", "NOT IN"})
NULLS = frozenset({"IS NULL", "IS NOT NULL"})
IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of registered models that hold prompts."""
MAX_TEXT = 20_000
MAX_COMPARISONS = 100
"""More joins than a database plans well."""

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<operator><=|>=|!=|<>|=|<|>)
    |(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)
    |(?P<word>[A-Za-z_][\w\-/]*)
    |(?P<mark>[.,()])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Key:
    """What is compared, or sorted by."""

    entity: Entity
    name: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition.

    Attributes
    ----------
    operator : in capitals.
    values : of a list all; of ``IS NULL`` and ``IS NOT NULL`` none; else one.
    """

    key: Key
    operator: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key."""

    key: Key
    is_ascending: bool = True


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a search knows.

    Attributes
    ----------
    texts, numbers : attributes; each other one is unknown.
    lists : attributes that may be in a list.
    nulls : entities that may be absent.
    sorts : attributes to sort by.
    sort_entities : others to sort by.
    aliases : other names of attributes.
    datasets : keys of ``dataset``.
    """

    texts: frozenset[str]
    numbers: frozenset[str]
    entities: frozenset[Entity]
    lists: frozenset[str]
    sorts: frozenset[str]
    sort_entities: frozenset[Entity] = frozenset()
    nulls: frozenset[Entity] = frozenset()
    aliases: Mapping[str, str] | None = None
    datasets: frozenset[str] = frozenset()


RUNS = Grammar(
    texts=frozenset({"run_id", "run_name", "user_id", "status", "artifact_uri"}),
    numbers=frozenset({"start_time", "end_time"}),
    entities=frozenset({"attribute", "metric", "parameter", "tag", "dataset"}),
    lists=frozenset({"run_id"}),
    sorts=frozenset(
        {"run_id", "run_name", "user_id", "status", "artifact_uri"}
        | {"start_time", "end_time"}
    ),
    sort_entities=frozenset({"metric", "parameter", "tag"}),
    nulls=frozenset({"parameter", "tag"}),
    aliases={
        "created": "start_time",
        "Created": "start_time",
        "run name": "run_name",
        "Run name": "run_name",
        "Run Name": "run_name",
    },
    datasets=frozenset({"name", "digest", "context"}),
)
EXPERIMENTS = Grammar(
    texts=frozenset({"name", "experiment_id"}),
    numbers=frozenset({"creation_time", "last_update_time"}),
    entities=frozenset({"attribute", "tag"}),
    lists=frozenset({"experiment_id"}),
    sorts=frozenset({"name", "experiment_id", "creation_time", "last_update_time"}),
    nulls=frozenset({"tag"}),
)
MODELS = Grammar(
    texts=frozenset({"name"}),
    numbers=frozenset(),
    entities=frozenset({"attribute", "tag"}),
    lists=frozenset({"name"}),
    sorts=frozenset({"name", "last_updated_timestamp"}),
    aliases={"timestamp": "last_updated_timestamp"},
)
VERSIONS = Grammar(
    texts=frozenset({"name", "run_id", "source_path"}),
    numbers=frozenset({"version_number"}),
    entities=frozenset({"attribute", "tag"}),
    lists=frozenset({"name", "run_id"}),
    sorts=frozenset(
        {"name", "version_number", "creation_timestamp", "last_updated_timestamp"}
    ),
)


class Token(NamedTuple):
    """A word of a filter; ``at`` counts characters from 1."""

    kind: str
    text: str
    at: int


def parse_filter(text: str, grammar: Grammar) -> list[Comparison]:
    """Return the comparisons of a filter; all of them have to hold.

    Raises
    ------
    Refusal
        Names the place and what would be right there.

    Examples
    --------
    >>> parse_filter("metrics.loss < 0.5", RUNS)[0].values
    (0.5,)
    >>> parse_filter("metrics.loss = 'x'", RUNS)
    Traceback (most recent call last):
    driftloop.registry.mlflow.errors.Refusal: filter, character 16: 'x' is not a number
    """
    if len(text) > MAX_TEXT:
        raise invalid(f"filter: {len(text)} characters, at most {MAX_TEXT}")
    return _Parser(text, grammar, "filter").comparisons() if text.strip() else []


def parse_order(text: str, grammar: Grammar) -> Order:
    """Return a sort key from ``key [ASC|DESC]``.

    >>> parse_order("metrics.loss DESC", RUNS).is_ascending
    False
    """
    return _Parser(text, grammar, "order_by").order()


def _tokens(text: str, what: str) -> Iterator[Token]:
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise _at(what, place + 1, f"{text[place]!r} does not belong here")
        if match.lastgroup and match.lastgroup != "space":
            yield Token(match.lastgroup, match[0], place + 1)
        place = match.end()


def _at(what: str, place: int, problem: str) -> Refusal:
    return invalid(f"{what}, character {place}: {problem}")


def _unquoted(text: str) -> str:
    sign = text[0]
    return text[1:-1] if sign == "`" else text[1:-1].replace(sign * 2, sign)


class _Parser:
    """Reads one text from its beginning to its end."""

    def __init__(self, text: str, grammar: Grammar, what: str) -> None:
        self._what = what
        self._grammar = grammar
        self._tokens = list(_tokens(text, what))
        self._end = Token("end", "the end", len(text) + 1)
        self._next = 0

    def comparisons(self) -> list[Comparison]:
        found = [self._comparison()]
        while self._peek() is not self._end:
            self._word("AND")
            found.append(self._comparison())
        if len(found) > MAX_COMPARISONS:
            raise invalid(
                f"filter: {len(found)} comparisons, at most {MAX_COMPARISONS}"
            )
        return found

    def order(self) -> Order:
        token = self._peek()
        key = self._key()
        known = (
            key.name in self._grammar.sorts
            if key.entity == "attribute"
            else key.entity in self._grammar.sort_entities
        )
        if not known:
            raise self._wrong(token, "is nothing to sort by", self._grammar.sorts)
        is_ascending = True
        if self._peek() is not self._end:
            is_ascending = self._word("ASC", "DESC") == "ASC"
        if self._peek() is not self._end:
            raise self._wrong(self._peek(), "is too much")
        return Order(key, is_ascending)

    def _peek(self, ahead: int = 0) -> Token:
        place = self._next + ahead
        return self._tokens[place] if place < len(self._tokens) else self._end

    def _take(self) -> Token:
        token = self._peek()
        self._next += 1
        return token

    def _wrong(
        self, token: Token, problem: str, wanted: frozenset[str] = frozenset()
    ) -> Refusal:
        there_is = f"; there is {', '.join(sorted(wanted))}" if wanted else ""
        text = token.text.strip("'\"") if token.kind == "quoted" else token.text
        return _at(self._what, token.at, f"{text!r} {problem}{there_is}")

    def _word(self, *wanted: str) -> str:
        token = self._take()
        if token.kind != "word" or token.text.upper() not in wanted:
            raise self._wrong(token, f"stands where {' or '.join(wanted)} should")
        return token.text.upper()

    def _key(self) -> Key:
        first = self._take()
        if first.kind not in {"word", "quoted"} or first.text[0] == "'":
            raise self._wrong(first, "is no key; write attribute, or entity.key")
        if self._peek().text != "." or first.text[0] == '"':
            return self._attribute(first, first)
        entity = ENTITIES.get(first.text.strip("`"))
        if entity is None or entity not in self._grammar.entities:
            known = frozenset(map(str, self._grammar.entities))
            raise self._wrong(first, "is no entity of this search", known)
        self._take()
        token = self._take()
        if entity == "attribute":
            return self._attribute(first, token)
        name = self._name(token)
        if entity == "dataset" and name not in self._grammar.datasets:
            raise self._wrong(token, "is no key of dataset", self._grammar.datasets)
        return Key(entity, name)

    def _name(self, token: Token) -> str:
        """Return a key's name; dots of one that is not quoted belong to it."""
        if token.kind == "quoted" and token.text[0] != "'":
            return _unquoted(token.text)
        if token.kind not in {"word", "number"}:
            raise self._wrong(token, "is no key")
        name, end = token.text, token.at + len(token.text)
        while (more := self._peek()).at == end and (
            more.kind in {"word", "number"} or more.text == "."
        ):
            name, end = name + more.text, end + len(more.text)
            self._take()
        return name

    def _attribute(self, first: Token, token: Token) -> Key:
        name = _unquoted(token.text) if token.kind == "quoted" else token.text
        name = (self._grammar.aliases or {}).get(name, name)
        known = self._grammar.texts | self._grammar.numbers
        if self._what == "order_by":
            known |= self._grammar.sorts
        if name not in known:
            raise self._wrong(first, "is no attribute of this search", known)
        return Key("attribute", name)

    def _comparison(self) -> Comparison:
        start = self._peek()
        key = self._key()
        token = self._peek()
        operator = self._operator()
        if operator in NULLS:
            if key.entity not in self._grammar.nulls:
                raise self._wrong(start, f"cannot be asked {operator}")
            return Comparison(key, operator, ())
        if operator in LISTS:
            if not (key.entity == "dataset" or key.name in self._grammar.lists):
                raise self._wrong(token, f"does not go with {key.name}")
            return Comparison(key, operator, tuple(self._list()))
        is_number = key.entity == "metric" or (
            key.entity == "attribute" and key.name in self._grammar.numbers
        )
        if operator not in (NUMBERS if is_number else TEXTS):
            wanted = NUMBERS if is_number else TEXTS
            raise self._wrong(token, f"does not go with {key.name}", wanted)
        value = self._number() if is_number else self._quoted()
        return Comparison(key, operator, (value,))

    def _operator(self) -> str:
        token = self._take()
        if token.kind == "operator":
            return "!=" if token.text == "<>" else token.text
        word = token.text.upper() if token.kind == "word" else ""
        if word in {"LIKE", "ILIKE", "IN"}:
            return word
        if word == "NOT":
            self._word("IN")
            return "NOT IN"
        if word == "IS":
            if self._word("NULL", "NOT") == "NULL":
                return "IS NULL"
            self._word("NULL")
            return "IS NOT NULL"
        raise self._wrong(token, "stands where an operator should")

    def _number(self) -> int | float:
        token = self._take()
        if token.kind != "number":
            raise self._wrong(token, "is not a number")
        if re.fullmatch(r"[+-]?\d{1,18}", token.text):
            return int(token.text)
        return float(token.text)  # also what 64 bits do not hold

    def _quoted(self) -> str:
        token = self._take()
        if token.kind != "quoted" or token.text[0] == "`":
            raise self._wrong(token, "is not a text in quotes")
        return _unquoted(token.text)

    def _list(self) -> Iterator[str]:
        token = self._take()
        if token.text != "(":
            raise self._wrong(token, "stands where a list in brackets should")
        yield self._quoted()
        while (token := self._take()).text == ",":
            if self._peek().text == ")":  # a comma after the last, as Python has it
                continue
            yield self._quoted()
        if token.text != ")":
            raise self._wrong(token, "stands where ',' or ')' should")
