"""Requests that are answered together are answered as if each were alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.profile import BatchCost, VersionProfile
from driftloop.models.onnx_model import Predictions
from driftloop.scorer.batching import Batching, Callee, Line, Request, joint
from driftloop.scorer.feeds import Feeds
from driftloop.scorer.shelf import MOST_JOINT_ROWS, Pace
from hypothesis import given
from hypothesis import strategies as st

BAD = 13.0
"""A value at which the model fails."""
PATIENCE_S = 60.0


def feeds(values: Sequence[float]) -> Feeds:
    return {
        "size": np.array(values, dtype=np.float32).reshape(-1, 1),
        "colour": np.array([str(v) for v in values], dtype=object).reshape(-1, 1),
    }


class Model:
    """Answers a row by its own values, and fails on some; may be held up."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, given: Feeds, rows: int) -> Predictions:
        self.calls.append(rows)
        assert self.go_on.wait(PATIENCE_S)
        size = given["size"].reshape(-1)
        assert given["colour"].reshape(-1).tolist() == [str(float(v)) for v in size]
        assert len(size) == rows
        if (size == BAD).any():
            raise ValueError(f"no answer to {BAD:g}")
        answers = 3.0 * size.astype(np.float64) + 1
        return Predictions(answers, np.column_stack([answers, -answers]))


def alone(values: Sequence[float]) -> Predictions | None:
    try:
        return Model()(feeds(values), len(values))
    except ValueError:
        return None


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0)


async def asked(
    model: Model, requests: Sequence[Sequence[float]], most_rows: int, calls: int
) -> list[Any]:
    """Return what each is answered, where the first calls are held up meanwhile."""
    line, batching = Line(), Batching(calls)
    to = Callee("bikes", line, most_rows, model)
    model.go_on.clear()
    tasks = [
        asyncio.create_task(batching.predict(to, feeds(values), len(values)))
        for values in requests
    ]
    alone_count = sum(len(values) >= most_rows for values in requests)
    joinable = len(requests) - alone_count
    await until(lambda: line.running + len(line.waiting) == joinable)
    assert line.running == min(calls, joinable)
    model.go_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not line.tasks)
    assert (line.running, len(line.waiting)) == (0, 0)
    return list(found)


VALUES = st.sampled_from([0.0, 1.5, -2.0, BAD, 40.0])
REQUESTS = st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=12)


@given(REQUESTS, st.integers(1, 9), st.integers(1, 3))
def test_each_gets_its_own_answer_or_its_own_error(
    requests: list[list[float]], most_rows: int, calls: int
) -> None:
    """Whatever is asked together with it: bit for bit what it gets alone."""
    model = Model()
    found = asyncio.run(asked(model, requests, most_rows, calls))
    for values, said in zip(requests, found, strict=True):
        wanted = alone(values)
        if wanted is None:
            assert isinstance(said, ValueError)
        else:
            assert said.prediction.tolist() == wanted.prediction.tolist()
            assert said.score.tolist() == wanted.score.tolist()
    assert max(model.calls) <= max(most_rows, *map(len, requests))


def test_who_waits_is_answered_in_one_call() -> None:
    model = Model()
    asyncio.run(asked(model, [[float(n)] for n in range(9)], 100, 1))
    assert model.calls == [1, 8]


def test_without_joining_each_has_a_call_of_its_own() -> None:
    """Control: the same requests where joining does not pay."""
    model = Model()
    asyncio.run(asked(model, [[float(n)] for n in range(9)], 1, 1))
    assert model.calls == [1] * 9


def test_a_call_has_no_more_rows_than_it_may() -> None:
    model = Model()
    asyncio.run(asked(model, [[1.0, 2.0]] * 6, 5, 1))
    assert model.calls == [2, 4, 4, 2]


