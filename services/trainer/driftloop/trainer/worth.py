"""Is a training worth it? What waiting loses against what acting costs; pure.

What the model in service loses now is set against what a fresh one may be expected to
lose: what the version in service lost in its own first window of rows. Losses have
seasons, and a training does not cure those: where a year more is known, the expected
loss goes with the season, by the ratio of the losses at the same two times of the year
before. Only what is left counts, for as many rows as come within the horizon.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from driftloop.contracts.events import PerformanceMeasured
from driftloop.contracts.retraining import CostSection

DAY_S = 86_400
YEAR_DAYS = 365
SEASON_DAYS = 14
"""To either side of the day a year before: what counts as the same season."""
KEPT_DAYS = 2 * YEAR_DAYS + 2 * SEASON_DAYS
MIN_SEASON_ROWS = 30
"""Fewer rows a year before and their mean says nothing; as the gate's hold-out."""


@dataclass(frozen=True)
class DayLoss:
    """Losses of the rows of one day.

    Attributes
    ----------
    day : since 1970, in UTC.
    total : sum of the rows' losses (squared errors for ``rmse``).
    """

    day: int
    row_count: int
    total: float


@dataclass(frozen=True)
class LossMemory:
    """What is remembered of the losses of what was in service.

    Attributes
    ----------
    days : oldest first, :data:`KEPT_DAYS` at most.
    version : that is in service.
    first_rows, first_total : of its first window, up to now.
    fresh : mean loss of a row in the last full first window; None: there was none.
    fresh_day : on which that window ended.
    """

    days: tuple[DayLoss, ...] = ()
    version: int = 0
    first_rows: int = 0
    first_total: float = 0.0
    fresh: float | None = None
    fresh_day: int = 0


@dataclass(frozen=True)
class Worth:
    """The sum: a training is worth it, or not, and why.

    Attributes
    ----------
    gain, cost : in the unit of the section; None: it is not known what it gains.
    """

    is_worth_it: bool
    gain: float | None
    cost: float
    text: str


def remembered(
    memory: LossMemory | None, event: PerformanceMeasured, cost: CostSection
) -> LossMemory | None:
    """Add a measurement of the champion; without a cost nothing is kept."""
    champion = next((m for m in event.measurements if m.role == "champion"), None)
    if cost.loss_unit_value is None or champion is None:
        return memory
    memory = memory or LossMemory()
    rows = event.row_count
    total = rows * (champion.value**2 if champion.metric == "rmse" else champion.value)
    day = int(event.span.end.timestamp()) // DAY_S
    memory = replace(memory, days=_with_day(memory.days, DayLoss(day, rows, total)))
    if champion.version != memory.version:
        memory = replace(
            memory, version=champion.version, first_rows=0, first_total=0.0
        )
    if memory.first_rows >= cost.window_rows:
        return memory
    memory = replace(
        memory,
        first_rows=memory.first_rows + rows,
        first_total=memory.first_total + total,
    )
    if memory.first_rows >= cost.window_rows:
        fresh = memory.first_total / memory.first_rows
        memory = replace(memory, fresh=fresh, fresh_day=day)
    return memory


def _with_day(days: Sequence[DayLoss], new: DayLoss) -> tuple[DayLoss, ...]:
    """Return the days with a few rows more; late rows go to their own day."""
    found = {day.day: day for day in days}
    before = found.get(new.day, DayLoss(new.day, 0, 0.0))
    found[new.day] = DayLoss(
        new.day, before.row_count + new.row_count, before.total + new.total
    )
    newest = max(found)
    return tuple(found[day] for day in sorted(found) if day > newest - KEPT_DAYS)


def weigh(memory: LossMemory | None, cost: CostSection) -> Worth | None:
    """Return whether a training is worth it now; None: the pipeline weighs nothing.

    Where it is not known yet what a training gains, nothing is held back.
    """
    if cost.loss_unit_value is None:
        return None
    price = cost.training + cost.rollout
    if memory is None or memory.fresh is None or not memory.days:
        text = (
            "what a training gains is not known yet: no version has been in service "
            f"for retrain.cost.window_rows {cost.window_rows} labelled rows"
        )
        return Worth(True, None, price, text)
    recent, rows_a_day = _recent(memory.days, cost.window_rows)
    season = _season(memory)
    expected = memory.fresh * season
    per_row = max(0.0, recent - expected)
    gain = per_row * rows_a_day * cost.horizon_days * cost.loss_unit_value
    unit = f" {cost.unit}" if cost.unit else ""
    by_season = f" (by the season {season:.2f} times {memory.fresh:.4g})"
    text = (
        f"a row loses {recent:.4g} now, {expected:.4g} are expected after a training"
        f"{by_season if season != 1.0 else ''}; {per_row:.4g} less x {rows_a_day:.4g} "
        f"rows a day x {cost.horizon_days:g} days x {cost.loss_unit_value:g}{unit} = "
        f"{gain:.4g}{unit}, and a training with its rollout costs {price:.4g}{unit}"
    )
    return Worth(gain > price, gain, price, text)


def _recent(days: Sequence[DayLoss], window_rows: int) -> tuple[float, float]:
    """Return the mean loss of the newest rows, and how many come a day."""
    rows, total, first = 0, 0.0, days[-1].day
    for day in reversed(days):
        rows, total, first = rows + day.row_count, total + day.total, day.day
        if rows >= window_rows:
            break
    return total / rows, rows / (days[-1].day - first + 1)


def _season(memory: LossMemory) -> float:
    """Return the ratio of the losses a year before the two times; 1: not known."""
    then = _around(memory.days, memory.days[-1].day - YEAR_DAYS)
    usual = _around(memory.days, memory.fresh_day - YEAR_DAYS)
    if then is None or not usual:
        return 1.0
    return then / usual


def _around(days: Sequence[DayLoss], middle: int) -> float | None:
    """Return the mean loss of a season; None: too few rows are known of it."""
    near = [day for day in days if abs(day.day - middle) <= SEASON_DAYS]
    rows = sum(day.row_count for day in near)
    if rows < MIN_SEASON_ROWS:
        return None
    return sum(day.total for day in near) / rows
