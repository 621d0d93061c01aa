"""What trainings have cost in a window of event time: pure functions."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from driftloop.contracts.retraining import BudgetSection
from driftloop.trainer.facts import Spent

MINUTE_S = 60.0


def budget_end(
    spent: Sequence[Spent], budget: BudgetSection, now: datetime
) -> datetime | None:
    """Return when the budget allows the next training; None: now.

    A job counts from the newest row that it learned from, for ``budget.days``.

    Parameters
    ----------
    now : the newest labelled row, not the wall clock.
    """
    window = timedelta(days=budget.days)
    counted = sorted(
        (job for job in spent if job.data_end > now - window),
        key=lambda job: job.data_end,
    )
    ends = []
    if budget.trainings is not None and len(counted) >= budget.trainings:
        ends.append(counted[-budget.trainings].data_end + window)
    if budget.cpu_minutes is not None:
        used = sum(job.cpu_seconds for job in counted) / MINUTE_S
        for job in counted:
            if used < budget.cpu_minutes:
                break
            used -= job.cpu_seconds / MINUTE_S
            ends.append(job.data_end + window)
    return max(ends, default=None)


def cost_text(spent: Sequence[Spent], budget: BudgetSection, now: datetime) -> str:
    """Say what was spent in the window, beside what may be."""
    start = now - timedelta(days=budget.days)
    counted = [job for job in spent if job.data_end > start]
    parts = []
    if budget.trainings is not None:
        parts.append(f"{len(counted)} of {budget.trainings} trainings")
    if budget.cpu_minutes is not None:
        used = sum(job.cpu_seconds for job in counted) / MINUTE_S
        parts.append(f"{used:.1f} of {budget.cpu_minutes:g} minutes of CPU")
    return f"{' and '.join(parts)} in {budget.days:g} days"