def test_one_bad_row_fails_its_request_only() -> None:
    model = Model()
    found = asyncio.run(asked(model, [[0.0], [1.5], [BAD], [40.0]], 100, 1))
    assert [isinstance(said, ValueError) for said in found] == [
        False,
        False,
        True,
        False,
    ]
    assert model.calls == [1, 3, 1, 1, 1]  # together, then each by itself


def test_an_idle_model_is_asked_at_once() -> None:
    """Nobody waits for others that may come."""

    async def one_after_the_other() -> None:
        line = Line()
        to = Callee("bikes", line, 100, model)
        for value in range(3):
            await Batching(calls=1).predict(to, feeds([float(value)]), 1)
            assert (line.running, line.tasks) == (0, set())

    model = Model()
    asyncio.run(one_after_the_other())
    assert model.calls == [1, 1, 1]


def test_a_caller_that_has_gone_is_not_asked_for() -> None:
    async def with_one_gone() -> list[Any]:
        line = Line()
        to = Callee("bikes", line, 100, model)
        model.go_on.clear()
        tasks = [
            asyncio.create_task(Batching(calls=1).predict(to, feeds([float(n)]), 1))
            for n in range(4)
        ]
        await until(lambda: len(line.waiting) == 3)
        tasks[2].cancel()
        await until(tasks[2].done)
        model.go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    model = Model()
    found = asyncio.run(with_one_gone())
    assert isinstance(found[2], asyncio.CancelledError)
    assert [said.prediction[0] for said in (found[0], found[1], found[3])] == [1, 4, 10]
    assert model.calls == [1, 2]


def test_where_no_thread_can_be_had_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> object:
        line, batching = Line(running=1), Batching(calls=1)
        to = Callee("bikes", line, 100, Model())
        task = asyncio.create_task(batching.predict(to, feeds([1.0]), 1))
        await until(lambda: len(line.waiting) == 1)
        line.running = 0
        monkeypatch.setattr("driftloop.scorer.batching.run_in_threadpool", broken)
        batching._go_on(to)
        (said,) = await asyncio.gather(task, return_exceptions=True)
        return said

    assert isinstance(asyncio.run(ask()), RuntimeError)


def test_an_answer_keeps_no_others_in_memory() -> None:
    """The log of answers holds on to them for a while."""

    async def both() -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        two = [Request(feeds([n]), 1, loop.create_future()) for n in (1.0, 2.0)]
        return joint(Model(), two)

    for said in asyncio.run(both()):
        assert said.prediction.base is None
        assert said.score.base is None


def test_joining_pays_where_a_call_costs_more_than_a_row() -> None:
    assert Pace(0.010, 0.010).joint_rows(0.035) == 4
    assert Pace(0.009, 0.010).joint_rows(0.035) == 1
    assert Pace(0.010, 0.0).joint_rows(0.001) == MOST_JOINT_ROWS
    assert Pace(0.010, 0.001).joint_rows(0.0) == 1  # turned off
    assert Pace(0.010, 0.001).joint_rows(10.0) == MOST_JOINT_ROWS


def test_a_pace_is_what_the_trial_measured() -> None:
    def profile(**p50_seconds: float) -> VersionProfile:
        return VersionProfile(
            machine="any",
            onnx_runtime="1",
            batches=[
                BatchCost(rows=int(r[1:]), p50_seconds=s, p99_seconds=9, memory_bytes=0)
                for r, s in p50_seconds.items()
            ],
        )

    pace = Pace.of(profile(r1=0.011, r10=0.020, r100=0.110, r1000=9.0))
    assert (pace.call_seconds, pace.row_seconds) == pytest.approx((0.010, 0.001))
    assert pace.seconds(1) == pytest.approx(0.011)
    # Quicker with more rows, as noise has it: rows cost nothing, never less.
    assert Pace.of(profile(r1=0.011, r100=0.010)) == Pace(0.011, 0.0)
    # Too slow to be tried with more rows: nothing is gained by joining them.
    slow = Pace.of(profile(r1=0.6))
    assert slow.seconds(10) == pytest.approx(6.0)
    assert slow.joint_rows(10.0) == 1
