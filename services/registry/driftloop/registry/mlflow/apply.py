"""A change to rows: the same for a request in hand and for the log read anew."""

import functools
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from driftloop.contracts import tracking as t
from driftloop.contracts.events import TrackingChanged
from driftloop.contracts.tracking import MetricPoint
from driftloop.registry.digests import digests, overall, table_of
from driftloop.registry.mlflow import apply_models
from driftloop.registry.mlflow.registered.apply import APPLY_REGISTERED, Written
from driftloop.registry.mlflow.tables import TABLES, TrackingAhead
from driftloop.registry.mlflow.webhooks.apply import APPLY_WEBHOOKS, tell
from sqlalchemy import Connection, text

RUN_NAME = "mlflow.runName"
DATA_CONTEXT = "mlflow.data.context"
Values = dict[str, Any]

_text = functools.cache(text)
"""Statements here are few; to find their parameters takes longer than to run one."""
_REVISION = "SELECT revision FROM mlflow_state WHERE singleton = 1"
_SET_REVISION = (
    "INSERT INTO mlflow_state (singleton, revision) VALUES (1, :revision) "
    "ON CONFLICT (singleton) DO UPDATE SET revision = excluded.revision"
)
_LATEST = (
    "INSERT INTO mlflow_latest_metric (run, key, value, timestamp_ms, step, is_nan) "
    "VALUES (:run, :key, :value, :timestamp_ms, :step, :is_nan) "
    "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, "
    "timestamp_ms = excluded.timestamp_ms, step = excluded.step, "
    "is_nan = excluded.is_nan "
    "WHERE (excluded.step, excluded.timestamp_ms, excluded.value) > "
    "(mlflow_latest_metric.step, mlflow_latest_metric.timestamp_ms, "
    "mlflow_latest_metric.value)"
)
_METRIC = (
    "INSERT INTO mlflow_metric (run, key, timestamp_ms, step, value, is_nan) "
    "VALUES (:run, :key, :timestamp_ms, :step, :value, :is_nan) ON CONFLICT DO NOTHING"
)


def revision_of(connection: Connection) -> int:
    """Return the revision of the tables; it stays so to the transaction's end.

    On PostgreSQL the row is locked, so that writers, and the reader of the log, come
    one after the other; an SQLite transaction that writes is alone anyway.
    """
    if connection.dialect.name == "sqlite":
        return int(connection.execute(_text(_REVISION)).scalar() or 0)
    start = "INSERT INTO mlflow_state (singleton, revision) VALUES (1, 0) "
    connection.execute(text(f"{start}ON CONFLICT DO NOTHING"))
    return int(connection.execute(text(f"{_REVISION} FOR UPDATE")).scalar_one())


def take(connection: Connection, events: Iterable[TrackingChanged]) -> None:
    """Bring the tables up to events read from the log; repeats change nothing.

    Replicas on one database publish side by side, so the log may hold two changes in
    the other order: the later one waits until the one before it has come.
    """
    revision = revision_of(connection)
    for event in events:
        if event.revision <= revision:
            continue
        if event.revision > revision + 1:
            _keep_ahead(connection, event)
            continue
        current: TrackingChanged | None = event
        while current is not None:
            apply(connection, current)
            revision = current.revision
            current = _next_ahead(connection, revision + 1)
        set_revision(connection, revision)


def set_revision(connection: Connection, revision: int) -> None:
    connection.execute(_text(_SET_REVISION), {"revision": revision})


def _keep_ahead(connection: Connection, event: TrackingChanged) -> None:
    table = TrackingAhead.__table__  # type: ignore[attr-defined]  # SQLModel has it
    known = text("SELECT 1 FROM mlflow_ahead WHERE revision = :revision")
    if not connection.execute(known, {"revision": event.revision}).scalar():
        content = json.loads(event.model_dump_json())
        connection.execute(
            table.insert(), {"revision": event.revision, "event": content}
        )


def _next_ahead(connection: Connection, revision: int) -> TrackingChanged | None:
    table = TrackingAhead.__table__  # type: ignore[attr-defined]  # SQLModel has it
    query = table.select().where(table.c.revision == revision)
    row = connection.execute(query).first()
    if row is None:
        return None
    connection.execute(table.delete().where(table.c.revision == revision))
    return TrackingChanged.model_validate(row.event)


def apply(connection: Connection, event: TrackingChanged) -> None:
    """Make a change in the tables. It was checked when it was asked for."""
    change: Any = event.change
    registered = APPLY_REGISTERED.get(type(change))
    webhooks = APPLY_WEBHOOKS.get(type(change))
    if registered is not None:
        registered(Written(connection, event), change)
        tell(connection, event)
    elif webhooks is not None:
        webhooks(connection, change, event.at_ms)
    else:
        _APPLY[type(change)](_Rows(connection, event.at_ms), change)


