"""Explains beside the answers: on threads of its own, so many at once and no more.

An answer that is to be explained waits for its explanation as long as its caller said,
and not longer; others do not wait for it. What cannot be explained is answered all the
same, and says why it is not explained.
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from driftloop.models.onnx_model import Predictions
from driftloop.runtime.telemetry import log
from driftloop.scorer.explaining.explainer import Explainer, Unexplained
from driftloop.scorer.explaining.mixtures import Floats, Method, Question
from driftloop.scorer.explaining.shapley import Explained, Seen
from driftloop.scorer.explaining.wish import Times, Wish
from driftloop.scorer.metrics import EXPLANATION_DURATION, EXPLANATIONS

logger = log(__name__)
OFF = "explanations are off here: DRIFTLOOP_SCORER_EXPLAIN_THREADS is 0"
MOST_ROWS = 1000
"""Of a request; beyond them nobody's time is enough."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the rows of a request got their answers.

    Attributes
    ----------
    unit : of base, contributions and errors, in words.
    answers : (n_rows,) in that unit.
    found : the contributions; NaN for rows without.
    background_count : rows to compare with; fewer were, where time ran out.
    model_calls, predictions : calls of the model, and rows in all of them.
    timed_out : not all was looked at that should be.
    """

    unit: str
    method: Method
    columns: tuple[str, ...]
    answers: Floats
    found: Explained
    background_count: int
    model_calls: int
    predictions: int
    timed_out: bool


class _Job:
    """One request's explanation; its thread looks, the event loop reads."""

    def __init__(
        self,
        explainer: Explainer,
        feeds: Mapping[str, npt.NDArray[Any]],
        said: Predictions,
        until: float,
    ) -> None:
        self._explainer = explainer
        self._feeds = feeds
        self._said = said
        self._until = until
        self._found: tuple[Question, Seen] | None = None
        self._is_over = False

    def run(self) -> None:
        """Look until all was looked at, time ran out, or nobody waits any more."""
        question = self._explainer.question(self._feeds, self._said)
        for seen in self._explainer.explain(question, self._until):
            self._found = question, seen
            if self._is_over:
                return

    def stop(self) -> None:
        self._is_over = True

    def so_far(self) -> Explanation | Unexplained:
        """Return what was found out by now."""
        if self._found is None:
            return Unexplained(
                "the time was over before its turn came; allow more with explain_ms",
                timed_out=True,
            )
        question, seen = self._found
        return Explanation(
            self._explainer.unit,
            seen.method,
            tuple(question.feeds),
            question.answers,
            seen.explained(),
            seen.background_count,
            seen.calls,
            seen.predictions,
            timed_out=not seen.is_complete,
        )


class Explaining:
    """Threads that explain, and a bound on how many requests wait for them.

    Parameters
    ----------
    threads : requests that are explained at once; 0: none are explained.
    waiting : requests that may wait for a thread.
    """

    def __init__(self, threads: int, waiting: int, times: Times) -> None:
        self.times = times
        self._most = threads + waiting if threads else 0
        self._room = self._most
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max(threads, 1), "explaining")

    @classmethod
    def off(cls) -> "Explaining":
        """Return one that explains nothing, and says so."""
        return cls(0, 0, Times(usual_ms=100, most_ms=2000))

    async def explain(
        self,
        pipeline: str,
        explainer: Explainer | Unexplained,
        feeds: Mapping[str, npt.NDArray[Any]],
        said: Predictions,
        wish: Wish,
    ) -> Explanation | Unexplained:
        """Return why rows got their answers, at the latest when the wish says.

        Parameters
        ----------
        explainer : of the version that answered, or why it has none.
        """
        started = time.perf_counter()
        if isinstance(explainer, Unexplained):
            return _refused(pipeline, explainer)
        refusal = self._refusal(len(said.prediction))
        if refusal is not None:
            return _refused(pipeline, refusal)
        job = _Job(explainer, feeds, said, started + wish.milliseconds / 1000)
        try:
            future = self._begin(job)
            await asyncio.wait_for(
                asyncio.wrap_future(future), wish.milliseconds / 1000
            )
        except TimeoutError:
            pass  # what was found by now is told
        except Exception as error:  # noqa: BLE001 - the answer itself is there
            logger.warning("cannot explain", pipeline=pipeline, error=str(error))
            EXPLANATIONS.labels(pipeline, "failed").inc()
            return Unexplained(f"explaining failed: {error!s:.200}")
        finally:
            job.stop()
        found = job.so_far()
        is_late = isinstance(found, Unexplained) or found.timed_out
        EXPLANATIONS.labels(pipeline, "timed_out" if is_late else "explained").inc()
        EXPLANATION_DURATION.labels(pipeline).observe(time.perf_counter() - started)
        return found

    @property
    def room(self) -> int:
        """How many more requests would be taken now."""
        return self._room

    def close(self) -> None:
        """End the threads; what waits is not explained any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refusal(self, rows: int) -> Unexplained | None:
        """Say why nothing is explained; None: a place was taken, to be left."""
        if not self._most:
            return Unexplained(OFF)
        if not 1 <= rows <= MOST_ROWS:
            return Unexplained(f"of 1 to {MOST_ROWS} rows a request, not {rows}")
        with self._lock:
            if not self._room:
                return Unexplained(
                    f"{self._most} requests are being explained or wait for it, which "
                    "is the most here; ask again later"
                )
            self._room -= 1
        return None

    def _begin(self, job: _Job) -> Future[None]:
        """Have a thread do it; the place is left when it ends, begun or not."""
        try:
            future = self._threads.submit(job.run)
        except RuntimeError:
            self._leave()
            raise
        future.add_done_callback(lambda _: self._leave())
        return future

    def _leave(self) -> None:
        with self._lock:
            self._room += 1


def _refused(pipeline: str, why: Unexplained) -> Unexplained:
    EXPLANATIONS.labels(pipeline, "refused").inc()
    return why
