"""Experiments: MLflow's ``experiments/…`` calls."""

from collections.abc import Sequence

from driftloop.contracts import tracking as t
from driftloop.registry.mlflow import limits
from driftloop.registry.mlflow.call import Call, Json, page
from driftloop.registry.mlflow.errors import Refusal, absent, exists, invalid
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.search import experiment_query
from sqlalchemy import Connection, Row, text

ROOT = "mlflow-artifacts:/"
DEFAULT_ID, DEFAULT_NAME = 0, "Default"
MAX_PAGE = 50_000
DEFAULT_PAGE = 1000
_BY_ID = text("SELECT * FROM mlflow_experiment WHERE experiment_id = :id")
_BY_NAME = text("SELECT * FROM mlflow_experiment WHERE name = :name")
_NEXT = text("SELECT coalesce(max(experiment_id), 0) + 1 FROM mlflow_experiment")


def start(journal: Journal) -> None:
    """Make the experiment that clients use which name none, unless it is there."""

    def decide(connection: Connection) -> t.ExperimentCreated | None:
        if connection.execute(_BY_ID, {"id": DEFAULT_ID}).first() is not None:
            return None
        return t.ExperimentCreated(
            experiment_id=DEFAULT_ID,
            name=DEFAULT_NAME,
            artifact_location=f"{ROOT}{DEFAULT_ID}",
        )

    journal.write("registry", decide)


def create(call: Call) -> Json:
    name, tags = call.text("name"), call.tags()
    limits.check_experiment_name(name)
    for key, value in tags.items():
        limits.check_experiment_tag(key, value)
    if call.maybe("artifact_location"):
        raise invalid("artifact_location: leave it out; the server chooses its places")
    made: list[int] = []

    def decide(connection: Connection) -> t.ExperimentCreated:
        if connection.execute(_BY_NAME, {"name": name}).first() is not None:
            raise exists(f"name: there is an experiment {name!r}; it may be deleted")
        number = int(connection.execute(_NEXT).scalar_one())
        made.append(number)
        return t.ExperimentCreated(
            experiment_id=number,
            name=name,
            artifact_location=f"{ROOT}{number}",
            tags=tags,
        )

    call.write(decide)
    return {"experiment_id": str(made[0])}


def get(call: Call) -> Json:
    with call.reading() as connection:
        row = of_id(connection, call.experiment_id())
        return {"experiment": as_json(connection, [row])[0]}


def get_by_name(call: Call) -> Json:
    name = call.text("experiment_name")
    with call.reading() as connection:
        row = connection.execute(_BY_NAME, {"name": name}).first()
        if row is None:
            raise absent(f"experiment_name: there is no experiment {name!r}")
        return {"experiment": as_json(connection, [row])[0]}


def search(call: Call) -> Json:
    size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
    with call.reading() as connection:
        query = experiment_query(
            connection.dialect.name,
            call.stages("view_type"),
            call.text("filter", ""),
            call.texts("order_by"),
        )
        sql = query.sql("SELECT e.* FROM mlflow_experiment e", size + 1, offset)
        rows = connection.execute(text(sql), query.values).all()
        return page("experiments", as_json(connection, rows), size, offset)


def update(call: Call) -> Json:
    number, name = call.experiment_id(), call.text("new_name", "")
    if name:
        limits.check_experiment_name(name)

    def decide(connection: Connection) -> t.ExperimentRenamed | None:
        row = of_id(connection, number)
        if not name:
            return None
        if not row.is_active:
            raise Refusal("INVALID_STATE", f"experiment {number} is deleted")
        other = connection.execute(_BY_NAME, {"name": name}).first()
        if other is not None and other.experiment_id != number:
            raise exists(f"new_name: there is an experiment {name!r}")
        return t.ExperimentRenamed(experiment_id=number, name=name)

    call.write(decide)
    return {}


def delete(call: Call) -> Json:
    number = call.experiment_id()

    def decide(connection: Connection) -> t.ExperimentDeleted:
        of_id(connection, number, is_active=True)
        return t.ExperimentDeleted(experiment_id=number)

    call.write(decide)
    return {}


def restore(call: Call) -> Json:
    number = call.experiment_id()

    def decide(connection: Connection) -> t.ExperimentRestored:
        of_id(connection, number, is_active=False)
        return t.ExperimentRestored(experiment_id=number)

    call.write(decide)
    return {}


def set_tag(call: Call) -> Json:
    number, key, value = call.experiment_id(), call.text("key"), call.text("value", "")
    limits.check_experiment_tag(key, value)

    def decide(connection: Connection) -> t.ExperimentTagSet:
        check_active(of_id(connection, number))
        return t.ExperimentTagSet(experiment_id=number, key=key, value=value)

    call.write(decide)
    return {}


def delete_tag(call: Call) -> Json:
    number, key = call.experiment_id(), call.text("key")
    known = text(
        "SELECT 1 FROM mlflow_experiment_tag WHERE experiment_id = :id AND key = :key"
    )

    def decide(connection: Connection) -> t.ExperimentTagDeleted:
        check_active(of_id(connection, number))
        if connection.execute(known, {"id": number, "key": key}).first() is None:
            raise absent(f"key: experiment {number} has no tag {key!r}")
        return t.ExperimentTagDeleted(experiment_id=number, key=key)

    call.write(decide)
    return {}


def of_id(
    connection: Connection, number: int, *, is_active: bool | None = None
) -> Row[tuple[object, ...]]:
    """Return an experiment's row.

    Raises
    ------
    Refusal
        When there is none, or none in this stage.
    """
    row = connection.execute(_BY_ID, {"id": number}).first()
    if row is None or is_active not in {None, bool(row.is_active)}:
        stage = {None: "", True: " among the active", False: " among the deleted"}
        raise absent(f"experiment_id: no experiment {number}{stage[is_active]}")
    return row


def check_active(row: Row[tuple[object, ...]]) -> None:
    if not row.is_active:
        raise invalid(f"experiment {row.experiment_id} is deleted; restore it first")


def as_json(
    connection: Connection, rows: Sequence[Row[tuple[object, ...]]]
) -> list[Json]:
    """Return experiments with their tags."""
    tags: dict[int, list[Json]] = {row.experiment_id: [] for row in rows}
    if tags:
        ids = ", ".join(str(int(number)) for number in tags)
        sql = f"SELECT * FROM mlflow_experiment_tag WHERE experiment_id IN ({ids})"  # noqa: S608 - whole numbers
        for tag in connection.execute(text(f"{sql} ORDER BY experiment_id, key")):
            tags[tag.experiment_id].append({"key": tag.key, "value": tag.value})
    return [
        {
            "experiment_id": str(row.experiment_id),
            "name": row.name,
            "artifact_location": row.artifact_location,
            "lifecycle_stage": stage_name(is_active=row.is_active),
            "creation_time": row.created_ms,
            "last_update_time": row.updated_ms,
            **({"tags": tags[row.experiment_id]} if tags[row.experiment_id] else {}),
        }
        for row in rows
    ]


def stage_name(*, is_active: bool) -> str:
    return "active" if is_active else "deleted"
