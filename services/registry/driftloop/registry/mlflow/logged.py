"""What is logged to a run: metrics, parameters, tags, inputs, outputs."""

from collections.abc import Sequence
from typing import cast

from driftloop.contracts import tracking as t
from driftloop.registry.mlflow import limits, logged_models, runs
from driftloop.registry.mlflow.call import (
    Call,
    Json,
    float_of,
    missing,
    number_of,
    object_of,
    page,
    pairs_of,
    text_of,
)
from driftloop.registry.mlflow.errors import absent, invalid
from sqlalchemy import Connection, text

_FIELDS = ("key", "value", "timestamp", "step")
_PLAIN = (str, float, int, int)
MAX_HISTORY_PAGE = 50_000
_TAG = text("SELECT 1 FROM mlflow_run_tag WHERE run = :run AND key = :key")
_PARAMS = text("SELECT key, value FROM mlflow_param WHERE run = :run")
_HISTORY = (
    "SELECT * FROM mlflow_metric WHERE run = :run AND key = :key "
    "ORDER BY timestamp_ms, step, value, is_nan"
)


def log_metric(call: Call) -> Json:
    point = _metric(call.fields, "")
    limits.check_metric(point)
    measured = _measured([call.fields], [point])
    return _log(call, call.run_id(), [point], [], [], measured)


def log_param(call: Call) -> Json:
    param = (call.text("key"), call.text("value", ""))
    limits.check_key(param[0], "param")
    return _log(call, call.run_id(), [], [param], [])


def set_tag(call: Call) -> Json:
    tag = (call.text("key"), call.text("value", ""))
    limits.check_key(tag[0], "tag")
    return _log(call, call.run_id(), [], [], [tag])


def log_batch(call: Call) -> Json:
    """Log up to a thousand things as one event; all of them, or none."""
    if call.size_bytes > limits.MAX_BATCH_BYTES:
        raise invalid(
            f"a batch of {call.size_bytes} bytes; at most {limits.MAX_BATCH_BYTES}"
        )
    run_id = call.text("run_id")
    limits.check_run_id(run_id)
    items = call.objects("metrics")
    points = [_metric(item, f"metrics[{number}].") for number, item in enumerate(items)]
    params, tags = call.pairs("params"), call.pairs("tags")
    limits.check_batch(points, params, tags)
    return _log(call, run_id, points, params, tags, _measured(items, points))


def _measured(
    items: Sequence[Json], points: Sequence[t.MetricPoint]
) -> list[t.ModelMetric]:
    """Return those of the metrics that measure a logged model."""
    found = []
    for item, point in zip(items, points, strict=True):
        if item.get("model_id"):
            name, digest = (
                text_of(item.get(field) or "", field)
                for field in ("dataset_name", "dataset_digest")
            )
            limits.check_length(name, limits.MAX_DATASET["name"], "dataset_name")
            limits.check_length(digest, limits.MAX_DATASET["digest"], "dataset_digest")
            found.append(
                t.ModelMetric(
                    model_id=text_of(item["model_id"], "model_id"),
                    point=point,
                    dataset_name=name,
                    dataset_digest=digest,
                )
            )
    return found


def _metric(item: Json, place: str) -> t.MetricPoint:
    point = tuple(map(item.get, _FIELDS))
    if tuple(map(type, point)) == _PLAIN:
        return cast("t.MetricPoint", point)  # nothing to turn into something else
    for name in ("key", "value", "timestamp"):
        if item.get(name) is None:
            raise missing(f"{place}{name}")
    return (
        text_of(item["key"], f"{place}key"),
        float_of(item["value"], f"{place}value"),
        number_of(item["timestamp"], f"{place}timestamp"),
        number_of(item.get("step", 0), f"{place}step"),
    )


