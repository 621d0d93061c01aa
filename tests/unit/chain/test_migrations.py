"""Databases of earlier releases: brought to today's form, with what is in them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.topics import SERVICES
from driftloop.runtime import schema
from driftloop.runtime.database import open_database
from driftloop.runtime.migrating import differences, names_of_tables
from driftloop.runtime.schema import NewerDatabaseError, mark, steps_of, todays_form
from sqlalchemy import Engine, create_engine, inspect, text

STEP = '''"""A step of a test."""

import sqlalchemy as sa
from alembic import op

revision = "shop_000{number}"
down_revision = {before!r}
branch_labels = {label!r}
depends_on = None


def upgrade() -> None:
    {what}
'''
FIRST = 'op.create_table("shop_sale", sa.Column("id", sa.String(), primary_key=True))'
SECOND = """with op.batch_alter_table("shop_sale") as table:
        table.add_column(sa.Column("price", sa.Integer(), server_default="7"))"""


def write_steps(folder: Path, *whats: str) -> None:
    """Write the steps of a service of the test's own."""
    place = folder / "driftloop" / "shop" / "migrations"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for number, what in enumerate(whats, 1):
        before = f"shop_000{number - 1}" if number > 1 else None
        label = None if before else ("shop",)
        content = STEP.format(number=number, before=before, label=label, what=what)
        (place / f"shop_000{number}_step.py").write_text(content)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a service called shop; yield the folder that it is in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    import driftloop

    monkeypatch.setattr(
        driftloop, "__path__", [*driftloop.__path__, str(tmp_path / "driftloop")]
    )
    (tmp_path / "driftloop" / "shop").mkdir(parents=True)
    (tmp_path / "driftloop" / "shop" / "__init__.py").write_text("")
    yield tmp_path
    sys.modules.pop("driftloop.shop", None)


def shaped(engine: Engine) -> dict[str, Any]:
    """Return everything that the database says of its tables."""
    seen = inspect(engine)
    return {
        name: (
            [{**c, "type": str(c["type"])} for c in seen.get_columns(name)],
            seen.get_pk_constraint(name),
            sorted(map(str, seen.get_unique_constraints(name))),
            sorted(map(str, seen.get_indexes(name))),
            sorted(map(str, seen.get_foreign_keys(name))),
        )
        for name in seen.get_table_names()
    }


@pytest.mark.parametrize("service", SERVICES)
def test_all_steps_make_what_the_code_has(service: str, tmp_path: Path) -> None:
    """A new database and one that took each step are the same."""
    tables = import_module(f"driftloop.{service}.app").SERVICE.tables
    new = open_database(f"sqlite:///{tmp_path}/new.sqlite", tables, service)
    stepped = create_engine(f"sqlite:///{tmp_path}/stepped.sqlite")
    with stepped.begin() as connection:
        mark(connection, [])
        schema.bring_up_to_date(connection, service)
        names = names_of_tables("runtime") | names_of_tables(service)
        assert differences(connection, names) == []
    assert shaped(stepped) == shaped(new)
    with new.begin() as connection:
        assert schema.marked_form(connection) == todays_form(service)
    new.dispose()
    stepped.dispose()


def test_a_column_without_its_step_is_noticed(tmp_path: Path) -> None:
    """Negative control of the comparison above."""
    engine = create_engine(f"sqlite:///{tmp_path}/before.sqlite")
    with engine.begin() as connection:
        mark(connection, [])
        schema.bring_up_to_date(connection, "deployer")
        connection.execute(text("ALTER TABLE runtime_inbox ADD COLUMN more INTEGER"))
        [found] = differences(connection, names_of_tables("runtime"))
    assert found[0] == "remove_column"
    engine.dispose()


def test_an_upgrade_keeps_what_is_there(shop: Path, tmp_path: Path) -> None:
    """Rows of the first form have the second form's column; a restart does nothing."""
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    write_steps(shop, FIRST)
    with open_database(url, owner="shop").begin() as connection:
        connection.execute(text("CREATE TABLE shop_sale (id VARCHAR PRIMARY KEY)"))
        connection.execute(text("INSERT INTO shop_sale VALUES ('a')"))
        connection.engine.dispose()
    write_steps(shop, FIRST, SECOND)
    for _ in range(2):
        engine = open_database(url, owner="shop")
        with engine.begin() as connection:
            rows = connection.execute(text("SELECT id, price FROM shop_sale")).all()
            assert schema.marked_form(connection) == todays_form("shop")
        assert [tuple(row) for row in rows] == [("a", 7)]
        engine.dispose()
    assert "shop_0002" in todays_form("shop")


def test_a_step_that_fails_changes_nothing(shop: Path, tmp_path: Path) -> None:
    """Neither the table nor the mark; the mended step is taken at the next start."""
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    write_steps(shop, FIRST)
    with open_database(url, owner="shop").begin() as connection:
        connection.execute(text("CREATE TABLE shop_sale (id VARCHAR PRIMARY KEY)"))
        connection.engine.dispose()
    write_steps(shop, FIRST, f"{SECOND}\n    op.drop_table('nowhere')")
    with pytest.raises(Exception, match="nowhere"):
        open_database(url, owner="shop")
    engine = create_engine(url)
    assert [c["name"] for c in inspect(engine).get_columns("shop_sale")] == ["id"]
    engine.dispose()
    write_steps(shop, FIRST, SECOND)
    open_database(url, owner="shop").dispose()


def test_a_database_without_a_mark_is_of_the_first_form(tmp_path: Path) -> None:
    """Those from before there were marks are marked, and keep their rows."""
    url = f"sqlite:///{tmp_path}/old.sqlite"
    engine = open_database(url, owner="deployer")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE runtime_schema"))
        connection.execute(text("DROP TABLE runtime_reread"))  # came later
    engine.dispose()
    engine = open_database(url, owner="deployer")
    with engine.begin() as connection:
        assert schema.marked_form(connection) == todays_form("deployer")
    engine.dispose()


def test_a_database_of_a_later_release_is_refused(shop: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    write_steps(shop, FIRST, SECOND)
    open_database(url, owner="shop").dispose()
    write_steps(shop, FIRST)
    with pytest.raises(NewerDatabaseError, match=r"shop_0002.*knows.*shop_0001"):
        open_database(url, owner="shop")


@pytest.mark.parametrize("row", [schema.RUNTIME, *SERVICES])
def test_steps_are_one_row(row: str) -> None:
    """Numbered from 1 without a gap, each on the one before."""
    before = None
    for number, step in enumerate(steps_of(row), 1):
        assert schema.step_id(step) == f"{row}_{number:04}"
        spec = util.spec_from_file_location("step", step)
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert (module.revision, module.down_revision) == (schema.step_id(step), before)
        before = module.revision
