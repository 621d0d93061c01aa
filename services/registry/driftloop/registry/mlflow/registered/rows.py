"""Registered models and versions as answers: rows, with what belongs to them."""

from collections.abc import Iterable, Sequence
from typing import Any

from driftloop.registry.mlflow.call import Json
from driftloop.registry.mlflow.errors import absent
from driftloop.registry.mlflow.registered.pipelines import Pipelines
from driftloop.registry.mlflow.registered.search import (
    MODEL_ROWS,
    TAG_ROWS,
    VERSION_ROWS,
    pipelines_table,
)
from driftloop.registry.mlflow.search import Query
from sqlalchemy import Connection, Row, bindparam, text

AnyRow = Row[tuple[Any, ...]]
NAMES_AT_ONCE = 500
_VERSION = text(
    f"SELECT x.* FROM ({VERSION_ROWS}) x WHERE x.name = :name AND x.version = :version"  # noqa: S608 - text of ours
)
_LATEST = text(
    "SELECT * FROM (SELECT x.*, row_number() OVER (PARTITION BY x.name, x.stage "  # noqa: S608 - as above
    f"ORDER BY x.version DESC) AS place FROM ({VERSION_ROWS}) x "
    "WHERE x.name IN :names) y WHERE y.place = 1 ORDER BY y.name, y.version"
).bindparams(bindparam("names", expanding=True))
_TAGS = text(
    f"SELECT t.* FROM ({TAG_ROWS}) t WHERE t.name IN :names "  # noqa: S608 - as above
    "AND t.version IN :versions ORDER BY t.key"
).bindparams(bindparam("names", expanding=True), bindparam("versions", expanding=True))
_ALIASES = text(
    "SELECT name, alias, version, 1 AS is_ours FROM registry_shown_alias "
    "WHERE name IN :names "
    "UNION ALL SELECT name, alias, version, 0 FROM mlflow_model_alias "
    "WHERE name IN :names ORDER BY is_ours, alias"
).bindparams(bindparam("names", expanding=True))


def model_of(connection: Connection, pipelines: Pipelines, name: str) -> AnyRow:
    """Return a registered model's row.

    Raises
    ------
    Refusal
        When there is none.
    """
    query = Query(connection.dialect.name)
    start = pipelines_table(query, pipelines.times(connection, name))
    sql = f"{start}SELECT x.* FROM ({MODEL_ROWS}) x WHERE x.name = {query.bind(name)}"  # noqa: S608 - text of ours
    row = connection.execute(text(sql), query.values).first()
    if row is None:
        raise absent(f"name: there is no registered model {name!r}")
    return row


def version_of(connection: Connection, name: str, version: int) -> AnyRow:
    """Return a version's row.

    Raises
    ------
    Refusal
        When there is none.
    """
    row = connection.execute(_VERSION, {"name": name, "version": version}).first()
    if row is None:
        raise absent(f"version: {name!r} has no version {version}")
    return row


def aliases_of(
    connection: Connection, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return, by model, what its aliases mean; the loop's own count first."""
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in connection.execute(_ALIASES, {"names": list(names)}):
        found[row.name][row.alias] = row.version
    return found


def latest_of(connection: Connection, names: Sequence[str]) -> list[AnyRow]:
    """Return the newest version of each stage of some models."""
    return list(connection.execute(_LATEST, {"names": list(names)}))


def models_json(connection: Connection, rows: Sequence[AnyRow]) -> list[Json]:
    found: list[Json] = []
    for start in range(0, len(rows), NAMES_AT_ONCE):
        part = rows[start : start + NAMES_AT_ONCE]
        names = [row.name for row in part]
        aliases, newest = aliases_of(connection, names), latest_of(connection, names)
        tags = _tags_of(connection, names, {0, *(row.version for row in newest)})
        latest: dict[str, list[Json]] = {name: [] for name in names}
        for row, shown in zip(newest, _versions(newest, tags), strict=True):
            latest[row.name].append(shown)
        found += [
            {
                "name": row.name,
                "creation_timestamp": row.created_ms,
                "last_updated_timestamp": row.updated_ms,
                "description": row.description,
                "latest_versions": latest[row.name],
                "tags": tags.get((row.name, 0), []),
                "aliases": [
                    {"alias": alias, "version": str(version)}
                    for alias, version in sorted(aliases[row.name].items())
                ],
            }
            for row in part
        ]
    return found


def versions_json(
    connection: Connection, rows: Sequence[AnyRow], *, with_aliases: bool = False
) -> list[Json]:
    """Return versions with their tags.

    Parameters
    ----------
    with_aliases : lists of many leave them out, as MLflow's do.
    """
    found: list[Json] = []
    for start in range(0, len(rows), NAMES_AT_ONCE):
        part = rows[start : start + NAMES_AT_ONCE]
        names = sorted({row.name for row in part})
        tags = _tags_of(connection, names, {row.version for row in part})
        shown = _versions(part, tags)
        if with_aliases:
            aliases = aliases_of(connection, names)
            for row, version in zip(part, shown, strict=True):
                mine = aliases[row.name].items()
                version["aliases"] = sorted(a for a, v in mine if v == row.version)
        found += shown
    return found


def _tags_of(
    connection: Connection, names: Sequence[str], versions: set[int]
) -> dict[tuple[str, int], list[Json]]:
    found: dict[tuple[str, int], list[Json]] = {}
    values = {"names": list(names), "versions": sorted(versions)}
    for row in connection.execute(_TAGS, values):
        tags = found.setdefault((row.name, row.version), [])
        tags.append({"key": row.key, "value": row.value})
    return found


def _versions(
    rows: Iterable[AnyRow], tags: dict[tuple[str, int], list[Json]]
) -> list[Json]:
    return [
        {
            "name": row.name,
            "version": str(row.version),
            "creation_timestamp": row.created_ms,
            "last_updated_timestamp": row.updated_ms,
            "user_id": row.user,
            "current_stage": row.stage,
            "description": row.description,
            "source": row.source,
            "run_id": row.run_id,
            "status": row.status,
            **({"status_message": row.status_message} if row.status_message else {}),
            "tags": tags.get((row.name, row.version), []),
            "run_link": row.run_link,
            "model_id": row.model_id,
        }
        for row in rows
    ]
