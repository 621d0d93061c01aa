"""A whole backtest: rows laid down, policies walked side by side, a report."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
from driftloop.backtest import oracle, report, work
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.plan import Plan
from driftloop.backtest.policies import ORACLE, Policy, policies_of
from driftloop.backtest.report import Recorded
from driftloop.backtest.sources import read_rows
from driftloop.backtest.stream import Stream, stream_of
from driftloop.backtest.weighing import cost_in_loss
from driftloop.backtest.work import Outcome, Place

Say = Callable[[dict[str, Any]], None]
TELL_EVERY_S = 0.25
READING = "reading rows"
"""What is told of before the policies; a log of many batches takes its time."""
MAX_MOMENTS = 60
"""Of the oracle: each is a training."""


def run(plan: Plan, say: Say) -> dict[str, Any]:
    """Make a backtest; see :func:`report.report_of` for what comes back.

    Raises
    ------
    BacktestError
        When it cannot be made; the text names the remedy.
    """
    began = time.monotonic()
    policies = policies_of(
        plan.spec, plan.policies, bounds=plan.bounds, candidates=plan.candidates
    )
    say({"type": "progress", "policy": READING, "done_ratio": 0.0})
    rows, refused = read_rows(plan.source, plan.spec, plan.home)
    stream = stream_of(rows, plan.spec.data.target, plan.rhythm)
    say({"type": "progress", "policy": READING, "done_ratio": 1.0})
    walked = [policy for policy in policies if policy.kind != "oracle"]
    with TemporaryDirectory(prefix="driftloop-backtest-") as folder:
        place = Place(Path(folder))
        place.prepare(stream)
        with _crew(min(plan.workers, len(walked)), say, stream.rows.num_rows) as crew:
            outcomes = crew.walk(place, walked, plan)
            losses = {o.policy.name: o.losses() for o in outcomes}
            counted = report.counted(list(losses.values()))
            if not counted.any():
                raise BacktestError(
                    "no row was answered by all policies: the first model never came "
                    "into service; see retrain.first_rows, the gate, and "
                    + _first_trouble(outcomes)
                )
            course = None
            if any(policy.name == ORACLE for policy in policies):
                moments = _moments(outcomes, stream, counted, plan)
                course = _course(crew, place, plan, policies[0], moments, counted,
                                 outcomes)  # fmt: skip
    recorded = Recorded(plan, stream, refused, outcomes, losses, counted, course)
    return report.report_of(recorded, time.monotonic() - began)


def _first_trouble(outcomes: Sequence[Outcome]) -> str:
    for outcome in outcomes:
        for entry in outcome.timeline:
            if entry["what"] in ("failed", "refused"):
                return f"{outcome.policy.name}: {entry['detail']}"
    return "how many rows there are"


# ── the oracle ──────────────────────────────────────────────────────────────


def _moments(
    outcomes: Sequence[Outcome], stream: Stream, counted: Any, plan: Plan
) -> list[int]:
    """Return the rows after which the oracle may train, ascending."""
    first, count = int(np.argmax(counted)), stream.rows.num_rows
    even = np.linspace(first, count, plan.oracle_trainings, endpoint=False)
    own = [
        row
        for outcome in outcomes
        if outcome.policy.kind in ("pipeline", "file")
        for row in outcome.trained_rows
    ]
    found = sorted({row for row in [*even.astype(int).tolist(), *own] if row >= first})
    if len(found) > MAX_MOMENTS:
        places = np.linspace(0, len(found) - 1, MAX_MOMENTS).astype(int)
        found = [found[place] for place in places]
    return found


def _course(
    crew: "Crew", place: Place, plan: Plan, own: Policy, moments: list[int],
    counted: Any, outcomes: Sequence[Outcome],
) -> report.Hindsight:  # fmt: skip
    """Return the best course, and the moments of its trainings."""
    files = crew.train(place, own, moments)
    made = [(row, file) for row, file in zip(moments, files, strict=True) if file]
    cost = plan.spec.retrain.cost
    policies = {
        o.policy.name: (
            o.losses(),
            cost_in_loss(cost, o.later_trainings, o.later_rollouts),
        )
        for o in outcomes
    }
    if not made:
        return _own_course(oracle.Course((), np.empty(0), np.inf), policies, counted,
                           outcomes)  # fmt: skip
    starts = [row for row, _ in made]
    found = [np.load(file, allow_pickle=False) for _, file in made]
    course = oracle.best_course(starts, found, counted, cost_in_loss(cost, 1, 1))
    first = int(np.argmax(counted))
    if starts[0] > first:  # its first answers come later than the policies'
        course = oracle.Course((), course.losses, np.inf)
    return _own_course(course, policies, counted, outcomes, starts)


def _own_course(
    course: oracle.Course, policies: dict[str, tuple[Any, float]], counted: Any,
    outcomes: Sequence[Outcome], starts: Sequence[int] = (),
) -> report.Hindsight:  # fmt: skip
    best = oracle.hindsight(course, policies, counted)
    if best.of is None:
        rows = [starts[number] for number in best.chosen[1:]]
    else:
        own = next(o for o in outcomes if o.policy.name == best.of)
        rows = own.trained_rows[1:]
    return report.Hindsight(best.losses, rows, best.of)


# ── processes ───────────────────────────────────────────────────────────────


class Crew:
    """Who does the work: processes, or this one where one is enough."""

    def __init__(self, pool: Executor | None, tell: work.Tell, say: Say) -> None:
        self._pool, self._tell, self._say = pool, tell, say

    def walk(
        self, place: Place, policies: Sequence[Policy], plan: Plan
    ) -> list[Outcome]:
        jobs = [(place, policy, plan.rhythm) for policy in policies]
        if self._pool is None:
            return [work.walk(*job, self._tell) for job in jobs]
        return list(_each_result([self._pool.submit(_walk, *job) for job in jobs]))

    def train(
        self, place: Place, own: Policy, moments: Sequence[int]
    ) -> list[Path | None]:
        made: list[Path | None] = []
        self._tell_oracle(0, moments)
        for file in self._trained(place, own, moments):
            made.append(file)
            self._tell_oracle(len(made), moments)
        return made

    def _trained(
        self, place: Place, own: Policy, moments: Sequence[int]
    ) -> Iterator[Path | None]:
        if self._pool is None:
            yield from (work.trained_after(place, own.spec, row) for row in moments)
            return
        yield from _each_result(
            [
                self._pool.submit(work.trained_after, place, own.spec, row)
                for row in moments
            ]
        )

    def _tell_oracle(self, done: int, moments: Sequence[int]) -> None:
        ratio = round(done / max(1, len(moments)), 4)
        self._say({"type": "progress", "policy": ORACLE, "done_ratio": ratio})


def _each_result(jobs: Sequence[Future[Any]]) -> Iterator[Any]:
    """Yield what jobs return, in their order; one that fails ends those that wait."""
    try:
        for job in jobs:
            yield job.result()
    except BaseException:
        for job in jobs:
            job.cancel()
        raise


@contextmanager
def _crew(workers: int, say: Say, row_count: int) -> Iterator[Crew]:
    """Start the processes, and tell how far each policy is."""
    told: dict[str, float] = {}

    def tell(name: str, seen: int) -> None:
        now = time.monotonic()
        if now - told.get(name, 0.0) >= TELL_EVERY_S or seen == row_count:
            told[name] = now
            ratio = seen / row_count
            say({"type": "progress", "policy": name, "done_ratio": round(ratio, 4)})

    if workers <= 1:
        yield Crew(None, tell, say)
        return
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()

    def listen() -> None:
        for name, seen in iter(queue.get, None):
            tell(name, seen)

    ear = Thread(target=listen, daemon=True)
    ear.start()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_joined, initargs=(queue,)
    ) as pool:
        try:
            yield Crew(pool, tell, say)
        finally:
            queue.put(None)
            ear.join()


_queue: Any = None
"""Of a process of the crew: where it tells how far it is."""


def _joined(queue: Any) -> None:
    global _queue  # noqa: PLW0603 - a process of a pool has no other place
    _queue = queue


def _walk(place: Place, policy: Policy, rhythm: Any) -> Outcome:
    last = 0.0

    def tell(name: str, seen: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TELL_EVERY_S:
            last = now
            _queue.put((name, seen))

    return work.walk(place, policy, rhythm, tell)
