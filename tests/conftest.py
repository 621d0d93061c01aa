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
_HANGS_AFTER_S = 600
_E2E = "tests/e2e/"
_SHARES_NOTHING = frozenset(
    f"tests/component/test_{name}.py"
    for name in ("driver_kills", "driver_conformance", "stack", "local_kafka")
)
"""Long files whose tests need nothing that is set up once for all of them."""


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark whatever asks for a broker, so that `-m "not broker"` leaves it out.

    Long files come first, after others have shuffled: processes that run side by side
    then end at about the same time.
    """
    for item in items:
        if _BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
        if any(item.iter_markers("broker")) and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(_HANGS_AFTER_S))
    yield
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.nodeid.startswith(_E2E):
        return 0  # the longest of all
    return 1 if {"broker", "slow"} & {mark.name for mark in item.iter_markers()} else 2


def runs_with(test: str) -> str:
    """Return a name for what runs in one process: tests with the same name do.

    A file's tests do, since what they need is set up once for the file; all end-to-end
    tests do, since they share one installation.
    """
    path, *_ = test.partition("::")
    if path.startswith(_E2E):
        return _E2E
    return test if path in _SHARES_NOTHING else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Share out tests by `runs_with`, in the order above.

    xdist's own `loadgroup` does not group under pytest 9.2.
    Source: https://github.com/pytest-dev/pytest-xdist/issues/1386
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return runs_with(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


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
