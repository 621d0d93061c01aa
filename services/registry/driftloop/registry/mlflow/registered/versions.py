"""Versions of registered models: MLflow's ``model-versions/…`` calls."""

import uuid
from typing import Any

from driftloop.contracts import registered as r
from driftloop.contracts.events import BlobRef
from driftloop.registry.mlflow import limits
from driftloop.registry.mlflow.call import DEFAULT_USER, Call, Json, page
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.filters import IS_PROMPT
from driftloop.registry.mlflow.registered.models import (
    has_tag,
    name_of,
    stage_of,
)
from driftloop.registry.mlflow.registered.rows import (
    AnyRow,
    model_of,
    version_of,
    versions_json,
)
from driftloop.registry.mlflow.registered.search import versions_query
from driftloop.registry.mlflow.registered.shown import PREFIX
from driftloop.registry.mlflow.registered.sources import PROMPTS, Source, resolve
from sqlalchemy import Connection, text

DEFAULT_PAGE, MAX_PAGE = 10_000, 200_000
ACTIVE = ("Staging", "Production")
_IN_STAGE = text(
    "SELECT version FROM mlflow_model_version WHERE name = :name AND stage = :stage "
    "AND version <> :version AND NOT is_deleted ORDER BY version"
)


def create(call: Call) -> Json:
    """Register a version; what it is made from has to be kept here.

    Under a pipeline's name it has to be a model that the pipeline can serve. It is
    pending until the trainer has measured it; then the gate judges it like any other.
    """
    name, source, tags = name_of(call), call.text("source"), call.tags()
    limits.check_model_tags(tags)
    try:
        return _create(call, name, source, tags, None)
    except _OfPipelineError:
        return _create(call, name, source, tags, _served(call, name, source, tags))


class _OfPipelineError(Exception):
    """A name turned out to be a pipeline's."""


def _create(
    call: Call, name: str, source: str, tags: dict[str, str], served: BlobRef | None
) -> Json:
    made: list[int] = []

    def decide(connection: Connection) -> r.VersionCreated:
        found = _source(connection, call, source, tags)
        model_of(connection, call.pipelines, name)
        if served is None and call.pipelines.has(connection, name):
            raise _OfPipelineError
        version = call.pipelines.next_version(connection, name)
        made.append(version)
        return r.VersionCreated(
            name=name,
            version=version,
            source=found.source,
            location=found.location,
            run_id=found.run_id,
            run_link=call.text("run_link", ""),
            model_id=found.model_id,
            description=call.text("description", ""),
            user="" if call.by == DEFAULT_USER else call.by,
            tags=tags if served is None else _own_tags(tags),
            **_pending(served),
        )

    return call.write(decide, lambda connection: _shown(connection, name, made[0]))


def _served(call: Call, name: str, source: str, tags: dict[str, str]) -> BlobRef:
    """Return the model of a source that a pipeline can serve."""
    with call.reading() as connection:
        found = _source(connection, call, source, tags)
        return call.pipelines.model_of(connection, name, found)


def _own_tags(tags: dict[str, str]) -> dict[str, str]:
    """Leave out what the loop said about the version that this one is a copy of."""
    return {k: value for k, value in tags.items() if not k.startswith(PREFIX)}


def _pending(served: BlobRef | None) -> dict[str, Any]:
    if served is None:
        return {}
    return {
        "status": "PENDING_REGISTRATION",
        "job_id": str(uuid.uuid4()),
        "model_sha256": served.sha256,
        "model_bytes": served.size_bytes,
    }


def _source(
    connection: Connection, call: Call, source: str, tags: dict[str, str]
) -> Source:
    if tags.get(IS_PROMPT, "").lower() == "true":
        if source not in PROMPTS:
            raise invalid(f"source: {source!r}: a prompt has no files")
        return Source(source, source, call.text("run_id", ""), "")
    return resolve(connection, source, call.maybe("run_id"), call.maybe("model_id"))


def _whole(call: Call, name: str, version: int) -> Json:
    with call.reading() as connection:
        return _shown(connection, name, version)


def _shown(connection: Connection, name: str, version: int) -> Json:
    row = version_of(connection, name, version)
    return {"model_version": versions_json(connection, [row], with_aliases=True)[0]}


def get(call: Call) -> Json:
    return _whole(call, name_of(call), call.version())


