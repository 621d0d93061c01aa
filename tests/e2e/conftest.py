"""A whole installation of its own: broker, eight services, one home."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driftloop.cli.context import Installation, connect
from driftloop.local import stack


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home of a running stack; stopped before the tests of the next folder begin."""
    place = tmp_path_factory.mktemp("installation") / "home"
    stack.up(place)
    try:
        yield place
    finally:
        stack.down(place)


@pytest.fixture(scope="package")
def installation(home: Path) -> Installation:
    return connect(home)
