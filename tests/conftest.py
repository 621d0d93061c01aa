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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever asks for a broker, so that `-m "not broker"` leaves it out.

    Long files come first: two workers then end at about the same time.
    """
    for item in items:
        if _BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
    items.sort(key=_is_short)


def _is_short(item: pytest.Item) -> bool:
    return not any(item.iter_markers("broker")) and not any(item.iter_markers("slow"))


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
