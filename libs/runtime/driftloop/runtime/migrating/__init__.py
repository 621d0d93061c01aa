"""Steps from one form of a service's tables to the next, by Alembic.

``python -m driftloop.runtime.migrating SERVICE "what changes"`` (``make migration``)
writes the next step: the difference between the database that the steps so far make and
the tables as the code has them. Read what it wrote: renamed is not dropped and added.
"""

import os
import tempfile
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from alembic import autogenerate, command
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from driftloop.runtime.database import RUNTIME_TABLES
from driftloop.runtime.schema import FORM, RUNTIME, STEP_NAME, folder_of, steps_of
from sqlalchemy import Connection, TypeDecorator, create_engine
from sqlmodel import SQLModel

HERE = Path(__file__).parent


def upgrade(connection: Connection, service: str) -> None:
    """Take every step that a database has not taken, in the caller's transaction."""
    command.upgrade(_config(connection, service), "heads")


def differences(connection: Connection, tables: Collection[str]) -> list[Any]:
    """Return how a database's tables differ from the code's; empty: they do not.

    Parameters
    ----------
    tables : the names of the tables to look at.
    """
    options = _options(tables)
    context = MigrationContext.configure(connection, opts=options)
    found: list[Any] = autogenerate.compare_metadata(context, SQLModel.metadata)
    return found


def write_step(row: str, what: str) -> Path:
    """Write the step from where a row of steps has come to the code's tables.

    Returns
    -------
    Path
        The new file.
    """
    service = "ingest" if row == RUNTIME else row  # any will do for the runtime's
    tables = names_of_tables(row)
    folder_of(row).mkdir(exist_ok=True)
    steps = steps_of(row)
    new = STEP_NAME.format(row=row, number=len(steps) + 1)
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/before.sqlite")
        with engine.begin() as connection:
            config = _config(connection, service, tables)
            if steps or steps_of(RUNTIME):
                command.upgrade(config, "heads")
            written = command.revision(
                config,
                what,
                autogenerate=True,
                rev_id=new,
                head=f"{row}@head" if steps else "base",
                branch_label=None if steps else row,
                version_path=str(folder_of(row)),
            )
        engine.dispose()
    if written is None or isinstance(written, list):
        raise RuntimeError(f"Alembic wrote {written}, not one step")
    path = Path(written.path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "# ###" not in line))
    return path


def names_of_tables(row: str) -> set[str]:
    """Return the names of a row's tables, having imported them."""
    if row == RUNTIME:
        return {str(table.__tablename__) for table in RUNTIME_TABLES}
    app = import_module(f"driftloop.{row}.app")
    return {str(table.__tablename__) for table in app.SERVICE.tables}


def _config(
    connection: Connection, service: str, tables: Collection[str] = ()
) -> Config:
    config = Config()
    rows = [folder_of(row) for row in (RUNTIME, service)]
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("path_separator", "os")
    config.set_main_option(
        "version_locations", os.pathsep.join(str(row) for row in rows if row.exists())
    )
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes |= {"connection": connection, "options": _options(tables)}
    return config


def _options(tables: Collection[str]) -> dict[str, Any]:
    """Return how Alembic works, the same for a step, a comparison and a new step."""

    def is_ours(_thing: Any, name: str | None, kind: str, *_: Any) -> bool:
        return kind != "table" or name in tables

    return {
        "target_metadata": SQLModel.metadata,
        "version_table": FORM.name,
        "render_as_batch": True,  # SQLite changes a table by writing it anew
        "include_object": is_ours,
        "render_item": _as_plain,
        "compare_type": True,
    }


def _as_plain(kind: str, thing: Any, _: AutogenContext) -> str | Literal[False]:
    """Render SQLModel's own types as those of SQLAlchemy that they stand for."""
    if kind != "type" or not isinstance(thing, TypeDecorator):
        return False
    return f"sa.{thing.impl_instance!r}"
