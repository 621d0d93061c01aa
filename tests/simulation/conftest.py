"""Time and logs of the product, for as long as histories are played."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.clock import simulated_time


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="play this history alone")


@pytest.fixture(autouse=True)
def simulated() -> Iterator[None]:
    """Let the product see simulated time, and say nothing of what it expects.

    For one test at a time: between two of these a worker runs tests of others.
    """
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        with simulated_time():
            yield
    finally:
        structlog.configure(**before)
