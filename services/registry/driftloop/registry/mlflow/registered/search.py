"""Queries for registered models and versions: the clients' own and the pipelines'."""

from collections.abc import Mapping, Sequence

from driftloop.registry.mlflow.errors import invalid
from driftloop.registry.mlflow.filters import (
    IS_PROMPT,
    MODELS,
    VERSIONS,
    Comparison,
    Grammar,
    parse_filter,
    parse_order,
)
from driftloop.registry.mlflow.registered.pipelines import Times
from driftloop.registry.mlflow.search import Query, distinct

VERSION_ROWS = """
SELECT v.name, v.version, coalesce(s.created_ms, v.created_ms) AS created_ms,
  CASE WHEN s.updated_ms > v.updated_ms THEN s.updated_ms ELSE v.updated_ms END
    AS updated_ms,
  coalesce(v.description, '') AS description, v."user",
  coalesce(v.source, s.source) AS source, coalesce(s.source, v.location) AS location,
  v.run_id, v.run_link, v.model_id,
  CASE WHEN s.name IS NOT NULL THEN 'READY'
    WHEN f.job_id IS NOT NULL THEN 'FAILED_REGISTRATION' ELSE v.status END AS status,
  coalesce(s.status_message, f.error, '') AS status_message,
  coalesce(s.stage, v.stage) AS stage
FROM mlflow_model_version v
LEFT JOIN registry_shown_version s ON s.name = v.name AND s.version = v.version
LEFT JOIN registry_failed_submission f ON f.job_id = v.job_id
WHERE NOT v.is_deleted AND (v.source IS NOT NULL OR s.name IS NOT NULL)
UNION ALL
SELECT s.name, s.version, s.created_ms, s.updated_ms, '', '', s.source, s.source,
  '', '', '', 'READY', s.status_message, s.stage
FROM registry_shown_version s
WHERE NOT EXISTS (SELECT 1 FROM mlflow_model_version v
  WHERE v.name = s.name AND v.version = s.version)
"""
TAG_ROWS = """
SELECT name, version, key, value FROM mlflow_model_tag
UNION ALL SELECT name, version, key, value FROM registry_shown_tag
"""
MODEL_ROWS = """
SELECT m.name, m.description, coalesce(p.created_ms, m.created_ms) AS created_ms,
  CASE WHEN p.updated_ms > m.updated_ms THEN p.updated_ms ELSE m.updated_ms END
    AS updated_ms
FROM mlflow_model m LEFT JOIN pipeline p ON p.name = m.name
UNION ALL
SELECT p.name, '', p.created_ms, p.updated_ms FROM pipeline p
WHERE NOT EXISTS (SELECT 1 FROM mlflow_model m WHERE m.name = p.name)
"""
MODEL_COLUMNS = {"name": "x.name", "last_updated_timestamp": "x.updated_ms"}
VERSION_COLUMNS = {
    "name": "x.name",
    "version_number": "x.version",
    "run_id": "x.run_id",
    "source_path": "x.source",
    "creation_timestamp": "x.created_ms",
    "last_updated_timestamp": "x.updated_ms",
}
NEWEST_FIRST = ("last_updated_timestamp DESC", "name ASC", "version_number DESC")


def pipelines_table(query: Query, pipelines: Times) -> str:
    """Return a WITH clause that names the pipelines."""
    rows = [
        f"(CAST({query.bind(name)} AS TEXT), CAST({query.bind(created)} AS BIGINT), "
        f"CAST({query.bind(updated)} AS BIGINT))"
        for name, (created, updated) in pipelines.items()
    ]
    content = f"VALUES {', '.join(rows)}"
    if not rows:
        none = "CAST('' AS TEXT), CAST(0 AS BIGINT), CAST(0 AS BIGINT)"
        content = f"SELECT {none} WHERE 1 = 0"
    return f"WITH pipeline (name, created_ms, updated_ms) AS ({content}) "


def models_query(
    dialect: str, pipelines: Times, text: str, order_by: Sequence[str]
) -> tuple[Query, str]:
    """Return the query for registered models ``x``, and its beginning."""
    query = Query(dialect, conditions=["1 = 1"])
    start = pipelines_table(query, pipelines)
    wanted = parse_filter(text, MODELS)
    _filter(query, wanted, MODEL_COLUMNS, "t.name = x.name AND t.version = 0")
    _order(query, order_by, MODELS, MODEL_COLUMNS, {"x.name": "ASC"})
    return query, f"{start}SELECT x.* FROM ({MODEL_ROWS}) x"  # noqa: S608 - text of ours


def versions_query(
    dialect: str, text: str, order_by: Sequence[str]
) -> tuple[Query, str]:
    """Return the query for versions ``x``, and its beginning."""
    query = Query(dialect, conditions=["1 = 1"])
    wanted = parse_filter(text, VERSIONS)
    owner = "t.name = x.name AND t.version = x.version"
    _filter(query, wanted, VERSION_COLUMNS, owner)
    last = {"x.name": "ASC", "x.version": "DESC"}
    _order(query, order_by or NEWEST_FIRST, VERSIONS, VERSION_COLUMNS, last)
    return query, f"SELECT x.* FROM ({VERSION_ROWS}) x"  # noqa: S608 - text of ours


def _filter(
    query: Query,
    comparisons: Sequence[Comparison],
    columns: Mapping[str, str],
    owner: str,
) -> None:
    """Add conditions; what holds a prompt is left out unless it is asked for.

    As in MLflow: the first comparison with the prompts' tag decides.
    """
    about = next((c for c in comparisons if c.key.name == IS_PROMPT), None)
    is_prompts = about is not None and (about.operator, about.values[0]) in {
        ("=", "true"), ("!=", "false"),
    }  # fmt: skip
    if not is_prompts:
        level = "=" if "t.version = 0" in owner else ">"
        query.conditions.append(
            f"NOT EXISTS (SELECT 1 FROM mlflow_model_tag t WHERE t.name = x.name "  # noqa: S608 - names of ours
            f"AND t.version {level} 0 AND t.key = '{IS_PROMPT}' AND t.value = 'true')"
        )
    for each in comparisons:
        if each.key.entity == "attribute":
            if isinstance(each.values[0], float):
                raise invalid(f"filter: {each.key.name} is a whole number")
            column = columns[each.key.name]
            query.conditions.append(query.compared(column, each.operator, each.values))
        elif each.key.name != IS_PROMPT or is_prompts:
            key = query.bind(each.key.name)
            value = query.compared("t.value", each.operator, each.values)
            query.conditions.append(
                f"EXISTS (SELECT 1 FROM ({TAG_ROWS}) t "  # noqa: S608 - as above
                f"WHERE {owner} AND t.key = {key} AND {value})"
            )


def _order(
    query: Query,
    order_by: Sequence[str],
    grammar: Grammar,
    columns: Mapping[str, str],
    last: Mapping[str, str],
) -> None:
    orders = distinct(parse_order(each, grammar) for each in order_by)
    for order in orders:
        query.sort(
            columns[order.key.name],
            is_ascending=order.is_ascending,
            is_text=order.key.name == "name",
        )
    sorted_by = {columns[order.key.name] for order in orders}
    for column, direction in last.items():
        if column not in sorted_by:
            query.sort(
                column, is_ascending=direction == "ASC", is_text=column == "x.name"
            )
