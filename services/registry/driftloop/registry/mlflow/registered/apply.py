"""Changes of registered models to rows; see ``apply.py``.

A statement about a version of the loop's own may be read before that version is, since
it comes from another topic: it is kept as a note, a row without a source.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from driftloop.contracts import registered as r
from driftloop.contracts.events import TrackingChanged
from sqlalchemy import Connection, Row, text

_OF_MODEL = (
    "mlflow_model",
    "mlflow_model_tag",
    "mlflow_model_version",
    "mlflow_model_alias",
    "mlflow_model_move",
)
_MODEL = (
    "INSERT INTO mlflow_model (name, description, created_ms, updated_ms) "
    "VALUES (:name, :description, :at, :at) ON CONFLICT (name) DO UPDATE SET "
    "description = excluded.description, updated_ms = excluded.updated_ms"
)
_TAG = (
    "INSERT INTO mlflow_model_tag (name, version, key, value) "
    "VALUES (:name, :version, :key, :value) "
    "ON CONFLICT (name, version, key) DO UPDATE SET value = excluded.value"
)
_VERSION = (
    "INSERT INTO mlflow_model_version (name, version, created_ms, updated_ms, "
    'description, "user", source, location, run_id, run_link, model_id, status, '
    "job_id, stage, is_deleted) VALUES (:name, :version, :at, :at, :description, "
    ":user, :source, :location, :run_id, :run_link, :model_id, :status, :job_id, "
    "'None', false)"
)
_NOTE = (
    "INSERT INTO mlflow_model_version (name, version, created_ms, updated_ms, "
    '"user", run_id, run_link, model_id, status, job_id, stage, is_deleted) '
    "VALUES (:name, :version, :at, :at, '', '', '', '', 'READY', '', 'None', false) "
    "ON CONFLICT (name, version) DO UPDATE SET updated_ms = excluded.updated_ms"
)
_ALIAS = (
    "INSERT INTO mlflow_model_alias (name, alias, version) "
    "VALUES (:name, :alias, :version) "
    "ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version"
)
_MOVE = (
    "INSERT INTO mlflow_model_move (revision, version, subject, name, at_ms, "
    '"by", "before", "after") '
    "VALUES (:revision, :version, :subject, :name, :at, :by, :before, :after)"
)


@dataclass(frozen=True, slots=True)
class Written:
    """One event's statements."""

    connection: Connection
    event: TrackingChanged

    def do(self, statement: str, **values: Any) -> None:
        self.connection.execute(text(statement), values | {"at": self.event.at_ms})

    def first(self, query: str, **values: Any) -> Row[Any] | None:
        return self.connection.execute(text(query), values).first()

    def touch(self, name: str) -> None:
        """Note when a model changed; of a pipeline there may be nothing to note it."""
        self.do(
            "UPDATE mlflow_model SET updated_ms = :at WHERE name = :name", name=name
        )

    def tag(self, name: str, version: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.do(_TAG, name=name, version=version, key=key, value=value)

    def move(
        self,
        name: str,
        version: int,
        subject: str,
        before: str | None,
        after: str | None,
    ) -> None:
        """Write down who moved an alias, or a version's stage."""
        self.do(
            _MOVE,
            revision=self.event.revision,
            version=version,
            subject=subject,
            name=name,
            by=self.event.by,
            before=before,
            after=after,
        )


def _created(write: Written, change: r.ModelCreated) -> None:
    write.do(_MODEL, name=change.name, description=change.description)
    write.tag(change.name, 0, change.tags)


def _described(write: Written, change: r.ModelDescribed) -> None:
    write.do(_MODEL, name=change.name, description=change.description)


def _renamed(write: Written, change: r.ModelRenamed) -> None:
    for table in _OF_MODEL:
        write.do(
            f"UPDATE {table} SET name = :new WHERE name = :name",  # noqa: S608 - names of ours
            name=change.name,
            new=change.new_name,
        )
    for table in ("mlflow_model", "mlflow_model_version"):
        write.do(
            f"UPDATE {table} SET updated_ms = :at WHERE name = :name",  # noqa: S608 - as above
            name=change.new_name,
        )


def _deleted(write: Written, change: r.ModelDeleted) -> None:
    for table in _OF_MODEL:
        write.do(f"DELETE FROM {table} WHERE name = :name", name=change.name)  # noqa: S608 - names of ours


def _tag_set(write: Written, change: r.ModelTagSet) -> None:
    write.tag(change.name, change.version or 0, {change.key: change.value})


def _tag_deleted(write: Written, change: r.ModelTagDeleted) -> None:
    write.do(
        "DELETE FROM mlflow_model_tag "
        "WHERE name = :name AND version = :version AND key = :key",
        name=change.name,
        version=change.version or 0,
        key=change.key,
    )


def _version_created(write: Written, change: r.VersionCreated) -> None:
    left_out = {"kind", "tags", "model_sha256", "model_bytes"}
    values = change.model_dump(exclude=left_out)
    write.do(_VERSION, **values)
    write.tag(change.name, change.version, change.tags)
    write.touch(change.name)


def _version_described(write: Written, change: r.VersionDescribed) -> None:
    write.do(_NOTE, name=change.name, version=change.version)
    write.do(
        "UPDATE mlflow_model_version SET description = :description "
        "WHERE name = :name AND version = :version",
        name=change.name,
        version=change.version,
        description=change.description,
    )


def _version_deleted(write: Written, change: r.VersionDeleted) -> None:
    name, version = change.name, change.version
    query = "SELECT alias FROM mlflow_model_alias WHERE name = :n AND version = :v"
    gone = text(f"{query} ORDER BY alias")
    for row in write.connection.execute(gone, {"n": name, "v": version}).all():
        _alias_deleted(write, r.AliasDeleted(name=name, alias=row.alias))
    write.do(
        "UPDATE mlflow_model_version SET is_deleted = true, updated_ms = :at "
        "WHERE name = :name AND version = :version",
        name=name,
        version=version,
    )
    write.touch(name)


_MEANT = "SELECT version FROM mlflow_model_alias WHERE name = :name AND alias = :alias"


def _alias_set(write: Written, change: r.AliasSet) -> None:
    name, alias, version = change.name, change.alias, change.version
    before = write.first(_MEANT, name=name, alias=alias)
    write.do(_ALIAS, name=name, alias=alias, version=version)
    was = str(before.version) if before else None
    write.move(name, version, f"alias:{alias}", was, str(version))


def _alias_deleted(write: Written, change: r.AliasDeleted) -> None:
    name, alias = change.name, change.alias
    before = write.first(_MEANT, name=name, alias=alias)
    if before is None:
        return
    write.do(
        "DELETE FROM mlflow_model_alias WHERE name = :name AND alias = :alias",
        name=name,
        alias=alias,
    )
    write.move(name, before.version, f"alias:{alias}", str(before.version), None)


def _stage_moved(write: Written, change: r.StageMoved) -> None:
    stages: Iterable[tuple[int, str]] = [
        *((version, "Archived") for version in change.archived),
        (change.version, change.stage),
    ]
    for version, stage in stages:
        row = write.first(
            "SELECT stage FROM mlflow_model_version "
            "WHERE name = :name AND version = :version",
            name=change.name,
            version=version,
        )
        write.do(
            "UPDATE mlflow_model_version SET stage = :stage, updated_ms = :at "
            "WHERE name = :name AND version = :version",
            name=change.name,
            version=version,
            stage=stage,
        )
        write.move(change.name, version, "stage", row.stage if row else None, stage)
    write.touch(change.name)


APPLY_REGISTERED: dict[type[Any], Callable[[Written, Any], None]] = {
    r.ModelCreated: _created,
    r.ModelDescribed: _described,
    r.ModelRenamed: _renamed,
    r.ModelDeleted: _deleted,
    r.ModelTagSet: _tag_set,
    r.ModelTagDeleted: _tag_deleted,
    r.VersionCreated: _version_created,
    r.VersionDescribed: _version_described,
    r.VersionDeleted: _version_deleted,
    r.AliasSet: _alias_set,
    r.AliasDeleted: _alias_deleted,
    r.StageMoved: _stage_moved,
}
