"""Runs as a whole: made, found, changed, put away. What is logged: ``logging.py``."""

import json
import secrets
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from driftloop.contracts import tracking as t
from driftloop.registry.mlflow import experiments, limits
from driftloop.registry.mlflow.apply import RUN_NAME
from driftloop.registry.mlflow.call import (
    Call,
    Json,
    experiment_number,
    float_as_json,
    page,
)
from driftloop.registry.mlflow.errors import absent, invalid
from driftloop.registry.mlflow.search import run_query
from sqlalchemy import Connection, Row, text

AnyRow = Row[tuple[Any, ...]]
MAX_PAGE = 50_000
DEFAULT_PAGE = 1000
RUNS_AT_ONCE = 1000
"""Of which the rows are read with one statement."""
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
STATUS_NUMBERS = {str(number + 1): name for number, name in enumerate(STATUSES)}
ADJECTIVES = ("able", "bold", "calm", "deft", "fair", "keen", "mild", "neat", "wise")
NOUNS = ("crane", "finch", "heron", "lark", "otter", "robin", "seal", "tern", "wren")
_BY_ID = text("SELECT * FROM mlflow_run WHERE run_id = :run_id")


def create(call: Call) -> Json:
    number = experiment_number(call.text("experiment_id", "0"))
    tags = dict(limits.shortened(call.pairs("tags"), limits.MAX_RUN_TAG_VALUE))
    for key in tags:
        limits.check_key(key, "tags")
    name = _name(call.text("run_name", ""), tags)
    limits.check_length(name, limits.MAX_RUN_TAG_VALUE, "run_name")
    run_id = uuid.uuid4().hex
    start_ms, user = call.number("start_time", 0), call.text("user_id", "")

    def decide(connection: Connection) -> t.RunCreated:
        experiment = experiments.of_id(connection, number)
        experiments.check_active(experiment)
        return t.RunCreated(
            run_id=run_id,
            experiment_id=number,
            name=name,
            user=user,
            start_time_ms=start_ms,
            artifact_uri=f"{experiment.artifact_location}/{run_id}/artifacts",
            tags={**tags, RUN_NAME: name},
        )

    call.write(decide)
    return _whole(call, run_id)


def _name(given: str, tags: t.Texts) -> str:
    tag = tags.get(RUN_NAME, "")
    if given and tag and given != tag:
        raise invalid(f"run_name: {given!r} differs from the tag {RUN_NAME}, {tag!r}")
    return given or tag or random_name()


def random_name() -> str:
    parts = (secrets.choice(ADJECTIVES), secrets.choice(NOUNS), secrets.randbelow(1000))
    return "-".join(map(str, parts))


def _whole(call: Call, run_id: str) -> Json:
    with call.reading() as connection:
        return {"run": as_json(connection, [of_id(connection, run_id)])[0]}


def get(call: Call) -> Json:
    return _whole(call, call.run_id())


def search(call: Call) -> Json:
    size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
    numbers = [experiment_number(each) for each in call.texts("experiment_ids")]
    with call.reading() as connection:
        query = run_query(
            connection.dialect.name,
            numbers,
            call.stages("run_view_type"),
            call.text("filter", ""),
            call.texts("order_by"),
        )
        sql = query.sql("SELECT r.* FROM mlflow_run r", size + 1, offset)
        rows = connection.execute(text(sql), query.values).all()
        found = page("runs", [{}] * len(rows), size, offset)
        if rows:
            found["runs"] = as_json(connection, rows[:size])
        return found


def update(call: Call) -> Json:
    run_id, name = call.run_id(), call.maybe("run_name")
    status = _status(call.fields.get("status"))
    end_ms = call.number("end_time", 0) if call.fields.get("end_time") else None
    if name:
        limits.check_length(name, limits.MAX_RUN_TAG_VALUE, "run_name")

    def decide(connection: Connection) -> t.RunUpdated:
        check_active(of_id(connection, run_id))
        return t.RunUpdated(run_id=run_id, status=status, end_time_ms=end_ms, name=name)

    call.write(decide)
    with call.reading() as connection:
        return {"run_info": _info(of_id(connection, run_id))}


def _status(value: object) -> t.RunStatus | None:
    if value is None:
        return None
    name = STATUS_NUMBERS.get(str(value), str(value))
    for known in STATUSES:
        if name == known:
            return known  # type: ignore[return-value]  # of the five
    raise invalid(f"status: {value!r} is none of {', '.join(STATUSES)}")


def delete(call: Call) -> Json:
    run_id = call.run_id()

    def decide(connection: Connection) -> t.RunDeleted:
        of_id(connection, run_id)
        return t.RunDeleted(run_id=run_id)

    call.write(decide)
    return {}


