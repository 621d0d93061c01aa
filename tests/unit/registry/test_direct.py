"""SQLite directly: the same rows as through SQLAlchemy, and the same errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from driftloop.registry.mlflow.direct import Direct
from driftloop.registry.mlflow.tables import TABLES, Experiment
from driftloop.runtime.database import open_database
from sqlalchemy import Engine, bindparam, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

INSERT = text(
    "INSERT INTO mlflow_experiment (experiment_id, name, artifact_location, is_active, "
    "created_ms, updated_ms) VALUES (:id, :name, 'x', true, 1, 2)"
)
NAMES = text("SELECT name FROM mlflow_experiment ORDER BY experiment_id")
SOME = text(
    "SELECT experiment_id, name FROM mlflow_experiment WHERE name IN :names"
).bindparams(bindparam("names", expanding=True))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = open_database(f"sqlite:///{tmp_path}/x.db", TABLES)
    yield found
    found.dispose()


@pytest.fixture
def direct(engine: Engine) -> Iterator[Direct]:
    found = Direct(engine)
    with found.writing() as connection:
        connection.execute(INSERT, [{"id": 1, "name": "one"}, {"id": 2, "name": "Two"}])
    yield found
    found.close()


def test_rows_are_those_of_sqlalchemy(direct: Direct, engine: Engine) -> None:
    """Text, lists as parameters, and what is not text."""
    everything = text("SELECT * FROM mlflow_experiment ORDER BY experiment_id")
    built = select(Experiment.name).order_by(text("name"))  # type: ignore[call-overload]  # SQLModel's columns
    with direct.reading() as ours, engine.connect() as theirs:
        for query, values in (
            (everything, {}),
            (SOME, {"names": ["Two", "none"]}),
            (SOME, {"names": []}),
            (built, {}),
        ):
            expected = theirs.execute(query, values).all()
            found = ours.execute(query, values).all()
            assert [tuple(row) for row in found] == [tuple(row) for row in expected]
        row = ours.execute(everything).first()
        assert row is not None
        assert (row.name, row.is_active) == ("one", 1)
        assert ours.execute(NAMES).scalar() == "one"
        assert list(ours.execute(NAMES).scalars()) == ["one", "Two"]
        assert ours.execute(text("SELECT 1 WHERE 0")).first() is None


def test_errors_are_those_of_sqlalchemy(direct: Direct) -> None:
    """And leave nothing behind: the next transaction begins anew."""
    rows = [{"id": 3, "name": "three"}, {"id": 4, "name": "one"}]
    with pytest.raises(IntegrityError) as refused, direct.writing() as connection:
        connection.execute(INSERT, rows)
    assert "three" not in str(refused.value)  # values do not go into logs
    with pytest.raises(OperationalError), direct.reading() as connection:
        connection.execute(text("SELECT * FROM nothing"))
    with direct.reading() as connection:
        assert connection.execute(NAMES).all() == [("one",), ("Two",)]


def test_a_reader_has_one_view(direct: Direct) -> None:
    """What is committed meanwhile is there for the next one."""
    with direct.reading() as before:
        assert len(before.execute(NAMES).all()) == 2
        with direct.writing() as connection:
            connection.execute(INSERT, {"id": 3, "name": "three"})
        assert len(before.execute(NAMES).all()) == 2
    with direct.reading() as after:
        assert len(after.execute(NAMES).all()) == 3


def test_readers_at_once(direct: Direct) -> None:
    """More than are kept: each has its own connection."""
    gate = threading.Barrier(20)
    found: list[int] = []

    def read() -> None:
        with direct.reading() as connection:
            gate.wait(120)
            found.append(len(connection.execute(NAMES).all()))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [2] * 20
