"""Requests that wait for a busy model are put to it together, in one call.

A call has a part of its own and one for each row (:class:`shelf.Pace`). Where the first
is the larger, rows together cost less than one after the other. Nobody waits for that:
while fewer calls run than there are processors, a request is put to the model at once;
who comes meanwhile is in the next call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from driftloop.models.onnx_model import Predictions
from driftloop.scorer.feeds import Feeds
from driftloop.scorer.metrics import JOINED_REQUESTS
from fastapi.concurrency import run_in_threadpool

Predict = Callable[[Feeds, int], Predictions]
"""Answers rows or raises; called in other threads."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows that wait for the model."""

    feeds: Feeds
    rows: int
    said: asyncio.Future[Predictions]


@dataclass
class Line:
    """Requests to one version, of one event loop."""

    running: int = 0
    waiting: deque[Request] = field(default_factory=deque)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def taken(self, most_rows: int) -> list[Request]:
        """Return the next ones that are still wanted, the first in any case."""
        batch: list[Request] = []
        rows = 0
        while self.waiting:
            first = self.waiting[0]
            if first.said.done():  # its caller has gone
                self.waiting.popleft()
                continue
            if batch and rows + first.rows > most_rows:
                break
            batch.append(self.waiting.popleft())
            rows += first.rows
        return batch


@dataclass(frozen=True, slots=True)
class Callee:
    """A version to which rows are put.

    Attributes
    ----------
    most_rows : of a joint call; 1: each request has a call of its own.
    """

    pipeline: str
    line: Line
    most_rows: int
    predict: Predict


class Batching:
    """Puts requests to versions, together where they wait.

    Parameters
    ----------
    calls : of a version at once; more requests wait.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls

    async def predict(self, to: Callee, feeds: Feeds, rows: int) -> Predictions:
        """Answer a request's rows, in another thread.

        Raises
        ------
        Exception
            Whatever the version raises at this request's rows, and only at these.
        """
        if rows >= to.most_rows:
            return await run_in_threadpool(to.predict, feeds, rows)
        if to.line.running >= self._calls:
            said = asyncio.get_running_loop().create_future()
            to.line.waiting.append(Request(feeds, rows, said))
            answer: Predictions = await said
            return answer
        to.line.running += 1
        try:
            return await run_in_threadpool(to.predict, feeds, rows)
        finally:
            to.line.running -= 1
            self._go_on(to)

    def _go_on(self, to: Callee) -> None:
        """Begin the next calls, as many as may run."""
        line = to.line
        while line.running < self._calls and (batch := line.taken(to.most_rows)):
            line.running += 1
            task = asyncio.get_running_loop().create_task(self._answer(to, batch))
            line.tasks.add(task)
            task.add_done_callback(line.tasks.discard)

    async def _answer(self, to: Callee, batch: list[Request]) -> None:
        told: Sequence[Predictions | Exception]
        try:
            told = await run_in_threadpool(joint, to.predict, batch)
        except Exception as error:  # noqa: BLE001 - no thread: each is told so
            told = [error] * len(batch)
        finally:
            to.line.running -= 1
            self._go_on(to)
        if len(batch) > 1:
            JOINED_REQUESTS.labels(to.pipeline).inc(len(batch))
        for request, said in zip(batch, told, strict=True):
            if request.said.done():  # its caller has gone meanwhile
                continue
            if isinstance(said, Exception):
                request.said.set_exception(said)
            else:
                request.said.set_result(said)


def joint(
    predict: Predict, batch: Sequence[Request]
) -> Sequence[Predictions | Exception]:
    """Answer requests in one call; where that fails, each by itself.

    A row that the model fails on, or has no finite answer to, harms its own request
    only.
    """
    if len(batch) > 1:
        rows = sum(request.rows for request in batch)
        with suppress(Exception):  # whose rows it was shows below
            return _parts(predict(_together(batch), rows), batch)
    return [_alone(predict, request) for request in batch]


def _alone(predict: Predict, request: Request) -> Predictions | Exception:
    try:
        return predict(request.feeds, request.rows)
    except Exception as error:  # noqa: BLE001 - it is raised to who asked
        return error


def _together(batch: Sequence[Request]) -> Feeds:
    names = batch[0].feeds
    return {name: np.concatenate([r.feeds[name] for r in batch]) for name in names}


def _parts(said: Predictions, batch: Sequence[Request]) -> list[Predictions]:
    """Return each request's own answers; copies, which keep no others in memory."""
    found, start = [], 0
    for request in batch:
        end = start + request.rows
        score = None if said.score is None else said.score[start:end].copy()
        found.append(Predictions(said.prediction[start:end].copy(), score))
        start = end
    return found
