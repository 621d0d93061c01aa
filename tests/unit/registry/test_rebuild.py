"""Two databases compared, and one put in the place of the other."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from driftloop.registry.every_table import EVERY_TABLE
from driftloop.registry.rebuild.reading import RebuildRefusedError
from driftloop.registry.rebuild.state import Snapshot, one_view, snapshot_of
from driftloop.registry.rebuild.swap import swap
from driftloop.registry.rebuild.work import _live, _open, rebuild
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.database import open_database
from sqlalchemy import text

INSERT = (
    "INSERT INTO registry_serving_change (event_id, pipeline, version, at, generation, "
    "kind, rollout_id, reason) VALUES "
    "('{id}', 'bikes', {version}, '2026-01-01', 1, 'deployed', 'r', '')"
)


def database(file: Path, *statements: str) -> Snapshot:
    url = f"sqlite:///{file}"
    engine = open_database(url, EVERY_TABLE, "registry")
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
    with one_view(url) as connection:
        return snapshot_of(connection)


def test_a_row_more_or_another_value_is_a_difference(tmp_path: Path) -> None:
    """And the order in which rows were written is none."""
    rows = [INSERT.format(id=n, version=n) for n in (1, 2)]
    one = database(tmp_path / "1.db", *rows)
    assert one.differing(database(tmp_path / "2.db", *rows[::-1])) == []
    other = INSERT.format(id=2, version=3)
    for number, changed in enumerate(([rows[0]], [rows[0], other])):
        found = one.differing(database(tmp_path / f"other-{number}.db", *changed))
        assert found == ["registry_serving_change"]


def test_what_is_there_may_be_nothing_or_rubbish(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    assert _live(f"sqlite:///{file}", file) == (None, "there is none")
    file.write_bytes(b"no database" * 1000)
    found, why = _live(f"sqlite:///{file}", file)
    assert found is None
    assert why.startswith("cannot be read")


def test_the_old_one_is_kept_whole(tmp_path: Path) -> None:
    """Also what was in its write-ahead log only; nothing of it is left beside."""
    old, new = tmp_path / "x.db", tmp_path / "x.db.rebuilt"
    row = INSERT.format(id=1, version=1)
    before, after = database(old, row), database(new)
    kept = swap(old, new)
    assert kept is not None
    assert not new.exists()
    assert not list(tmp_path.glob("*-wal"))
    assert database(old).differing(after) == []
    assert database(kept).differing(before) == []
    with sqlite3.connect(old) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_rubbish_is_put_aside_with_what_lies_beside_it(tmp_path: Path) -> None:
    old, new = tmp_path / "x.db", tmp_path / "x.db.rebuilt"
    old.write_bytes(b"no database" * 1000)
    (tmp_path / "x.db-wal").write_bytes(b"of it")
    database(new, INSERT.format(id=1, version=1))
    kept = swap(old, new)
    assert kept is not None
    assert kept.read_bytes().startswith(b"no database")
    with one_view(f"sqlite:///{old}") as connection:
        assert snapshot_of(connection)


def test_refusals_name_the_remedy(tmp_path: Path) -> None:
    def refused(match: str, url: str | None, into: str | None, *, swap: bool) -> None:
        settings = RegistrySettings(home=tmp_path, database_url=url)
        with pytest.raises(RebuildRefusedError, match=match):
            rebuild(settings, into, swap, lambda *_: None)

    refused("--into URL", "postgresql://h/d", None, swap=False)
    refused("DATABASE_URL", "postgresql://h/d", "postgresql://h/e", swap=True)
    refused("DATABASE_URL", None, "sqlite:////tmp/x.db", swap=True)
    database(tmp_path / "full.db", "INSERT INTO runtime_watermark VALUES ('t', 0, 1)")
    with pytest.raises(RebuildRefusedError, match="not empty"):
        _open(f"sqlite:///{tmp_path}/full.db", is_ours=False)