def _log(
    call: Call,
    run_id: str,
    metrics: Sequence[t.MetricPoint],
    params: Sequence[tuple[str, str]],
    tags: Sequence[tuple[str, str]],
    measured: Sequence[t.ModelMetric] = (),
) -> Json:
    new = dict(limits.shortened(params, limits.MAX_PARAM_VALUE))
    tagged = dict(limits.shortened(tags, limits.MAX_RUN_TAG_VALUE))

    def decide(connection: Connection) -> t.RunLogged | None:
        row = runs.of_id(connection, run_id)
        runs.check_active(row)
        for model_id in {each.model_id for each in measured}:
            logged_models.of_id(connection, model_id)
        if params:
            stored = connection.execute(_PARAMS, {"run": row.number})
            before = {found.key: found.value for found in stored}
            limits.check_param_changes(run_id, before, new)
            fresh = {key: new[key] for key in new if key not in before}
        else:
            fresh = {}
        if not (metrics or fresh or tags):
            return None
        return t.RunLogged(
            run_id=run_id,
            metrics=list(metrics),
            params=fresh,
            tags=tagged,
            model_metrics=list(measured),
        )

    call.write(decide)
    return {}


def delete_tag(call: Call) -> Json:
    run_id, key = call.run_id(), call.text("key")

    def decide(connection: Connection) -> t.RunTagDeleted:
        row = runs.of_id(connection, run_id)
        runs.check_active(row)
        if connection.execute(_TAG, {"run": row.number, "key": key}).first() is None:
            raise absent(f"key: run {run_id} has no tag {key!r}")
        return t.RunTagDeleted(run_id=run_id, key=key)

    call.write(decide)
    return {}


def history(call: Call) -> Json:
    """Return all values of a metric; in pages only if asked for."""
    run_id, key = call.run_id(), call.text("metric_key")
    size, offset = None, call.offset()
    if call.fields.get("max_results") is not None:
        size = call.page_size(MAX_HISTORY_PAGE, limits.LONGEST)
    with call.reading() as connection:
        run = runs.of_id(connection, run_id).number
        values = {"run": run, "key": key, "limit": (size or -1) + 1, "offset": offset}
        part = " LIMIT :limit OFFSET :offset" if size else ""
        rows = connection.execute(text(_HISTORY + part), values)
        points = [runs.metric_json(row) for row in rows]
        if size is None:
            return {"metrics": points[offset:]} if points[offset:] else {}
        return page("metrics", points, size, offset)


def log_inputs(call: Call) -> Json:
    run_id = call.run_id()
    limits.check_run_id(run_id)
    datasets: dict[tuple[str, str], t.DatasetUse] = {}
    for number, item in enumerate(call.objects("datasets")):
        use = _dataset_use(item, f"datasets[{number}]")
        datasets.setdefault((use.name, use.digest), use)
    models = [
        text_of(item.get("model_id"), f"models[{number}].model_id")
        for number, item in enumerate(call.objects("models"))
    ]

    def decide(connection: Connection) -> t.RunInputsLogged | None:
        runs.check_active(runs.of_id(connection, run_id))
        if not (datasets or models):
            return None
        return t.RunInputsLogged(
            run_id=run_id, datasets=list(datasets.values()), models=models
        )

    call.write(decide)
    return {}


def _dataset_use(item: Json, place: str) -> t.DatasetUse:
    given = object_of(item.get("dataset"), f"{place}.dataset")
    wanted = ("name", "digest", "source_type", "source")
    fields = {name: text_of(given.get(name), f"{place}.{name}") for name in wanted}
    for name in ("schema", "profile"):
        if given.get(name) is not None:
            fields[name] = text_of(given[name], f"{place}.{name}")
    tags = item.get("tags") or []
    if not isinstance(tags, list):
        raise invalid(f"{place}.tags: not a list")
    named = dict(pairs_of([object_of(tag, f"{place}.tags") for tag in tags], "tags"))
    limits.check_dataset(fields, named)
    return t.DatasetUse(
        name=fields["name"],
        digest=fields["digest"],
        source_type=fields["source_type"],
        source=fields["source"],
        schema_text=fields.get("schema"),
        profile=fields.get("profile"),
        tags=named,
    )


def log_outputs(call: Call) -> Json:
    run_id = call.run_id()
    models = [
        t.ModelOutput(
            model_id=text_of(item.get("model_id"), f"models[{number}].model_id"),
            step=number_of(item.get("step", 0), f"models[{number}].step"),
        )
        for number, item in enumerate(call.objects("models"))
    ]

    def decide(connection: Connection) -> t.RunOutputsLogged | None:
        runs.check_active(runs.of_id(connection, run_id))
        return t.RunOutputsLogged(run_id=run_id, models=models) if models else None

    call.write(decide)
    return {}
