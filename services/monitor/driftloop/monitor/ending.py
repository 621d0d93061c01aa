"""Alerts about a version in service end with its service; pure."""

from collections.abc import Sequence
from datetime import datetime

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised
from driftloop.monitor.state import Watch


def noted(watch: Watch, events: Sequence[Event]) -> Watch:
    """Remember which alerts go on with the version in service.

    Those of faults do not: they go on with the values.
    """
    of_faults = {fault.condition for fault in watch.faults}
    new = [
        event.condition
        for event in events
        if isinstance(event, AlertRaised)
        and event.can_end
        and event.condition not in of_faults
    ]
    if not new:
        return watch
    return watch.model_copy(update={"open_alerts": (*watch.open_alerts, *new)})


def over(
    watch: Watch, version: int | None, at: datetime, owner: str | None
) -> list[AlertResolved]:
    """Return what ends when another version, or none, is in service.

    Parameters
    ----------
    at : when that was, by the clock of the deployer.
    """
    now = f"version {version} is" if version else "no version is"
    return [
        AlertResolved(
            pipeline=watch.pipeline,
            condition=condition,
            at=at,
            why=f"It was about another version; {now} in service now.",
            owner=owner,
        )
        for condition in (
            *watch.open_alerts,
            *(trouble.condition for trouble in watch.troubles),
        )
    ]
