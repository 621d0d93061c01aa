"""MLflow's filter language: what is understood, and what is said of the rest."""

from contextlib import suppress
from typing import Any

import pytest
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.filters import (
    ENTITIES,
    EXPERIMENTS,
    NUMBERS,
    RUNS,
    TEXTS,
    Comparison,
    Grammar,
    Key,
    parse_filter,
    parse_order,
)
from driftloop.registry.mlflow.search import experiment_query, run_query
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\0`"), min_size=1, max_size=12
)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Comparison]:
    """A comparison as somebody may write it, and what it means."""
    word = draw(st.sampled_from(["metrics", "metric", "params", "parameter", "tags"]))
    name = draw(NAME)
    key = Key(ENTITIES[word], name)
    written = f"{word}.`{name}`"
    space = draw(st.sampled_from(["", " ", "\n "]))
    if key.entity == "metric":
        operator = draw(st.sampled_from(sorted(NUMBERS)))
        number = draw(st.integers(-(10**17), 10**17) | st.floats(-1e9, 1e9))
        return f"{written}{space}{operator}{space}{number}", Comparison(
            key, operator, (number,)
        )
    operator = draw(st.sampled_from(sorted(TEXTS)))
    value = draw(TEXT)
    quote = draw(st.sampled_from("'\""))
    doubled = value.replace(quote, quote * 2)
    shown = operator.lower() if draw(st.booleans()) else operator
    said = f"{written} {shown}{space}{quote}{doubled}{quote}"
    return said, Comparison(key, operator, (value,))


@given(st.lists(comparisons(), min_size=1, max_size=4))
def test_what_is_written_is_what_is_meant(
    pairs: list[tuple[str, Comparison]],
) -> None:
    """Any key, any value, any spacing: the tree is the one that was written down."""
    said = " AND ".join(text for text, _ in pairs)
    assert parse_filter(said, RUNS) == [meant for _, meant in pairs]


@given(st.text(max_size=60), st.sampled_from([RUNS, EXPERIMENTS]))
def test_any_text_is_parsed_or_refused(said: str, grammar: Grammar) -> None:
    """Nothing else comes out of a text that somebody sent."""
    for parse in (parse_filter, parse_order):
        with suppress(Refusal):
            parse(said, grammar)


@given(st.lists(comparisons(), max_size=3))
def test_values_never_become_sql(pairs: list[tuple[str, Comparison]]) -> None:
    """They are parameters: the statement depends on the shape of the filter only."""
    said = " AND ".join(text for text, _ in pairs)
    query = run_query("sqlite", [1], [True], said, ["metrics.loss DESC"])
    sql = query.sql("SELECT r.* FROM mlflow_run r", 10, 0)
    assert set(text(sql).compile().params) == set(query.values)
    for _, meant in pairs:
        assert meant.key.name in query.values.values()
        assert meant.values[0] in query.values.values()
    assert "'" not in sql


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("params.a.b/c = 'x'", [("parameter", "a.b/c", "=", ("x",))]),
        ("run_id IN ('a', 'b')", [("attribute", "run_id", "IN", ("a", "b"))]),
        ("run_id not in ('a',)", [("attribute", "run_id", "NOT IN", ("a",))]),
        ("tags.a IS NOT NULL", [("tag", "a", "IS NOT NULL", ())]),
        ("Created > 3", [("attribute", "start_time", ">", (3,))]),
        ('attr.`run name` = "o\'x"', [("attribute", "run_name", "=", ("o'x",))]),
        ("metrics.m > 1e400", [("metric", "m", ">", (float("inf"),))]),
        ("  ", []),
    ],
)
def test_forms(said: str, expected: list[tuple[Any, ...]]) -> None:
    """Aliases, lists, NULL, quotes within quotes, numbers beyond 64 bits."""
    found = parse_filter(said, RUNS)
    assert [(c.key.entity, c.key.name, c.operator, c.values) for c in found] == expected


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("colour = 'x'", "character 1: 'colour' is no attribute of this search"),
        ("paint.a = 'x'", "character 1: 'paint' is no entity of this search"),
        ("params.a > 'x'", "character 10: '>' does not go with a; there is !="),
        ("metrics.m = 'x'", "character 13: 'x' is not a number"),
        ("params.a = 3", "character 12: '3' is not a text in quotes"),
        ("params.a = 'x", 'character 12: "\'" does not belong here'),
        ("params.a = 'x' OR params.a = 'y'", "character 16: 'OR' stands where AND"),
        ("params.a", "character 9: 'the end' stands where an operator should"),
        ("metrics.m IS NULL", "character 1: 'metrics' cannot be asked IS NULL"),
        ("status IN ('x')", "character 8: 'IN' does not go with status"),
        ("dataset.colour = 'x'", "character 9: 'colour' is no key of dataset"),
        ("run_id IN ()", "character 12: ')' is not a text in quotes"),
        ("status = 'x';", "character 13: ';' does not belong here"),
        (" AND ".join(["status = 'x'"] * 101), "101 comparisons, at most 100"),
        ("s" * 20_001, "20001 characters, at most 20000"),
    ],
)
def test_a_refusal_names_the_place(said: str, problem: str) -> None:
    """Character, text, and what would be right there."""
    with pytest.raises(Refusal) as refused:
        parse_filter(said, RUNS)
    assert problem in refused.value.message


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("colour", "'colour' is no attribute"),
        ("dataset.name", "'dataset' is nothing to sort by"),
        ("start_time down", "character 12: 'down' stands where ASC or DESC should"),
        ("start_time ASC DESC", "character 16: 'DESC' is too much"),
    ],
)
def test_orders_are_checked(said: str, problem: str) -> None:
    """As filters are."""
    with pytest.raises(Refusal) as refused:
        parse_order(said, RUNS)
    assert problem in refused.value.message


def test_an_order_is_there_once() -> None:
    """Twice the same key is a mistake."""
    with pytest.raises(Refusal, match="'name' is there twice"):
        experiment_query("sqlite", [True], "", ["name", "name DESC"])


def test_databases_differ_in_three_places() -> None:
    """ILIKE, escapes and the order of letters are made alike."""
    said = "tags.a ILIKE 'x%' AND tags.a LIKE 'y'"
    ours = run_query("sqlite", [], [True], said, ["run_name"])
    theirs = run_query("postgresql", [], [True], said, ["run_name"])
    assert any("lower(x.value) LIKE lower(" in each for each in ours.conditions)
    assert sum("ESCAPE ''" in each for each in theirs.conditions) == 2
    assert 'r.name COLLATE "C" ASC' in theirs.orders
    assert "1 = 0" in ours.conditions  # no experiment: nothing is found
