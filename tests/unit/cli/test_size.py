"""A size follows from what was measured, and the queue behaves as it says."""

from __future__ import annotations

import io
import math
from typing import Any

import httpx
import numpy as np
import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.size import views, work
from driftloop.cli.size.sizing import (
    DOOR_ROW_SECONDS,
    DOOR_SECONDS,
    SHARE,
    Demand,
    Known,
    Spent,
    TooSlow,
    mean_wait,
    size_for,
    spent_on,
    wait_p99,
)
from driftloop.contracts.base import Event
from driftloop.contracts.events import ScorerReported, VersionReport
from driftloop.contracts.profile import BatchCost, DoorCost, VersionProfile
from numpy.typing import NDArray
from rich.console import Console

from tests.unit.cli.running import run

MIB = 2**20
ARRIVALS = 400_000


def cost(rows: int, seconds: float, p99: float | None = None) -> BatchCost:
    return BatchCost(
        rows=rows, calls=50, p50_seconds=seconds, p99_seconds=p99 or seconds,
        memory_bytes=8 * MIB,
    )  # fmt: skip


def profile(*costs: BatchCost, machine: str = "a, 2 CPUs") -> VersionProfile:
    return VersionProfile(
        machine=machine, onnx_runtime="1", child_bytes=100 * MIB, batches=list(costs)
    )


SLOW = profile(cost(1, 0.009, 0.012), cost(10, 0.018), cost(100, 0.108))
"""8 ms for a call and 1 ms a row."""
DOOR = DoorCost(requests=1000, rows=1, seconds=0.001)
KNOWN = Known(SLOW, "replica a", DOOR, 300 * MIB)


