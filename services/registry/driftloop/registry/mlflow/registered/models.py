"""Registered models: MLflow's ``registered-models/…`` calls, but for aliases."""

from driftloop.contracts import registered as r
from driftloop.registry.mlflow import limits
from driftloop.registry.mlflow.call import Call, Json, page
from driftloop.registry.mlflow.errors import exists, invalid
from driftloop.registry.mlflow.registered.rows import (
    latest_of,
    model_of,
    models_json,
    versions_json,
)
from driftloop.registry.mlflow.registered.search import models_query
from sqlalchemy import Connection, text

DEFAULT_PAGE, MAX_PAGE = 100, 1000
STAGES: tuple[r.Stage, ...] = ("None", "Staging", "Production", "Archived")
_KNOWN = text("SELECT 1 FROM mlflow_model WHERE name = :name")
_TAG = text(
    "SELECT 1 FROM mlflow_model_tag "
    "WHERE name = :name AND version = :version AND key = :key"
)


def create(call: Call) -> Json:
    """Make a registered model; a pipeline's name is taken by the pipeline."""
    name, tags = call.text("name"), call.tags()
    limits.check_model_name(name)
    limits.check_model_tags(tags)
    description = call.text("description", "")

    def decide(connection: Connection) -> r.ModelCreated:
        if call.pipelines.has(connection, name):
            raise exists(f"name: {name!r} is a pipeline; register versions under it")
        _check_free(connection, name, "name")
        return r.ModelCreated(name=name, description=description, tags=tags)

    call.write(decide)
    return _whole(call, name)


def _check_free(connection: Connection, name: str, field: str) -> None:
    if connection.execute(_KNOWN, {"name": name}).first() is not None:
        raise exists(f"{field}: there is a registered model {name!r}")


def _whole(call: Call, name: str) -> Json:
    with call.reading() as connection:
        row = model_of(connection, call.pipelines, name)
        return {"registered_model": models_json(connection, [row])[0]}


def name_of(call: Call) -> str:
    name = call.text("name")
    limits.check_model_name(name)
    return name


def get(call: Call) -> Json:
    return _whole(call, name_of(call))


def update(call: Call) -> Json:
    name, description = name_of(call), call.text("description", "")

    def decide(connection: Connection) -> r.ModelDescribed:
        model_of(connection, call.pipelines, name)
        return r.ModelDescribed(name=name, description=description)

    call.write(decide)
    return _whole(call, name)


def rename(call: Call) -> Json:
    """Give a registered model another name; a pipeline keeps the one of its file."""
    name, new_name = name_of(call), call.text("new_name")
    limits.check_model_name(new_name, "new_name")

    def decide(connection: Connection) -> r.ModelRenamed | None:
        model_of(connection, call.pipelines, name)
        call.pipelines.check_not_ours(connection, name, "renamed")
        if new_name == name:
            return None
        if call.pipelines.has(connection, new_name):
            raise exists(f"new_name: {new_name!r} is a pipeline")
        _check_free(connection, new_name, "new_name")
        return r.ModelRenamed(name=name, new_name=new_name)

    call.write(decide)
    return _whole(call, new_name)


def delete(call: Call) -> Json:
    """Delete a registered model with its versions; never a pipeline."""
    name = name_of(call)

    def decide(connection: Connection) -> r.ModelDeleted:
        model_of(connection, call.pipelines, name)
        call.pipelines.check_not_ours(connection, name, "deleted")
        return r.ModelDeleted(name=name)

    call.write(decide)
    return {}


def search(call: Call) -> Json:
    """Find registered models; pipelines are among them."""
    size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
    with call.reading() as connection:
        query, start = models_query(
            connection.dialect.name,
            call.pipelines.times(connection),
            call.text("filter", ""),
            call.texts("order_by"),
        )
        sql = query.sql(start, size + 1, offset)
        rows = connection.execute(text(sql), query.values).all()
        found = page("registered_models", [{}] * len(rows), size, offset)
        if rows:
            found["registered_models"] = models_json(connection, rows[:size])
        return found


def latest(call: Call) -> Json:
    """Return the newest version of each stage, or of the stages asked for."""
    name = name_of(call)
    stages = {stage_of(each) for each in call.texts("stages")} or set(STAGES)
    with call.reading() as connection:
        model_of(connection, call.pipelines, name)
        rows = [r for r in latest_of(connection, [name]) if r.stage in stages]
        if not rows:
            return {}
        found = versions_json(connection, rows, with_aliases=True)
        return {"model_versions": found}


def stage_of(text: str) -> r.Stage:
    """Return a stage's name as it is written; any capitals are understood."""
    for stage in STAGES:
        if text.lower() == stage.lower():
            return stage
    raise invalid(f"stage: {text!r} is none of {', '.join(STAGES)}")


def set_tag(call: Call) -> Json:
    name, key, value = name_of(call), call.text("key"), call.text("value", "")
    limits.check_model_tags({key: value}, "tag")

    def decide(connection: Connection) -> r.ModelTagSet:
        model_of(connection, call.pipelines, name)
        call.pipelines.check_tag(connection, name, key)
        return r.ModelTagSet(name=name, key=key, value=value)

    call.write(decide)
    return {}


def delete_tag(call: Call) -> Json:
    """Delete a tag; one that is not there is no mistake, as in MLflow."""
    name, key = name_of(call), call.text("key")
    limits.check_key(key, "tag")

    def decide(connection: Connection) -> r.ModelTagDeleted | None:
        model_of(connection, call.pipelines, name)
        if not has_tag(connection, name, 0, key):
            return None
        return r.ModelTagDeleted(name=name, key=key)

    call.write(decide)
    return {}


def has_tag(connection: Connection, name: str, version: int, key: str) -> bool:
    """Whether a client wrote a tag; version 0: of the model itself."""
    values = {"name": name, "version": version, "key": key}
    return connection.execute(_TAG, values).first() is not None
