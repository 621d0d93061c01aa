"""What the registry does with events about alerts: it remembers them."""

from collections.abc import Iterator

from driftloop.contracts.alerts import (
    AlertAcknowledged,
    AlertDelivered,
    AlertResolved,
    AlertsSilenced,
)
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised
from driftloop.registry.alerting.tables import note
from driftloop.runtime.handlers import Deps


def on_alert_raised(event: AlertRaised, deps: Deps) -> Iterator[Event]:
    note(deps.session, event)
    yield from ()


def on_alert_resolved(event: AlertResolved, deps: Deps) -> Iterator[Event]:
    note(deps.session, event)
    yield from ()


def on_alert_acknowledged(event: AlertAcknowledged, deps: Deps) -> Iterator[Event]:
    note(deps.session, event)
    yield from ()


def on_alerts_silenced(event: AlertsSilenced, deps: Deps) -> Iterator[Event]:
    note(deps.session, event)
    yield from ()


def on_alert_delivered(event: AlertDelivered, deps: Deps) -> Iterator[Event]:
    note(deps.session, event)
    yield from ()
