"""How often a caller may ask, and that another one is not held up by it."""

from __future__ import annotations

import pytest
from driftloop.runtime.http import http_app
from driftloop.runtime.limiting import MAX_CALLERS, Allowances
from driftloop.runtime.settings import Settings
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

A, B = b"a", b"b"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    allowances = Allowances(2.0, 3, clock)
    assert [allowances.take(A) for _ in range(3)] == [0, 0, 0]
    assert allowances.take(A) == pytest.approx(0.5)
    assert allowances.take(B) == 0, "another caller"
    clock.now = 0.5
    assert allowances.take(A) == 0
    assert allowances.take(A) > 0
    clock.now = 60
    assert [allowances.take(A) for _ in range(4)].count(0) == 3, "no more is saved up"


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=200),
    st.floats(0.5, 20),
    st.integers(1, 10),
)
def test_never_more_than_burst_and_rate(
    pauses: list[float], a_second: float, burst: int
) -> None:
    clock = Clock()
    allowances = Allowances(a_second, burst, clock)
    taken = []
    for pause in pauses:
        clock.now += pause
        if allowances.take(A) == 0:
            taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) * a_second
            assert last - first + 1 <= most + 1e-6


def test_callers_that_are_remembered_are_bounded(clock: Clock) -> None:
    allowances = Allowances(1.0, 1, clock)
    for number in range(MAX_CALLERS + 10):
        allowances.take(str(number).encode())
    assert allowances.take(b"0") == 0, "forgotten, so it may ask"
    assert allowances.take(str(MAX_CALLERS + 9).encode()) > 0


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    settings = Settings(requests_per_second=0.5, requests_at_once=2)
    app = http_app("test", settings, lambda: {"live": True, "ready": True})
    client = TestClient(app, "http://127.0.0.1")
    me, other = ({"authorization": f"Bearer {name}"} for name in ("me", "other"))
    assert [client.get("/docs", headers=me).status_code for _ in range(3)] == [
        200, 200, 429,
    ]  # fmt: skip
    answer = client.get("/docs", headers=me)
    assert answer.headers["retry-after"] in ("1", "2")
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/docs", headers=other).status_code == 200
    assert client.get("/readyz", headers=me).status_code == 200, "machines may always"


def test_without_the_setting_nobody_is_held_up() -> None:
    app = http_app("test", Settings(), lambda: {"live": True, "ready": True})
    client = TestClient(app, "http://127.0.0.1")
    assert {client.get("/docs").status_code for _ in range(300)} == {200}