def state_hash(connection: Connection) -> str:
    """Return a digest of all rows: equal states have equal ones."""
    return overall(digests(connection, map(table_of, TABLES)))


class _Rows:
    """One change's statements."""

    def __init__(self, connection: Connection, at_ms: int) -> None:
        self._connection = connection
        self.at_ms = at_ms

    def do(self, statement: str, values: Values | list[Values]) -> None:
        if values:
            self._connection.execute(_text(statement), values)

    def number_of(self, run_id: str) -> int:
        query = _text("SELECT number FROM mlflow_run WHERE run_id = :run_id")
        return int(self._connection.execute(query, {"run_id": run_id}).scalar_one())

    def next_run(self) -> int:
        query = text("SELECT coalesce(max(number), 0) + 1 FROM mlflow_run")
        return int(self._connection.execute(query).scalar_one())

    def tag(self, table: str, owner: str, rows: list[Values]) -> None:
        self.do(
            f"INSERT INTO {table} ({owner}, key, value) "  # noqa: S608 - names of ours
            f"VALUES (:{owner}, :key, :value) "
            f"ON CONFLICT ({owner}, key) DO UPDATE SET value = excluded.value",
            rows,
        )


def _experiment_created(rows: _Rows, change: t.ExperimentCreated) -> None:
    rows.do(
        "INSERT INTO mlflow_experiment (experiment_id, name, artifact_location, "
        "is_active, created_ms, updated_ms) "
        "VALUES (:id, :name, :location, true, :at, :at)",
        {
            "id": change.experiment_id,
            "name": change.name,
            "location": change.artifact_location,
            "at": rows.at_ms,
        },
    )
    _experiment_tags(rows, change.experiment_id, change.tags)


def _experiment_tags(rows: _Rows, experiment_id: int, tags: t.Texts) -> None:
    values = [
        {"experiment_id": experiment_id, "key": k, "value": tags[k]} for k in tags
    ]
    rows.tag("mlflow_experiment_tag", "experiment_id", values)


def _experiment_renamed(rows: _Rows, change: t.ExperimentRenamed) -> None:
    rows.do(
        "UPDATE mlflow_experiment SET name = :name, updated_ms = :at "
        "WHERE experiment_id = :id",
        {"name": change.name, "at": rows.at_ms, "id": change.experiment_id},
    )


def _experiment_stage(
    rows: _Rows, change: t.ExperimentDeleted | t.ExperimentRestored
) -> None:
    is_active = isinstance(change, t.ExperimentRestored)
    values = {"active": is_active, "at": rows.at_ms, "id": change.experiment_id}
    rows.do(
        "UPDATE mlflow_experiment SET is_active = :active, updated_ms = :at "
        "WHERE experiment_id = :id",
        values,
    )
    rows.do(
        "UPDATE mlflow_run SET is_active = :active WHERE experiment_id = :id",
        {"active": is_active, "id": change.experiment_id},
    )


def _experiment_tag_set(rows: _Rows, change: t.ExperimentTagSet) -> None:
    _experiment_tags(rows, change.experiment_id, {change.key: change.value})


def _experiment_tag_deleted(rows: _Rows, change: t.ExperimentTagDeleted) -> None:
    rows.do(
        "DELETE FROM mlflow_experiment_tag WHERE experiment_id = :id AND key = :key",
        {"id": change.experiment_id, "key": change.key},
    )


def _run_created(rows: _Rows, change: t.RunCreated) -> None:
    number = rows.next_run()
    rows.do(
        'INSERT INTO mlflow_run (number, run_id, experiment_id, name, "user", status, '
        "start_ms, artifact_uri, is_active) VALUES (:number, :run_id, :experiment, "
        ":name, :user, 'RUNNING', :start, :uri, true)",
        {
            "number": number,
            "run_id": change.run_id,
            "experiment": change.experiment_id,
            "name": change.name,
            "user": change.user,
            "start": change.start_time_ms,
            "uri": change.artifact_uri,
        },
    )
    _run_tags(rows, number, change.tags)


def _run_tags(rows: _Rows, number: int, tags: t.Texts) -> None:
    values = [{"run": number, "key": k, "value": tags[k]} for k in tags]
    rows.tag("mlflow_run_tag", "run", values)


def _run_updated(rows: _Rows, change: t.RunUpdated) -> None:
    rows.do(
        "UPDATE mlflow_run SET status = coalesce(:status, status), "
        "end_ms = coalesce(:end_ms, end_ms), name = coalesce(:name, name) "
        "WHERE run_id = :run_id",
        {
            "status": change.status,
            "end_ms": change.end_time_ms,
            "name": change.name,
            "run_id": change.run_id,
        },
    )
    if change.name is not None:
        _run_tags(rows, rows.number_of(change.run_id), {RUN_NAME: change.name})


