"""The search for logged models: its grammar, and its filter as SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from driftloop.registry.mlflow.errors import invalid
from driftloop.registry.mlflow.filters import Comparison, Grammar, parse_filter
from driftloop.registry.mlflow.search import Query

COLUMNS = {
    "name": "m.name",
    "model_id": "m.model_id",
    "model_type": "m.model_type",
    "status": "m.status",
    "source_run_id": "m.source_run_id",
    "artifact_location": "m.artifact_location",
    "creation_timestamp_ms": "m.created_ms",
    "last_updated_timestamp_ms": "m.updated_ms",
}
TIMES = frozenset({"creation_timestamp_ms", "last_updated_timestamp_ms"})
MODELS = Grammar(
    texts=frozenset(COLUMNS) - TIMES,
    numbers=TIMES,
    entities=frozenset({"attribute", "metric", "parameter", "tag"}),
    lists=frozenset(COLUMNS) - TIMES,
    sorts=frozenset(COLUMNS),
    aliases={
        "creation_time": "creation_timestamp_ms",
        "creation_timestamp": "creation_timestamp_ms",
        "last_updated_timestamp": "last_updated_timestamp_ms",
    },
)
TABLES = {"parameter": "mlflow_logged_model_param", "tag": "mlflow_logged_model_tag"}
METRICS = "mlflow_logged_model_metric"


class OnDataset(NamedTuple):
    """A dataset that a metric was measured on; an empty digest: any."""

    name: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """One sort key: an attribute, or ``metrics.<name>`` perhaps on a dataset."""

    field: str
    is_ascending: bool
    dataset: OnDataset


def model_query(
    dialect: str,
    experiment_ids: Sequence[int],
    text: str,
    datasets: Sequence[OnDataset],
    orders: Sequence[ModelOrder],
) -> Query:
    """Return the query for logged models ``m``, but for its page."""
    query = Query(dialect)
    query.among("m.experiment_id", experiment_ids)
    query.conditions.append("m.is_active")
    comparisons = parse_filter(text, MODELS)
    for comparison in comparisons:
        query.conditions.append(_condition(query, comparison, datasets))
    if datasets and all(each.key.entity != "metric" for each in comparisons):
        query.conditions.append(
            f"EXISTS (SELECT 1 FROM {METRICS} x WHERE x.model_id = m.model_id"  # noqa: S608 - names of ours
            f"{_measured_on(query, datasets)})"
        )
    for order in orders:
        _sort(query, order)
    if not any(_name(order.field) == "creation_timestamp_ms" for order in orders):
        query.orders.append("m.created_ms DESC")
    query.orders.append("m.model_id")
    return query


def _measured_on(query: Query, datasets: Sequence[OnDataset]) -> str:
    """Return what follows in a condition on metrics ``x``."""
    parts = []
    for each in datasets:
        part = f"x.dataset_name = {query.bind(each.name)}"
        if each.digest:
            part += f" AND x.dataset_digest = {query.bind(each.digest)}"
        parts.append(f"({part})")
    return f" AND ({' OR '.join(parts)})" if parts else ""


def _condition(
    query: Query, comparison: Comparison, datasets: Sequence[OnDataset]
) -> str:
    key, operator, values = comparison.key, comparison.operator, comparison.values
    if key.entity == "attribute":
        return query.compared(COLUMNS[key.name], operator, values)
    table = TABLES.get(key.entity, METRICS)
    found = (
        f"SELECT 1 FROM {table} x WHERE x.model_id = m.model_id "  # noqa: S608 - names of ours
        f"AND x.key = {query.bind(key.name)}"
    )
    condition = query.compared("x.value", operator, values)
    if key.entity == "metric":  # what is not a number differs from every one
        link = "OR x.is_nan" if operator == "!=" else "AND NOT x.is_nan"
        condition = f"({condition} {link}){_measured_on(query, datasets)}"
    return f"EXISTS ({found} AND {condition})"


def _name(field: str) -> str:
    return (MODELS.aliases or {}).get(field, field)


def _sort(query: Query, order: ModelOrder) -> None:
    entity, dot, key = order.field.partition(".")
    if not dot:
        name = _name(order.field)
        if name not in COLUMNS:
            raise invalid(
                f"order_by: {order.field!r} is nothing to sort by; there is "
                f"{', '.join(sorted(COLUMNS))}, and metrics.<name>"
            )
        is_text = name not in TIMES
        query.sort(COLUMNS[name], is_ascending=order.is_ascending, is_text=is_text)
        return
    if entity != "metrics":
        raise invalid(f"order_by: {order.field!r}; of these only metrics.<name>")
    where = [order.dataset] if order.dataset.name else []
    newest = (
        f"(SELECT CASE WHEN x.is_nan THEN NULL ELSE x.value END FROM {METRICS} x "  # noqa: S608 - names of ours
        f"WHERE x.model_id = m.model_id AND x.key = {query.bind(key)}"
        f"{_measured_on(query, where)} "
        "ORDER BY x.timestamp_ms DESC, x.step DESC, x.run_id LIMIT 1)"
    )
    query.sort(newest, is_ascending=order.is_ascending)
