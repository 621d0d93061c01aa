"""Fixtures for all tests: real brokers, and names that no other test uses."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driftloop.local.kafka import KafkaNode

from tests.servers import PostgresqlServer, S3Server

_BROKER_FIXTURES = frozenset({"kafka", "own_kafka"})


# The first test of a file also starts its broker and services; a busy machine is slow.
_HANGS_AFTER_S = 300
_E2E = Path(__file__).parent / "e2e"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever asks for a broker, and say what may run side by side.

    Tests of a file stay in one process, as what they need is set up once a file; those
    marked `spread` share nothing and go wherever there is room. Long ones come first:
    all processes then end at about the same time.
    """
    for item in items:
        if _BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
        if any(item.iter_markers("broker")) and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(_HANGS_AFTER_S))
        if not any(item.iter_markers("spread")):
            together = _E2E if _E2E in item.path.parents else item.path
            name = f"{together.parent.name}/{together.name}"
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if _E2E in item.path.parents:
        return 0  # the longest of all
    return 1 if {"broker", "slow"} & {m.name for m in item.iter_markers()} else 2


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    """One broker for all tests of the run; never stop it (see `own_kafka`)."""
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        yield node


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaNode]:
    """Give the test a broker of its own, to be stopped, killed or frozen at will."""
    with KafkaNode(tmp_path / "own-kafka") as node:
        yield node


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for all tests of the run; each takes a ``new_database()``."""
    server = PostgresqlServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests of the run; each takes a ``new_bucket()``."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def unique_name() -> Callable[[str], str]:
    """Return a function that makes topic and group names used nowhere else."""
    numbers = itertools.count(1)
    return lambda stem: f"{stem}-{os.getpid()}-{next(numbers)}"


@pytest.fixture
def topic_prefix(unique_name: Callable[[str], str]) -> str:
    """Return a prefix for all topics of one test, ending in a hyphen."""
    return unique_name("t") + "-"
