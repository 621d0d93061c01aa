"""Many ask a slow model at once: each gets what it would get alone."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.runtime.http import http_app
from driftloop.scorer.answer_log import events_of
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.asked import Asked
from driftloop.scorer.batching import Batching, Line
from driftloop.scorer.feeds import Feeds
from driftloop.scorer.metrics import JOINED_REQUESTS
from driftloop.scorer.settings import MIB, ScorerSettings
from driftloop.scorer.shelf import Loaded, Pace, Served, Shelf
from fastapi import FastAPI

from tests.unit.scorer import packages
from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import NAME, Factory

TOKEN = "token-of-the-tests"
SLOW = Pace(0.010, 0.0001)
"""As of a large network: its calls go to a thread, and rows together cost little."""
INVOKE = f"/pipelines/{NAME}/invocations"
REQUESTS = 120
PATIENCE_S = 60.0
BAD = 500.0
"""Above 100 the model raises, for all rows of the call."""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Loaded]:
    factory = Factory(tmp_path_factory.mktemp("home"))

    def slow(version: int, plus: float) -> Loaded:
        loaded = factory.loaded(version, plus, extra=packages.RAISES_ABOVE_100)
        return replace(loaded, pace=SLOW)

    return slow(1, 1.0), slow(2, 2.0)


class Held:
    """A model that answers once all are there who ask."""

    def __init__(self, model: OnnxModel, go_on: threading.Event) -> None:
        self._model = model
        self._go_on = go_on

    def predict_arrays(self, feeds: Feeds, rows: int) -> Predictions:
        assert self._go_on.wait(PATIENCE_S)
        return self._model.predict_arrays(feeds, rows)


@dataclass
class Door:
    app: FastAPI
    traffic: Traffic
    asked: Asked
    go_on: threading.Event
    lines: list[Line]


def door(versions: tuple[Loaded, Loaded], batch_seconds: float) -> Door:
    go_on = threading.Event()
    champion, candidate = (
        replace(one, model=cast("Any", Held(one.model, go_on))) for one in versions
    )
    shelf, traffic, asked = Shelf(), Traffic(), Asked(lambda _: "all", 64 * MIB)
    shelf.show(NAME, Served(1, champion, candidate, 0.5, is_settled=True))
    settings = ScorerSettings.model_validate({"api_token": TOKEN})
    desk = Desk(
        shelf, traffic, asked, batching=Batching(calls=1), batch_seconds=batch_seconds
    )
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    open_doors(app, routers(desk, settings, lambda: True))
    lines = [champion.line, candidate.line]
    return Door(app, traffic, asked, go_on, lines)


def size_of(number: int) -> float:
    return BAD if number % 10 == 7 else float(number % 50)


async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
    """Ask about one row, or two, of which the second repeats the first."""
    row = {"size": size_of(number), "colour": "red" if number % 2 else "blue"}
    rows = [row] * (1 + number % 3 // 2)
    headers = {"x-request-id": f"request-{number}"}
    return await client.post(INVOKE, json={"dataframe_records": rows}, headers=headers)


def all_at_once(where: Door, is_joined: bool = False) -> list[httpx.Response]:
    """Return the answers to all; joined, no model answers until all wait for it."""

    def waiting() -> int:
        return sum(line.running + len(line.waiting) for line in where.lines)

    async def let_go() -> None:
        async with asyncio.timeout(PATIENCE_S):
            while is_joined and waiting() < REQUESTS:
                await asyncio.sleep(0.01)
        where.go_on.set()

    async def gather() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(where.app),
            base_url="http://localhost",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=2 * PATIENCE_S,
        ) as client:
            asked = asyncio.gather(*(ask(client, n) for n in range(REQUESTS)))
            await let_go()
            return await asked

    return asyncio.run(gather())


def joined() -> float:
    return JOINED_REQUESTS.labels(NAME)._value.get()


def told(response: httpx.Response) -> tuple[int, str | None, Any]:
    version = response.headers.get("x-driftloop-model-version")
    return response.status_code, version, response.json()


def logged(where: Door) -> Counter[tuple[int, str, str, float, float]]:
    """Return version, role, request, size and answer of each row in the log."""
    found: Counter[tuple[int, str, str, float, float]] = Counter()
    for key, kept in where.asked.take(is_last=True).items():
        for event in events_of(key, kept, "0", ()):
            rows = event.rows.to_pydict()
            found.update(
                (key[1], key[2], *row)
                for row in zip(
                    rows["request_id"], rows["size"], rows["prediction"], strict=True
                )
            )
    return found


def counted(where: Door) -> dict[int, tuple[str, int, int]]:
    ((_, reports),) = where.traffic.drain().items()
    return {r.version: (r.role, r.row_count, r.error_count) for r in reports}


def test_joined_requests_are_answered_logged_and_counted_as_single_ones(
    versions: tuple[Loaded, Loaded],
) -> None:
    """Two versions, half of the requests each, and bad rows among them."""
    before = joined()
    single = door(versions, 0.0)
    wanted = all_at_once(single)
    assert joined() == before  # control: nothing was joined
    together = door(versions, 0.050)
    found = all_at_once(together, is_joined=True)
    assert joined() - before > 0.9 * REQUESTS

    assert [told(r) for r in found] == [told(r) for r in wanted]
    for number, response in enumerate(found):
        assert (response.status_code == 500) == (size_of(number) == BAD), number
        if response.is_success:
            version = int(response.headers["x-driftloop-model-version"])
            answer = size_of(number) + (10 if number % 2 else 0) + version
            assert set(response.json()["predictions"]) == {answer}
    assert logged(together) == logged(single)
    assert counted(together) == counted(single)


def test_requests_of_one_version_are_not_put_to_another(
    versions: tuple[Loaded, Loaded],
) -> None:
    assert versions[0].line is versions[0].line
    assert versions[0].line is not versions[1].line


def test_settings_of_a_scorer(tmp_path: Path) -> None:
    settings = ScorerSettings(home=tmp_path)
    assert (settings.batch_ms, settings.batch_calls) == (10, 0)
