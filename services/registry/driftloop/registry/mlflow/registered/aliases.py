"""Aliases: MLflow's ``registered-models/alias`` calls.

Of a pipeline ``champion``, ``previous`` and ``candidate`` follow from what is in
service. To set ``champion`` is to ask for that version; see ``pipelines.py``.
"""

from driftloop.contracts import registered as r
from driftloop.registry.mlflow import limits
from driftloop.registry.mlflow.call import Call, Json
from driftloop.registry.mlflow.errors import absent, invalid
from driftloop.registry.mlflow.registered.models import name_of
from driftloop.registry.mlflow.registered.pipelines import CHAMPION
from driftloop.registry.mlflow.registered.rows import (
    aliases_of,
    latest_of,
    model_of,
    version_of,
    versions_json,
)
from sqlalchemy import Connection, text

LATEST = "latest"
_MEANT = text(
    "SELECT version FROM mlflow_model_alias WHERE name = :name AND alias = :alias"
)


def put(call: Call) -> Json:
    """Let an alias mean a version."""
    name, alias, version = name_of(call), call.text("alias"), call.version()
    limits.check_alias(alias)
    if alias == CHAMPION:
        with call.reading() as connection:
            version_of(connection, name, version)
            is_pipelines = call.pipelines.has(connection, name)
        if is_pipelines:
            call.pipelines.promote(name, version, call.by)
            return {}

    def decide(connection: Connection) -> r.AliasSet | None:
        version_of(connection, name, version)
        call.pipelines.check_alias(connection, name, alias)
        before = connection.execute(_MEANT, {"name": name, "alias": alias}).scalar()
        if before == version:
            return None
        return r.AliasSet(name=name, alias=alias, version=version)

    call.write(decide)
    return {}


def delete(call: Call) -> Json:
    """Take an alias away; one that is not there is no mistake, as in MLflow."""
    name, alias = name_of(call), call.text("alias")
    limits.check_alias(alias)

    def decide(connection: Connection) -> r.AliasDeleted | None:
        model_of(connection, call.pipelines, name)
        call.pipelines.check_alias(connection, name, alias)
        values = {"name": name, "alias": alias}
        if connection.execute(_MEANT, values).first() is None:
            return None
        return r.AliasDeleted(name=name, alias=alias)

    call.write(decide)
    return {}


def get(call: Call) -> Json:
    """Return the version that an alias means; ``latest`` is the newest one."""
    name, alias = name_of(call), call.text("alias")
    with call.reading() as connection:
        if alias.lower() == LATEST:
            model_of(connection, call.pipelines, name)
            rows = latest_of(connection, [name])
            if not rows:
                raise absent(f"name: {name!r} has no version yet")
            row = max(rows, key=lambda row: int(row.version))
        else:
            version = aliases_of(connection, [name])[name].get(alias)
            if version is None:
                model_of(connection, call.pipelines, name)
                raise invalid(f"alias: {name!r} has no alias {alias!r}")
            row = version_of(connection, name, version)
        return {"model_version": versions_json(connection, [row], with_aliases=True)[0]}
