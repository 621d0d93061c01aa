"""A whole installation of its own: broker, eight services, one home."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driftloop.cli.context import Installation, connect
from driftloop.local import stack

from tests.e2e.loop import Run, loop
from tests.prometheus import PROMETHEUS, Prometheus


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


@pytest.fixture(scope="package")
def prometheus(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus | None]:
    """Reads the services' metrics from the beginning on; None: it is not here."""
    if PROMETHEUS is None:
        yield None
        return
    found = stack.status(home)["processes"]
    ports = {name: one["port"] for name, one in found.items() if name != stack.BROKER}
    folder = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, ports) as server:
        yield server


@pytest.fixture(scope="package")
def run(
    home: Path, installation: Installation, prometheus: Prometheus | None
) -> Iterator[Run]:
    """The demo's data, sent through while every service is killed once."""
    with loop(home, installation) as result:
        yield result