def download_uri(call: Call) -> Json:
    with call.reading() as connection:
        row = version_of(connection, name_of(call), call.version())
        return {"artifact_uri": row.location}


def update(call: Call) -> Json:
    name, version = name_of(call), call.version()
    description = call.text("description", "")

    def decide(connection: Connection) -> r.VersionDescribed:
        version_of(connection, name, version)
        return r.VersionDescribed(name=name, version=version, description=description)

    return call.write(decide, lambda connection: _shown(connection, name, version))


def delete(call: Call) -> Json:
    """Delete a version that a client registered; the loop keeps its own."""
    name, version = name_of(call), call.version()

    def decide(connection: Connection) -> r.VersionDeleted:
        version_of(connection, name, version)
        _check_a_record(call, connection, name, version, "deleted")
        return r.VersionDeleted(name=name, version=version)

    call.write(decide)
    return {}


def _check_a_record(
    call: Call, connection: Connection, name: str, version: int, what: str
) -> None:
    if call.pipelines.is_judged(connection, name, version):
        raise Refusal(
            "RESOURCE_CONFLICT",
            f"version: {name} version {version} belongs to the loop's history and "
            f"cannot be {what}; reject it, or roll back with driftloop rollback",
        )


def search(call: Call) -> Json:
    """Find versions; those of pipelines are among them."""
    size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
    with call.reading() as connection:
        query, start = versions_query(
            connection.dialect.name, call.text("filter", ""), call.texts("order_by")
        )
        sql = query.sql(start, size + 1, offset)
        rows = connection.execute(text(sql), query.values).all()
        found = page("model_versions", [{}] * len(rows), size, offset)
        if rows:
            found["model_versions"] = versions_json(connection, rows[:size])
        return found


def move(call: Call) -> Json:
    """Put a version into a stage; of a pipeline, ``Production`` asks for it."""
    name, version = name_of(call), call.version()
    stage = stage_of(call.text("stage"))
    is_alone = call.flag("archive_existing_versions")
    if is_alone and stage not in ACTIVE:
        raise invalid(
            f"archive_existing_versions: others leave {' or '.join(ACTIVE)} only, "
            f"not {stage!r}"
        )
    with call.reading() as connection:
        row = version_of(connection, name, version)
        is_judged = call.pipelines.is_judged(connection, name, version)
    if is_judged:
        _ask(call, row, stage)
        return _whole(call, name, version)

    def decide(connection: Connection) -> r.StageMoved:
        version_of(connection, name, version)
        values = {"name": name, "stage": stage, "version": version}
        others = connection.execute(_IN_STAGE, values) if is_alone else ()
        archived = [other.version for other in others]
        return r.StageMoved(name=name, version=version, stage=stage, archived=archived)

    return call.write(decide, lambda connection: _shown(connection, name, version))


def _ask(call: Call, row: AnyRow, stage: str) -> None:
    """Ask for what a stage of a pipeline's version stands for."""
    if stage == row.stage:
        return
    if stage != "Production":
        raise Refusal(
            "RESOURCE_CONFLICT",
            f"stage: that of {row.name} version {row.version} follows from the loop: "
            f"it is {row.stage!r}; 'Production' asks for the version, driftloop reject "
            "and driftloop rollback take one out",
        )
    call.pipelines.promote(row.name, row.version, call.by)


def set_tag(call: Call) -> Json:
    name, version = name_of(call), call.version()
    key, value = call.text("key"), call.text("value", "")
    limits.check_model_tags({key: value}, "tag")

    def decide(connection: Connection) -> r.ModelTagSet:
        version_of(connection, name, version)
        call.pipelines.check_tag(connection, name, key)
        return r.ModelTagSet(name=name, version=version, key=key, value=value)

    call.write(decide)
    return {}


def delete_tag(call: Call) -> Json:
    """Delete a tag; one that is not there is no mistake, as in MLflow."""
    name, version, key = name_of(call), call.version(), call.text("key")
    limits.check_key(key, "tag")

    def decide(connection: Connection) -> r.ModelTagDeleted | None:
        version_of(connection, name, version)
        if not has_tag(connection, name, version, key):
            return None
        return r.ModelTagDeleted(name=name, version=version, key=key)

    call.write(decide)
    return {}
