"""A filter's tree to SQL: texts of ours with parameters, never a text of the caller."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from driftloop.registry.mlflow.call import experiment_number
from driftloop.registry.mlflow.errors import invalid
from driftloop.registry.mlflow.filters import (
    EXPERIMENTS,
    RUNS,
    Comparison,
    Order,
    Scalar,
    parse_filter,
    parse_order,
)

RUN_COLUMNS = {
    "run_id": "r.run_id",
    "run_name": "r.name",
    "user_id": 'r."user"',
    "status": "r.status",
    "artifact_uri": "r.artifact_uri",
    "start_time": "r.start_ms",
    "end_time": "r.end_ms",
}
RUN_TABLES = {
    "metric": "mlflow_latest_metric",
    "parameter": "mlflow_param",
    "tag": "mlflow_run_tag",
}
EXPERIMENT_COLUMNS = {
    "experiment_id": "e.experiment_id",
    "name": "e.name",
    "creation_time": "e.created_ms",
    "last_update_time": "e.updated_ms",
}
DATASET_COLUMNS = {"name": "i.name", "digest": "i.digest", "context": "i.context"}
NEWEST_FIRST = ("creation_time DESC", "experiment_id ASC")


@dataclass
class Query:
    """A query in the making.

    Attributes
    ----------
    values : parameters by name.
    conditions : all have to hold.
    joins, orders : clauses, in order.
    """

    dialect: str
    values: dict[str, Any] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)

    def bind(self, value: Any) -> str:
        """Return the mark of a new parameter."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def among(self, column: str, values: Sequence[Any]) -> None:
        """Ask for one of ``values``; of none nothing is found."""
        marks = ", ".join(self.bind(value) for value in values)
        self.conditions.append(f"{column} IN ({marks})" if values else "1 = 0")

    def compared(self, column: str, operator: str, values: Sequence[Scalar]) -> str:
        """Return a condition on a column."""
        if operator in {"IN", "NOT IN"}:
            marks = ", ".join(self.bind(value) for value in values)
            return f"{column} {operator} ({marks})"
        mark = self.bind(values[0])
        is_sqlite = self.dialect == "sqlite"
        if operator == "ILIKE" and is_sqlite:
            return f"lower({column}) LIKE lower({mark})"
        if operator in {"LIKE", "ILIKE"}:  # no sign escapes another, as in SQLite
            return f"{column} {operator} {mark}" + ("" if is_sqlite else " ESCAPE ''")
        return f"{column} {operator} {mark}"

    def sort(self, column: str, *, is_ascending: bool, is_text: bool = False) -> None:
        """Sort by a column; rows without a value come last, either way."""
        bytewise = ' COLLATE "C"' if is_text and self.dialect != "sqlite" else ""
        direction = "ASC" if is_ascending else "DESC"
        self.orders += [
            f"CASE WHEN {column} IS NULL THEN 1 ELSE 0 END",
            f"{column}{bytewise} {direction}",
        ]

    def sql(self, select: str, limit: int, offset: int) -> str:
        parts = [
            select,
            *self.joins,
            f"WHERE {' AND '.join(self.conditions)}",
            f"ORDER BY {', '.join(self.orders)}",
            f"LIMIT {self.bind(limit)} OFFSET {self.bind(offset)}",
        ]
        return " ".join(parts)


def run_query(
    dialect: str,
    experiment_ids: Sequence[int],
    stages: Sequence[bool],
    text: str,
    order_by: Sequence[str],
) -> Query:
    """Return the query for runs ``r``, but for its page."""
    query = Query(dialect)
    query.among("r.experiment_id", experiment_ids)
    query.among("r.is_active", stages)
    for comparison in parse_filter(text, RUNS):
        query.conditions.append(_run_condition(query, comparison))
    orders = distinct(parse_order(each, RUNS) for each in order_by)
    for number, order in enumerate(orders):
        _sort_runs(query, order, number)
    if all(order.key.name != "start_time" for order in orders):
        query.orders.append("r.start_ms DESC")
    query.orders.append("r.run_id")
    return query


