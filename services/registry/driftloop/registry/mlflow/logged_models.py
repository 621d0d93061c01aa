"""Logged models: MLflow's ``logged-models`` calls. Their files: ``files.py``."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from driftloop.contracts import tracking as t
from driftloop.registry.mlflow import experiments, limits, runs
from driftloop.registry.mlflow.call import (
    Call,
    Json,
    experiment_number,
    missing,
    page,
    text_of,
)
from driftloop.registry.mlflow.errors import absent, invalid
from driftloop.registry.mlflow.model_search import ModelOrder, OnDataset, model_query
from sqlalchemy import Connection, Row, bindparam, text

AnyRow = Row[tuple[Any, ...]]
STATUSES: dict[str, t.ModelStatus] = {
    "LOGGED_MODEL_PENDING": "PENDING",
    "LOGGED_MODEL_READY": "READY",
    "LOGGED_MODEL_UPLOAD_FAILED": "FAILED",
}
STATUS_NAMES = {status: name for name, status in STATUSES.items()}
STATUS_NUMBERS = {str(number): name for number, name in enumerate(STATUSES, start=1)}
NOT_IN_NAMES = frozenset("/:.%\"'")
"""Source: ``_validate_logged_model_name`` of mlflow 3.17."""
MAX_NAME = 500
MAX_TEXTS = 100
DEFAULT_PAGE = 100
MAX_PAGE = 5000
MODELS_AT_ONCE = 500
_BY_ID = text("SELECT * FROM mlflow_logged_model WHERE model_id = :model_id")
_TAG = text(
    "SELECT 1 FROM mlflow_logged_model_tag WHERE model_id = :model_id AND key = :key"
)
_PARAMS = text(
    "SELECT key, value FROM mlflow_logged_model_param WHERE model_id = :model_id"
)


def create(call: Call) -> Json:
    number, given = call.experiment_id(), call.maybe("name")
    if given is not None:
        _check_name(given)
    params, tags = _params(call), _tags(call)
    model_type, source = call.maybe("model_type"), call.maybe("source_run_id")
    for field, value in (("model_type", model_type), ("source_run_id", source)):
        limits.check_length(value or "", limits.MAX_EXPERIMENT_NAME, field)
    model_id = f"m-{uuid.uuid4().hex}"

    def decide(connection: Connection) -> t.LoggedModelCreated:
        experiment = experiments.of_id(connection, number)
        experiments.check_active(experiment)
        return t.LoggedModelCreated(
            model_id=model_id,
            experiment_id=number,
            name=given or runs.random_name(),
            model_type=model_type,
            source_run_id=source,
            artifact_location=(
                f"{experiment.artifact_location}/models/{model_id}/artifacts"
            ),
            params=params,
            tags=tags,
        )

    call.write(decide)
    return _whole(call, model_id)


def _check_name(name: str) -> None:
    wrong = sorted(NOT_IN_NAMES & set(name))
    if wrong:
        raise invalid(f"name: {name!r} has {' '.join(wrong)}, which no model's may")
    limits.check_length(name, MAX_NAME, "name")


def _params(call: Call) -> t.Texts:
    return _texts(call, "params", limits.MAX_PARAM_VALUE)


def _tags(call: Call) -> t.Texts:
    return _texts(call, "tags", limits.MAX_RUN_TAG_VALUE)


def _texts(call: Call, field: str, longest: int) -> t.Texts:
    pairs = call.pairs(field)
    if len(pairs) > MAX_TEXTS:
        raise invalid(f"{field}: {len(pairs)} in one request, at most {MAX_TEXTS}")
    for number, (key, value) in enumerate(pairs):
        if not key:
            raise missing(f"{field}[{number}].key")
        limits.check_length(key, limits.MAX_KEY, f"{field}[{number}].key")
        limits.check_length(value, longest, f"{field}[{number}].value")
    return dict(pairs)


def _whole(call: Call, model_id: str, *, with_deleted: bool = False) -> Json:
    with call.reading() as connection:
        row = of_id(connection, model_id, with_deleted=with_deleted)
        return {"model": as_json(connection, [row])[0]}


def get(call: Call) -> Json:
    with_deleted = str(call.fields.get("allow_deleted", "")).lower() == "true"
    return _whole(call, call.text("model_id"), with_deleted=with_deleted)


def finalize(call: Call) -> Json:
    model_id, given = call.text("model_id"), str(call.fields.get("status"))
    status = STATUSES.get(STATUS_NUMBERS.get(given, given))
    if status is None:
        raise invalid(f"status: {given!r} is none of {', '.join(STATUSES)}")

    def decide(connection: Connection) -> t.LoggedModelFinalized:
        of_id(connection, model_id)
        return t.LoggedModelFinalized(model_id=model_id, status=status)

    call.write(decide)
    return _whole(call, model_id)


def delete(call: Call) -> Json:
    model_id = call.text("model_id")

    def decide(connection: Connection) -> t.LoggedModelDeleted:
        of_id(connection, model_id)
        return t.LoggedModelDeleted(model_id=model_id)

    call.write(decide)
    return {}


def log_params(call: Call) -> Json:
    """Log further parameters; one that is there keeps its value."""
    model_id, params = call.text("model_id"), _params(call)

    def decide(connection: Connection) -> t.LoggedModelDescribed | None:
        of_id(connection, model_id)
        stored = connection.execute(_PARAMS, {"model_id": model_id})
        before = {row.key: row.value for row in stored}
        for key, value in params.items():
            if before.get(key, value) != value:
                raise invalid(
                    f"params: {key!r} of model {model_id} is {before[key]!r} and "
                    f"cannot become {value!r}"
                )
        fresh = {key: params[key] for key in params if key not in before}
        return (
            t.LoggedModelDescribed(model_id=model_id, params=fresh) if fresh else None
        )

    call.write(decide)
    return {}


def set_tags(call: Call) -> Json:
    model_id, tags = call.text("model_id"), _tags(call)

    def decide(connection: Connection) -> t.LoggedModelDescribed | None:
        of_id(connection, model_id)
        return t.LoggedModelDescribed(model_id=model_id, tags=tags) if tags else None

    call.write(decide)
    return {}


def delete_tag(call: Call) -> Json:
    model_id, key = call.text("model_id"), call.text("key")

    def decide(connection: Connection) -> t.LoggedModelTagDeleted:
        of_id(connection, model_id)
        values = {"model_id": model_id, "key": key}
        if connection.execute(_TAG, values).first() is None:
            raise absent(f"key: model {model_id} has no tag {key!r}")
        return t.LoggedModelTagDeleted(model_id=model_id, key=key)

    call.write(decide)
    return {}


def search(call: Call) -> Json:
    size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
    numbers = [experiment_number(each) for each in call.texts("experiment_ids")]
    if not numbers:
        raise missing("experiment_ids")
    datasets = [
        OnDataset(
            text_of(item.get("dataset_name") or "", f"datasets[{place}].dataset_name"),
            text_of(item.get("dataset_digest") or "", f"datasets[{place}]"),
        )
        for place, item in enumerate(call.objects("datasets"))
    ]
    if not all(each.name for each in datasets):
        raise missing("datasets[].dataset_name")
    orders = [
        ModelOrder(
            text_of(item.get("field_name") or "", f"order_by[{place}].field_name"),
            is_ascending=item.get("ascending", True) is not False,
            dataset=OnDataset(
                text_of(item.get("dataset_name") or "", f"order_by[{place}]"),
                text_of(item.get("dataset_digest") or "", f"order_by[{place}]"),
            ),
        )
        for place, item in enumerate(call.objects("order_by"))
    ]
    with call.reading() as connection:
        query = model_query(
            connection.dialect.name, numbers, call.text("filter", ""), datasets, orders
        )
        sql = query.sql("SELECT m.* FROM mlflow_logged_model m", size + 1, offset)
        rows = connection.execute(text(sql), query.values).all()
        found = page("models", [{}] * len(rows), size, offset)
        if rows:
            found["models"] = as_json(connection, rows[:size])
        return found


def of_id(
    connection: Connection, model_id: str, *, with_deleted: bool = False
) -> AnyRow:
    """Return a logged model's row.

    Raises
    ------
    Refusal
        When there is none, or it is deleted.
    """
    row = connection.execute(_BY_ID, {"model_id": model_id}).first()
    if row is None or not (row.is_active or with_deleted):
        raise absent(f"model_id: there is no logged model {model_id!r}")
    return row


def as_json(connection: Connection, rows: Sequence[AnyRow]) -> list[Json]:
    """Return logged models with their parameters, tags and metrics."""
    found: list[Json] = []
    for start in range(0, len(rows), MODELS_AT_ONCE):
        part = rows[start : start + MODELS_AT_ONCE]
        ids = [row.model_id for row in part]
        params, tags = (
            _by_model(connection, f"mlflow_logged_model_{name}", ids)
            for name in ("param", "tag")
        )
        metrics = _by_model(connection, "mlflow_logged_model_metric", ids)
        found += [
            {
                "info": _info(row, tags.get(row.model_id, ())),
                "data": {
                    "params": _pairs(params.get(row.model_id, ())),
                    "metrics": [_metric(m) for m in metrics.get(row.model_id, ())],
                },
            }
            for row in part
        ]
    return found


def _by_model(
    connection: Connection, table: str, ids: Sequence[str]
) -> dict[str, list[Any]]:
    query = text(f"SELECT * FROM {table} WHERE model_id IN :ids ORDER BY model_id, key")  # noqa: S608 - names of ours
    bound = query.bindparams(bindparam("ids", expanding=True))
    found: dict[str, list[Any]] = {}
    for row in connection.execute(bound, {"ids": list(ids)}):
        found.setdefault(row.model_id, []).append(row)
    return found


def _pairs(rows: Iterable[Any]) -> list[Json]:
    return [{"key": row.key, "value": row.value} for row in rows]


def _info(row: AnyRow, tags: Iterable[Any]) -> Json:
    found = {
        "model_id": row.model_id,
        "experiment_id": str(row.experiment_id),
        "name": row.name,
        "creation_timestamp_ms": row.created_ms,
        "last_updated_timestamp_ms": row.updated_ms,
        "artifact_uri": row.artifact_location,
        "status": STATUS_NAMES[row.status],
        "model_type": row.model_type,
        "source_run_id": row.source_run_id,
        "tags": _pairs(tags) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _metric(row: Any) -> Json:
    names = {"dataset_name": row.dataset_name, "dataset_digest": row.dataset_digest}
    return {
        **runs.metric_json(row),
        "model_id": row.model_id,
        "run_id": row.run_id,
        **{name: value for name, value in names.items() if value},
    }