def restore(call: Call) -> Json:
    run_id = call.run_id()

    def decide(connection: Connection) -> t.RunRestored:
        of_id(connection, run_id)
        return t.RunRestored(run_id=run_id)

    call.write(decide)
    return {}


def of_id(connection: Connection, run_id: str) -> AnyRow:
    """Return a run's row.

    Raises
    ------
    Refusal
        When there is none.
    """
    row = connection.execute(_BY_ID, {"run_id": run_id}).first()
    if row is None:
        raise absent(f"run_id: there is no run {run_id!r}")
    return row


def check_active(row: AnyRow) -> None:
    if not row.is_active:
        raise invalid(f"run {row.run_id} is deleted; restore it first")


def _info(row: AnyRow) -> Json:
    info = {
        "run_uuid": row.run_id,
        "run_id": row.run_id,
        "run_name": row.name,
        "experiment_id": str(row.experiment_id),
        "user_id": row.user,
        "status": row.status,
        "start_time": row.start_ms,
        "artifact_uri": row.artifact_uri,
        "lifecycle_stage": experiments.stage_name(is_active=row.is_active),
    }
    return info if row.end_ms is None else {**info, "end_time": row.end_ms}


def as_json(connection: Connection, rows: Sequence[AnyRow]) -> list[Json]:
    """Return runs with all that was logged to them but the metrics' histories."""
    found: list[Json] = []
    for start in range(0, len(rows), RUNS_AT_ONCE):
        part = rows[start : start + RUNS_AT_ONCE]
        content = _Content(connection, [row.number for row in part])
        found += [content.whole(row) for row in part]
    return found


class _Content:
    """What was logged to some runs, read table by table."""

    def __init__(self, connection: Connection, runs: Sequence[int]) -> None:
        self._connection = connection
        self._runs = runs
        self._of_run: dict[str, dict[int, list[Json]]] = {}
        for row in self._rows("mlflow_latest_metric", "key"):
            self._add("metrics", row.run, metric_json(row))
        for name, table in (("params", "mlflow_param"), ("tags", "mlflow_run_tag")):
            for row in self._rows(table, "key"):
                self._add(name, row.run, {"key": row.key, "value": row.value})
        self._read_inputs()
        for row in self._rows("mlflow_run_model", "position"):
            if row.is_output:
                self._add("made", row.run, {"model_id": row.model_id, "step": row.step})
            else:
                self._add("used", row.run, {"model_id": row.model_id})

    def _rows(self, table: str, order: str) -> Iterator[Any]:
        ids = ", ".join(str(int(number)) for number in self._runs)
        sql = f"SELECT * FROM {table} WHERE run IN ({ids}) ORDER BY run, {order}"  # noqa: S608 - names of ours, whole numbers
        return iter(self._connection.execute(text(sql)))

    def _read_inputs(self) -> None:
        ids = ", ".join(str(int(number)) for number in self._runs)
        sql = (
            "SELECT i.run, i.tags, d.* FROM mlflow_input i "  # noqa: S608 - whole numbers
            "JOIN mlflow_run r ON r.number = i.run "
            "JOIN mlflow_dataset d ON d.experiment_id = r.experiment_id "
            "AND d.name = i.name AND d.digest = i.digest "
            f"WHERE i.run IN ({ids}) ORDER BY i.run, i.name, i.digest"
        )
        for row in self._connection.execute(text(sql)):
            tags = json.loads(row.tags) if isinstance(row.tags, str) else row.tags
            self._add(
                "datasets",
                row.run,
                {
                    "tags": [{"key": k, "value": v} for k, v in sorted(tags.items())],
                    "dataset": _dataset(row),
                },
            )

    def _add(self, name: str, run: int, item: Json) -> None:
        self._of_run.setdefault(name, {}).setdefault(run, []).append(item)

    def _part(self, run: int, **names: str) -> Json:
        """Return the lists that are not empty, under the answer's names."""
        lists = {k: self._of_run.get(v, {}).get(run) for k, v in names.items()}
        return {name: items for name, items in lists.items() if items}

    def whole(self, row: AnyRow) -> Json:
        run = row.number
        return {
            "info": _info(row),
            "data": self._part(run, metrics="metrics", params="params", tags="tags"),
            "inputs": self._part(run, dataset_inputs="datasets", model_inputs="used"),
            "outputs": self._part(run, model_outputs="made"),
        }


def _dataset(row: Any) -> Json:
    found = {
        "name": row.name,
        "digest": row.digest,
        "source_type": row.source_type,
        "source": row.source,
        "schema": row.schema_text,
        "profile": row.profile,
    }
    return {name: value for name, value in found.items() if value is not None}


def metric_json(row: Any) -> Json:
    return {
        "key": row.key,
        "value": "NaN" if row.is_nan else float_as_json(row.value),
        "timestamp": row.timestamp_ms,
        "step": row.step,
    }
