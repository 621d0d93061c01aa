"""Changes of logged models and of files, made in the tables; see ``apply.py``."""

import math
from collections.abc import Callable
from typing import Any, Protocol

from driftloop.contracts import tracking as t

Values = dict[str, Any]


class Rows(Protocol):
    """One change's statements, and when it was made."""

    at_ms: int

    def do(self, statement: str, values: Values | list[Values]) -> None:
        """Execute a statement for each of the values; none: not at all."""
        ...


def _file_stored(rows: Rows, change: t.FileStored) -> None:
    rows.do(
        "INSERT INTO mlflow_file (owner, path, sha256, size_bytes) "
        "VALUES (:owner, :path, :sha256, :size_bytes) ON CONFLICT (owner, path) "
        "DO UPDATE SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes",
        change.model_dump(exclude={"kind"}),
    )


def _files_deleted(rows: Rows, change: t.FilesDeleted) -> None:
    statement = "DELETE FROM mlflow_file WHERE owner = :owner"
    values: Values = {"owner": change.owner}
    if change.path:
        folder = f"{change.path}/"
        statement += " AND (path = :path OR substr(path, 1, :length) = :folder)"
        values |= {"path": change.path, "folder": folder, "length": len(folder)}
    rows.do(statement, values)


def _model_created(rows: Rows, change: t.LoggedModelCreated) -> None:
    rows.do(
        "INSERT INTO mlflow_logged_model (model_id, experiment_id, name, model_type, "
        "source_run_id, artifact_location, status, created_ms, updated_ms, is_active) "
        "VALUES (:model_id, :experiment_id, :name, :model_type, :source_run_id, "
        ":artifact_location, 'PENDING', :at, :at, true)",
        {**change.model_dump(exclude={"kind", "params", "tags"}), "at": rows.at_ms},
    )
    _describe(rows, change)


def _describe(
    rows: Rows, change: t.LoggedModelCreated | t.LoggedModelDescribed
) -> None:
    for table, texts in (
        ("mlflow_logged_model_param", change.params),
        ("mlflow_logged_model_tag", change.tags),
    ):
        rows.do(
            f"INSERT INTO {table} (model_id, key, value) "  # noqa: S608 - names of ours
            "VALUES (:model_id, :key, :value) ON CONFLICT (model_id, key) "
            "DO UPDATE SET value = excluded.value",
            [{"model_id": change.model_id, "key": k, "value": texts[k]} for k in texts],
        )


def _model_finalized(rows: Rows, change: t.LoggedModelFinalized) -> None:
    rows.do(
        "UPDATE mlflow_logged_model SET status = :status, updated_ms = :at "
        "WHERE model_id = :model_id",
        {"model_id": change.model_id, "status": change.status, "at": rows.at_ms},
    )


def _model_tag_deleted(rows: Rows, change: t.LoggedModelTagDeleted) -> None:
    rows.do(
        "DELETE FROM mlflow_logged_model_tag WHERE model_id = :model_id AND key = :key",
        {"model_id": change.model_id, "key": change.key},
    )


def _model_deleted(rows: Rows, change: t.LoggedModelDeleted) -> None:
    rows.do(
        "UPDATE mlflow_logged_model SET is_active = false, updated_ms = :at "
        "WHERE model_id = :model_id",
        {"model_id": change.model_id, "at": rows.at_ms},
    )


def measured(rows: Rows, change: t.RunLogged) -> None:
    """Keep what a run's metrics say of logged models."""
    rows.do(
        "INSERT INTO mlflow_logged_model_metric (model_id, key, timestamp_ms, step, "
        "run_id, value, is_nan, dataset_name, dataset_digest) VALUES (:model_id, "
        ":key, :timestamp_ms, :step, :run_id, :value, :is_nan, :dataset_name, "
        ":dataset_digest) ON CONFLICT DO NOTHING",
        [_measurement(change.run_id, each) for each in change.model_metrics],
    )


def _measurement(run_id: str, metric: t.ModelMetric) -> Values:
    key, value, timestamp, step = metric.point
    is_nan = math.isnan(value)
    return {
        "model_id": metric.model_id,
        "run_id": run_id,
        "key": key,
        "value": 0.0 if is_nan else value,
        "timestamp_ms": timestamp,
        "step": step,
        "is_nan": is_nan,
        "dataset_name": metric.dataset_name,
        "dataset_digest": metric.dataset_digest,
    }


APPLY: dict[type[Any], Callable[[Any, Any], None]] = {
    t.FileStored: _file_stored,
    t.FilesDeleted: _files_deleted,
    t.LoggedModelCreated: _model_created,
    t.LoggedModelFinalized: _model_finalized,
    t.LoggedModelDescribed: _describe,
    t.LoggedModelTagDeleted: _model_tag_deleted,
    t.LoggedModelDeleted: _model_deleted,
}