def _run_stage(rows: _Rows, change: t.RunDeleted | t.RunRestored) -> None:
    values = {
        "active": isinstance(change, t.RunRestored),
        "run_id": change.run_id,
    }
    rows.do("UPDATE mlflow_run SET is_active = :active WHERE run_id = :run_id", values)


def metric_row(run: int, point: MetricPoint) -> Values:
    key, value, timestamp, step = point
    is_nan = math.isnan(value)
    return {
        "run": run,
        "key": key,
        "value": 0.0 if is_nan else value,
        "timestamp_ms": timestamp,
        "step": step,
        "is_nan": is_nan,
    }


def _run_logged(rows: _Rows, change: t.RunLogged) -> None:
    run = rows.number_of(change.run_id)
    values = [metric_row(run, point) for point in change.metrics]
    rows.do(_METRIC, values)
    latest: dict[str, Values] = {}
    for row in values:
        known = latest.get(row["key"])
        if known is None or _recency(row) > _recency(known):
            latest[row["key"]] = row
    rows.do(_LATEST, list(latest.values()))
    params = [{"run": run, "key": k, "value": v} for k, v in change.params.items()]
    rows.do(
        "INSERT INTO mlflow_param (run, key, value) VALUES (:run, :key, :value) "
        "ON CONFLICT DO NOTHING",
        params,
    )
    _run_tags(rows, run, change.tags)
    apply_models.measured(rows, change)
    if RUN_NAME in change.tags:
        rows.do(
            "UPDATE mlflow_run SET name = :name WHERE number = :run",
            {"name": change.tags[RUN_NAME], "run": run},
        )


def _recency(row: Values) -> tuple[int, int, float]:
    return row["step"], row["timestamp_ms"], row["value"]


def _run_tag_deleted(rows: _Rows, change: t.RunTagDeleted) -> None:
    rows.do(
        "DELETE FROM mlflow_run_tag WHERE run = :run AND key = :key",
        {"run": rows.number_of(change.run_id), "key": change.key},
    )


def _run_inputs(rows: _Rows, change: t.RunInputsLogged) -> None:
    run = rows.number_of(change.run_id)
    for use in change.datasets:
        rows.do(
            "INSERT INTO mlflow_dataset (experiment_id, name, digest, source_type, "
            "source, schema_text, profile) SELECT experiment_id, :name, :digest, "
            ":source_type, :source, :schema_text, :profile FROM mlflow_run "
            "WHERE number = :run ON CONFLICT DO NOTHING",
            {"run": run, **{name: getattr(use, name) for name in _DATASET}},
        )
        rows.do(
            "INSERT INTO mlflow_input (run, name, digest, context, tags) "
            "VALUES (:run, :name, :digest, :context, :tags) ON CONFLICT DO NOTHING",
            {
                "run": run,
                "name": use.name,
                "digest": use.digest,
                "context": use.tags.get(DATA_CONTEXT),
                "tags": json.dumps(use.tags),
            },
        )
    rows.do(
        _RUN_MODEL,
        [{"run": run, "id": m, "out": False, "step": 0} for m in change.models],
    )


_DATASET = ("name", "digest", "source_type", "source", "schema_text", "profile")
_RUN_MODEL = (
    "INSERT INTO mlflow_run_model (run, model_id, is_output, step) "
    "VALUES (:run, :id, :out, :step)"
)


def _run_outputs(rows: _Rows, change: t.RunOutputsLogged) -> None:
    run = rows.number_of(change.run_id)
    rows.do(
        _RUN_MODEL,
        [
            {"run": run, "id": m.model_id, "out": True, "step": m.step}
            for m in change.models
        ],
    )


_APPLY: dict[type[Any], Callable[[_Rows, Any], None]] = {
    t.ExperimentCreated: _experiment_created,
    t.ExperimentRenamed: _experiment_renamed,
    t.ExperimentDeleted: _experiment_stage,
    t.ExperimentRestored: _experiment_stage,
    t.ExperimentTagSet: _experiment_tag_set,
    t.ExperimentTagDeleted: _experiment_tag_deleted,
    t.RunCreated: _run_created,
    t.RunUpdated: _run_updated,
    t.RunDeleted: _run_stage,
    t.RunRestored: _run_stage,
    t.RunLogged: _run_logged,
    t.RunTagDeleted: _run_tag_deleted,
    t.RunInputsLogged: _run_inputs,
    t.RunOutputsLogged: _run_outputs,
    **apply_models.APPLY,
}
