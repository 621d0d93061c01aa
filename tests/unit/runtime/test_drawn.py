"""Secrets that are drawn once and kept."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driftloop.runtime.drawn import ExposedSecretError, drawn_secret


def test_a_secret_is_drawn_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    first = drawn_secret(path)
    assert len(bytes.fromhex(first.decode())) == 32
    assert drawn_secret(path) == first
    assert drawn_secret(tmp_path / "other") != first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["key"]  # no draft


def test_of_several_at_once_one_draws(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: drawn_secret(tmp_path / "key"), range(8)))
    assert len(found) == 1


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    drawn_secret(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ExposedSecretError, match="chmod 600"):
        drawn_secret(tmp_path / "key")
