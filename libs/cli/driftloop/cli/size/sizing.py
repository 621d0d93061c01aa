"""How many scorers a rate of requests needs: processor time first, then waiting.

One scorer answers on one processor. Its requests come independently of each other (a
Poisson process, split at random among the scorers) and are answered one after the
other, so each scorer is a queue M/G/1.

Source: the mean wait is the Pollaczek-Khinchine formula, Kleinrock, Queueing Systems,
volume 1 (1975), chapter 5. The tail of the wait is taken as exponential: with
probability rho nobody is passed at once, then the wait is exponential with the mean
that the formula leaves for it. That is exact for exponential times of service (M/M/1)
and an approximation for others.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from driftloop.contracts.profile import DoorCost, VersionProfile

SHARE = 0.99
"""Of answers that come within the time that is asked for."""
Z99 = NormalDist().inv_cdf(SHARE)
DOOR_SECONDS = 0.0008
"""An answer beside the model's call where no scorer has measured it.

Source: docs/serving.md, "How fast": 0.57 to 0.82 ms for a row of 30 numbers."""
DOOR_ROW_SECONDS = 10e-6
"""A further row of a request: reading, checks, writing.

Source: docs/serving.md, "How many replicas": a row of 30 numbers as JSON."""
LOG_ROW_SECONDS = 15e-6
"""A row written to the log of answers. Source: there, "The log of answers"."""
SCORER_BYTES = 280 * 2**20
"""A scorer without a version, where none has told. Source: "How many replicas"."""
CHILD_BYTES = 160 * 2**20
"""A trial's process without its model, where none has told; likewise."""
MEMORY_STEP = 64 * 2**20


class TooSlow(Exception):  # noqa: N818 - says what is wrong
    """No number of scorers answers so soon: the answer itself takes longer."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes
    ----------
    rate : requests a second, of all scorers together.
    rows : of each request.
    within_seconds : that 99 of 100 answers may take at the scorer; None: any time.
    utilisation : share of a processor's time that may be used.
    spare : scorers that may be away while the others do the work.
    """

    rate: float
    rows: int = 1
    within_seconds: float | None = None
    utilisation: float = 0.6
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What was measured.

    Attributes
    ----------
    measured_by : who made the profile.
    door : what an answer takes beside the model's call; None: nobody has measured it.
    colder_seconds : that a call takes longer in service than in the trial, where the
        processor's caches hold the model and nothing else.
    scorer_bytes : resident memory of a scorer with its versions; None: likewise.
    """

    profile: VersionProfile
    measured_by: str
    door: DoorCost | None = None
    scorer_bytes: int | None = None
    colder_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds of one request.

    Attributes
    ----------
    model, door, log : means of its parts.
    deviation : standard deviation of the whole.
    p99 : that 99 of 100 requests take no longer than.
    """

    model: float
    door: float
    log: float
    deviation: float
    p99: float

    @property
    def mean(self) -> float:
        return self.model + self.door + self.log


@dataclass(frozen=True, slots=True)
class Size:
    """What is needed.

    Attributes
    ----------
    busy : scorers that do the work; ``scorers`` has the spare ones too.
    utilisation : of each, while the spare ones are away.
    wait_seconds, p99_seconds : mean wait, and answers with it.
    memory_bytes : of each scorer, with a second version beside the first.
    """

    busy: int
    scorers: int
    utilisation: float
    wait_seconds: float
    p99_seconds: float
    memory_bytes: int
    spent: Spent


def size_for(demand: Demand, known: Known) -> Size:
    """Return the fewest scorers that are used no more, and answer as soon, as asked.

    Raises
    ------
    TooSlow
        When an answer that waits for no other takes too long already.
    """
    spent = spent_on(known, demand.rows)
    within = math.inf if demand.within_seconds is None else demand.within_seconds
    if spent.p99 > within:
        raise TooSlow(
            f"an answer by itself takes {spent.p99 * 1000:.3g} ms (99 of 100), more "
            f"than {within * 1000:.3g} ms; more scorers do not change that: allow more "
            "time, ask for fewer rows at once, or take a smaller model"
        )
    busy = max(1, math.ceil(demand.rate * spent.mean / demand.utilisation))
    while spent.p99 + wait_p99(demand.rate / busy, spent) > within:
        busy += 1
    each = demand.rate / busy
    return Size(
        busy=busy,
        scorers=busy + demand.spare,
        utilisation=each * spent.mean,
        wait_seconds=mean_wait(each, spent.mean, spent.deviation),
        p99_seconds=spent.p99 + wait_p99(each, spent),
        memory_bytes=memory_for(known, demand.rows),
        spent=spent,
    )