def distinct(orders: Any) -> list[Order]:
    """Return sort keys, each of which is there once."""
    found: list[Order] = list(orders)
    keys = [order.key for order in found]
    for key in keys:
        if keys.count(key) > 1:
            raise invalid(f"order_by: {key.name!r} is there twice")
    return found


def _run_condition(query: Query, comparison: Comparison) -> str:
    key, operator = comparison.key, comparison.operator
    if key.entity == "attribute":
        return query.compared(RUN_COLUMNS[key.name], operator, comparison.values)
    if key.entity == "dataset":
        column = DATASET_COLUMNS[key.name]
        condition = query.compared(column, operator, comparison.values)
        return (
            f"EXISTS (SELECT 1 FROM mlflow_input i WHERE i.run = r.number "  # noqa: S608 - names of ours
            f"AND {condition})"
        )
    table = RUN_TABLES[key.entity]
    found = f"SELECT 1 FROM {table} x WHERE x.run = r.number AND x.key = "  # noqa: S608 - as above
    found += query.bind(key.name)
    if operator == "IS NULL":
        return f"NOT EXISTS ({found})"
    if operator == "IS NOT NULL":
        return f"EXISTS ({found})"
    condition = query.compared("x.value", operator, comparison.values)
    if key.entity == "metric":  # what is not a number differs from every one
        link = "OR x.is_nan" if operator == "!=" else "AND NOT x.is_nan"
        condition = f"({condition} {link})"
    return f"EXISTS ({found} AND {condition})"


def _sort_runs(query: Query, order: Order, number: int) -> None:
    key = order.key
    if key.entity == "attribute":
        is_text = key.name in RUNS.texts
        column = RUN_COLUMNS[key.name]
        query.sort(column, is_ascending=order.is_ascending, is_text=is_text)
        return
    name = f"o{number}"
    query.joins.append(
        f"LEFT JOIN {RUN_TABLES[key.entity]} {name} ON {name}.run = r.number "
        f"AND {name}.key = {query.bind(key.name)}"
    )
    if key.entity == "metric":  # numbers, then what is none, then nothing
        query.orders.append(
            f"CASE WHEN {name}.run IS NULL THEN 2 WHEN {name}.is_nan THEN 1 ELSE 0 END"
        )
    query.sort(
        f"{name}.value",
        is_ascending=order.is_ascending,
        is_text=key.entity != "metric",
    )


def experiment_query(
    dialect: str, stages: Sequence[bool], text: str, order_by: Sequence[str]
) -> Query:
    """Return the query for experiments ``e``, but for its page."""
    query = Query(dialect)
    query.among("e.is_active", stages)
    for comparison in parse_filter(text, EXPERIMENTS):
        query.conditions.append(_experiment_condition(query, comparison))
    orders = distinct(
        parse_order(each, EXPERIMENTS) for each in order_by or NEWEST_FIRST
    )
    for order in orders:
        query.sort(
            EXPERIMENT_COLUMNS[order.key.name],
            is_ascending=order.is_ascending,
            is_text=order.key.name == "name",
        )
    query.orders.append("e.experiment_id DESC")
    return query


def _experiment_condition(query: Query, comparison: Comparison) -> str:
    key, operator, values = comparison.key, comparison.operator, comparison.values
    if key.entity == "attribute":
        if key.name == "experiment_id":
            if operator in {"LIKE", "ILIKE"}:
                raise invalid(f"filter: {operator} does not go with experiment_id")
            values = tuple(experiment_number(str(value)) for value in values)
        return query.compared(EXPERIMENT_COLUMNS[key.name], operator, values)
    found = "SELECT 1 FROM mlflow_experiment_tag x WHERE x.experiment_id = "
    found += f"e.experiment_id AND x.key = {query.bind(key.name)}"
    if operator == "IS NULL":
        return f"NOT EXISTS ({found})"
    if operator == "IS NOT NULL":
        return f"EXISTS ({found})"
    return f"EXISTS ({found} AND {query.compared('x.value', operator, values)})"