def waits(
    rate: float, service: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return each request's wait: Lindley's recursion, W' = max(0, W + S - A)."""
    gaps = generator.exponential(1 / rate, len(service))
    steps = np.cumsum(service - gaps)
    following = steps - np.minimum(np.minimum.accumulate(steps), 0)
    return np.concatenate([[0.0], following[:-1]])


@pytest.mark.parametrize("kind", ["constant", "gamma", "exponential"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_formula_tells_the_waits_of_a_queue(kind: str, load: float) -> None:
    """Against requests that really queue; the tail is rather told too long."""
    generator = np.random.default_rng(7)
    times = {
        "constant": np.full(ARRIVALS, 0.01),
        "gamma": generator.gamma(4, 0.01 / 4, ARRIVALS),
        "exponential": generator.exponential(0.01, ARRIVALS),
    }[kind]
    rate = load / 0.01
    found = waits(rate, times, generator)
    spread = {"constant": 0.0, "gamma": 0.005, "exponential": 0.01}[kind]
    spent = Spent(model=0.01, door=0, log=0, deviation=spread, p99=0.02)
    assert mean_wait(rate, 0.01, spread) == pytest.approx(found.mean(), rel=0.05)
    tail = float(np.quantile(found, SHARE))
    assert 0.95 * tail <= wait_p99(rate, spent) <= 1.3 * tail


def test_a_queue_simulated_with_the_size_answers_in_time_and_with_less_does_not() -> (
    None
):
    """Negative control: as many scorers as the bare processor time needs."""
    demand = Demand(rate=300, within_seconds=0.06, utilisation=0.9)
    size = size_for(demand, KNOWN)
    generator = np.random.default_rng(3)

    def p99(scorers: int) -> float:
        model = generator.normal(0.009, 0.003 / 2.33, ARRIVALS).clip(0)
        door = generator.exponential(0.001, ARRIVALS)
        service = model + door
        total = waits(demand.rate / scorers, service, generator) + service
        return float(np.quantile(total, SHARE))

    assert p99(size.busy) <= 0.06
    bare = math.ceil(demand.rate * size.spent.mean)
    assert bare < size.busy
    assert p99(bare) > 0.06


def test_the_parts_of_a_request() -> None:
    spent = spent_on(KNOWN, 4)
    assert spent.model == pytest.approx(0.012)  # on the line from 9 to 18 ms
    assert spent.door == pytest.approx(0.001 + 3 * DOOR_ROW_SECONDS)
    assert spent_on(KNOWN, 200).model == pytest.approx(0.208)  # the line goes on
    unmeasured = Known(SLOW, "the registry")
    assert spent_on(unmeasured, 1).door == pytest.approx(DOOR_SECONDS)
    many = Known(SLOW, "replica a", DoorCost(requests=9, rows=50, seconds=0.003))
    assert spent_on(many, 1).door == pytest.approx(0.003)  # never less than measured


def test_utilisation_time_and_spare_each_ask_for_scorers() -> None:
    base = size_for(Demand(rate=100, utilisation=0.6), KNOWN)
    assert base.busy == base.scorers == 2
    assert size_for(Demand(rate=100, utilisation=0.3), KNOWN).busy == 4
    assert size_for(Demand(rate=100, spare=1), KNOWN).scorers == 3
    soon = size_for(Demand(rate=100, within_seconds=0.025), KNOWN)
    assert soon.busy > base.busy
    assert soon.p99_seconds <= 0.025 < base.p99_seconds
    assert size_for(Demand(rate=0.001), KNOWN).scorers == 1


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_one_scorer_fewer_would_not_do(rate: float, rows: int) -> None:
    demand = Demand(rate, rows, within_seconds=1.0)
    size = size_for(demand, KNOWN)
    assert size.utilisation <= demand.utilisation
    assert size.p99_seconds <= 1.0
    if size.busy > 1:
        each = rate / (size.busy - 1)
        late = size.spent.p99 + wait_p99(each, size.spent) > 1.0
        assert each * size.spent.mean > demand.utilisation or late


def test_a_time_that_no_answer_keeps_is_refused() -> None:
    with pytest.raises(TooSlow, match="more scorers do not change that"):
        size_for(Demand(rate=1, within_seconds=0.01), KNOWN)


def test_memory_is_for_a_second_version_and_its_trial() -> None:
    """300 of the scorer, 8 of the version, 108 of the trial's process: 448 MiB."""
    assert size_for(Demand(rate=1), KNOWN).memory_bytes == 448 * MIB
    unknown = Known(SLOW, "the registry")
    assert size_for(Demand(rate=1), unknown).memory_bytes == 448 * MIB


def report(
    replica: str, version: int, at: VersionProfile | None = None,
    door: DoorCost | None = None, memory: int | None = None, pipeline: str = "bikes",
) -> ScorerReported:  # fmt: skip
    said = VersionReport(
        version=version, role="champion", state="ready", profile=at, door=door
    )
    return ScorerReported(
        pipeline=pipeline, replica=replica, generation=1, versions=[said],
        memory_bytes=memory,
    )  # fmt: skip


def test_what_scorers_told_is_found_and_the_slowest_machine_counts() -> None:
    quick = profile(cost(1, 0.001), machine="b, 8 CPUs")
    door = DoorCost(requests=300, rows=2, seconds=0.002)
    events: list[Event] = [
        report("a", 4, profile(cost(1, 9.0)), memory=100),  # measured again since
        report("a", 4, SLOW, memory=200),
        report("b", 4, quick, door=door),
        report("b", 3, profile(cost(1, 7.0)), door=DOOR),
        report("c", 4, profile(cost(1, 8.0), machine="c"), pipeline="rain", memory=900),
    ]
    said = work.told(events, "bikes", 4)
    found = work.known(said, 1, None)
    assert (found.profile, found.measured_by) == (SLOW, "replica a")
    assert found.scorer_bytes == 200
    assert found.door
    assert found.door.requests == 1300
    assert found.door.seconds == pytest.approx((1000 * 0.001 + 300 * 0.002) / 1300)


def test_a_call_that_takes_longer_in_service_counts_as_it_is_there() -> None:
    """By what this version's own requests took, if they took more than the trial."""
    mine = DOOR.model_copy(update={"model_seconds": 0.011})
    others = DOOR.model_copy(update={"model_seconds": 0.5})
    events = [report("a", 4, SLOW, mine), report("a", 3, None, others)]
    found = work.known(work.told(events, "bikes", 4), 1, None)
    assert spent_on(found, 1).model == pytest.approx(0.011)  # 9 ms in the trial
    assert spent_on(found, 10).model == pytest.approx(0.020)
    elsewhere = work.told([report("a", 4, SLOW, DOOR)], "bikes", 4)  # other threads
    assert spent_on(work.known(elsewhere, 1, None), 1).model == pytest.approx(0.009)


def test_a_few_requests_say_nothing_of_the_door() -> None:
    few = DoorCost(requests=work.LEAST_REQUESTS - 1, rows=1, seconds=1)
    assert work.told([report("a", 4, SLOW, few)], "bikes", 4).door is None


TRIAL = {
    "p50_ms": 2.0, "p99_ms": 3.0, "hundred_rows_ms": 20.0, "memory_mib": 64.0,
}  # fmt: skip


def test_a_version_that_no_scorer_had_is_sized_by_the_registrys_trial() -> None:
    said = work.told([report("a", 4, SLOW, DOOR)], "bikes", 5)
    found = work.known(said, 1, work.trial_profile(TRIAL))
    assert spent_on(found, 1).model == pytest.approx(0.002)
    assert spent_on(found, 100).model == pytest.approx(0.020)
    assert found.door == DOOR
    with pytest.raises(CommandError, match="measured when a scorer loads it"):
        work.known(said, 1, None)


def test_the_view_shows_the_way_and_what_is_taken_for_granted() -> None:
    demand = Demand(rate=300, within_seconds=0.05, spare=1)
    size = size_for(demand, KNOWN)
    output = io.StringIO()
    shown = views.size_view("bikes", 4, demand, KNOWN, size)
    Console(file=output, width=200).print(shown)
    text = output.getvalue()
    assert f"replicas: {size.scorers}" in text
    assert 'requests: {cpu: "1", memory: 448Mi}' in text
    assert "300 requests a second use 3 processors" in text
    assert "Pollaczek" in text
    assert "as measured on 1,000 requests" in text
    fewest = size_for(Demand(rate=300), KNOWN)
    assert f"99 of 100 answers within 50 ms need {size.busy} scorers" in text
    needed = f"{fewest.busy} would answer them within {fewest.p99_seconds * 1000:.3g}"
    assert needed in text
    guessed = " ".join(views.assumptions(demand, Known(SLOW, "the registry")))
    assert "no scorer has told yet" in guessed


class Installed:
    """An installation whose registry and log are given."""

    bootstrap, store = "", None

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def request(self, method: str, path: str) -> Any:
        if path not in self._answers:
            raise CommandError(f"{method} {path}: {httpx.codes.NOT_FOUND}")
        return self._answers[path]


def test_the_command_sizes_the_champion_or_the_version_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from driftloop.cli.size import command

    answers = {
        "/models/bikes/aliases/champion": {"version": 4, "trial": TRIAL},
        "/models/bikes/versions/5": {"version": 5, "trial": TRIAL},
    }
    monkeypatch.setattr(command, "connect", lambda _: Installed(answers))
    monkeypatch.setattr(work, "read_log", lambda *_: [])
    found = run("size", "bikes", "--rate", "300", "--json").stdout
    assert '"version": 4' in found
    assert '"cpu": "1"' in found
    shown = run("size", "bikes", "--rate", "300", "--version", "5").stdout
    assert "bikes/5 on the registry's" in shown
    with pytest.raises(CommandError, match="an answer by itself takes"):
        run("size", "bikes", "--rate", "300", "--within-ms", "1")