def spent_on(known: Known, rows: int) -> Spent:
    """Return what a request of so many rows takes.

    The model's median stands for its mean, and its distance to the 99th percentile for
    2.33 standard deviations, as with a normal distribution. The door's spread is not
    measured: its standard deviation is taken to be as large as its mean.
    """
    costs = known.profile.batches
    middle = call_seconds(known.profile, rows) + known.colder_seconds
    high = _between([(cost.rows, cost.p99_seconds) for cost in costs], rows)
    high = max(middle, high + known.colder_seconds)
    door = door_seconds(known.door, rows)
    log = rows * LOG_ROW_SECONDS
    return Spent(
        model=middle,
        door=door,
        log=log,
        deviation=math.hypot((high - middle) / Z99, door),
        p99=high + door * -math.log(1 - SHARE) + log,
    )


def call_seconds(profile: VersionProfile, rows: int) -> float:
    """Return what a call with so many rows takes, the median of the trial."""
    return _between([(c.rows, c.p50_seconds) for c in profile.batches], rows)


def door_seconds(door: DoorCost | None, rows: int) -> float:
    """Return what a request of so many rows takes beside the model's call.

    What was measured counts for as many rows as were asked about then, and for fewer;
    each row more costs :data:`DOOR_ROW_SECONDS`.
    """
    measured, at = (DOOR_SECONDS, 1.0) if door is None else (door.seconds, door.rows)
    return measured + max(0.0, rows - at) * DOOR_ROW_SECONDS


def mean_wait(rate: float, mean: float, deviation: float) -> float:
    """Return the mean wait of a queue M/G/1, in seconds; see the module.

    Parameters
    ----------
    rate : arrivals a second.
    mean, deviation : of the time of service, in seconds.

    Examples
    --------
    Exponential times of 0.1 s at 5 a second wait as long as they take:

    >>> round(mean_wait(5, 0.1, 0.1), 6)
    0.1
    """
    load = rate * mean
    if load >= 1:
        return math.inf
    return rate * (mean**2 + deviation**2) / (2 * (1 - load))


def wait_p99(rate: float, spent: Spent) -> float:
    """Return the wait that 99 of 100 requests do not exceed, in seconds."""
    load = rate * spent.mean
    if load <= 1 - SHARE:
        return 0.0
    wait = mean_wait(rate, spent.mean, spent.deviation)
    return wait / load * math.log(load / (1 - SHARE))


def memory_for(known: Known, rows: int) -> int:
    """Return the memory that a scorer needs in a rollout, in whole steps.

    That is itself with what it has in memory, a second version of the same size, and
    the process in which that one is tried before.
    """
    profile = known.profile
    model = _between([(c.rows, float(c.memory_bytes)) for c in profile.batches], rows)
    itself = known.scorer_bytes or SCORER_BYTES + model
    trial = (profile.child_bytes or CHILD_BYTES) + model
    return math.ceil((itself + model + trial) / MEMORY_STEP) * MEMORY_STEP


def _between(points: list[tuple[int, float]], rows: int) -> float:
    """Return the value at so many rows, on straight lines between the points.

    Beyond the last point the last line goes on; a single point grows with the rows.

    >>> _between([(1, 1.0), (10, 10.0)], 4), _between([(1, 1.0), (10, 10.0)], 20)
    (4.0, 20.0)
    >>> _between([(1, 2.0)], 3)
    6.0
    """
    if len(points) == 1:
        only, value = points[0]
        return value * max(1.0, rows / only)
    place = next((n for n, (x, _) in enumerate(points) if x >= rows), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(0, place - 1)], points[max(1, place)]
    return y0 + max(0.0, y1 - y0) * (rows - x0) / (x1 - x0)
