"""Alerts over REST: who may read, acknowledge, silence and try channels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.alerting import AlertsSection
from driftloop.contracts.alerts import AlertDelivered
from driftloop.contracts.base import Chain, Meta
from driftloop.registry.alerting.channels import Sender
from driftloop.registry.alerting.rest import Alerting, alert_routes
from driftloop.registry.alerting.secrets import Secrets
from driftloop.registry.alerting.seeing import Sight
from driftloop.registry.egress import Egress
from driftloop.registry.rest import ApiRouter, Context

from tests.unit.registry import test_resources
from tests.unit.registry.alerts import FAULT, raised
from tests.unit.registry.story import NAME
from tests.unit.registry.test_resources import Client
from tests.unit.scorer.packages import Factory

STANDARD = AlertsSection.model_validate(
    {"channels": {"team": {"kind": "slack", "url_secret": "none"}}}
)


class Installation(test_resources.Installation):
    """The short life's registry, with the routes about alerts."""

    def __init__(self, folder: Path, factory: Factory) -> None:
        super().__init__(folder, factory)
        context = Context(
            self.engine,
            self.settings,
            self,  # type: ignore[arg-type]  # publishes to the handlers
            self.deps.pipelines,
            lambda _ref, _name: None,
            lambda _topic, _partition, _offset: None,
        )
        sight = Sight(self.engine, list, STANDARD)
        sender = Sender(Egress([], ["https"]), Secrets({}), None)
        router = ApiRouter(prefix="/api/v1")
        alerting = Alerting(sight, sender, "https://loop.example.org")
        router.include_router(alert_routes(context, alerting))
        self._app.include_router(router)

    def say(self, event: Any, event_id: str, minutes: float = 0) -> None:
        at = datetime.now(UTC) - timedelta(hours=1) + timedelta(minutes=minutes)
        self.take(event.with_meta(Meta(event_id, at, "/test", Chain(event_id))))


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def place(tmp_path: Path, factory: Factory) -> Iterator[Installation]:
    found = Installation(tmp_path, factory)
    for number in range(3):
        found.say(raised(f"c{number}"), f"a{number}", number)
    found.say(raised("c0"), "again", 10)
    yield found
    found.close()


@pytest.fixture
def engineer(place: Installation) -> Client:
    return place.client("ann", "ml_infra_engineer")


def test_newest_first_page_by_page(place: Installation, engineer: Client) -> None:
    found = engineer.every("/alerts", 2)
    assert [item["alert_id"] for item in found] == ["a2", "a1", "a0"]
    assert [item["repeat_count"] for item in found] == [0, 0, 1]
    assert found[0]["channels"] == ["team"]
    assert found[0]["console"] == f"https://loop.example.org/#{NAME}"
    assert engineer.get(f"/alerts?pipeline={NAME}&state=over")["items"] == []
    assert engineer.get("/alerts/again")["alert_id"] == "a0"  # one of its ids
    assert engineer.refused("/alerts/none")[0] == 404


def test_somebody_looks_after_it(place: Installation, engineer: Client) -> None:
    """Once; the same key again is the same; the list tells who."""
    sent = {"json": {"note": "mine"}, "headers": {"Idempotency-Key": "k"}}
    path = "/alerts/again/acknowledge"
    for _ in range(2):
        answer = engineer.ask(path, "POST", **sent)
        assert answer.status_code == 200, answer.text
        assert answer.json()["acknowledged_by"] == "ann"
    status, title = engineer.refused(path, "POST", json={})
    assert (status, title) == (409, "ann has acknowledged it already")
    found = engineer.get("/alerts?state=acknowledged")["items"]
    assert [item["alert_id"] for item in found] == ["a0"]


def test_who_may(place: Installation) -> None:
    """Readers read; who attends acknowledges; only who operates tries channels."""
    approver, scientist = (
        place.client("eve", "approver"),
        place.client("sam", "data_scientist"),
    )
    assert len(approver.get("/alerts")["items"]) == 3
    assert approver.refused("/alerts/a1/acknowledge", "POST", json={})[0] == 403
    done = scientist.ask("/alerts/a1/acknowledge", "POST", json={})
    assert done.status_code == 200
    other = place.client("max", "ml_infra_engineer@elsewhere")
    assert other.refused("/alerts/a2")[0] == 403
    assert other.refused("/alerts/a2/acknowledge", "POST", json={})[0] == 403
    assert other.get("/alerts")["items"] == []
    test = {"json": {"channel": "team"}}
    path = f"/pipelines/{NAME}/alerts/test"
    assert scientist.refused(path, "POST", **test)[0] == 403
    tried = place.client("ann", "ml_infra_engineer").ask(path, "POST", **test)
    assert tried.json()["outcome"] == "failed"
    assert "there is no secret 'none'" in tried.json()["detail"]


def test_silences(place: Installation, engineer: Client) -> None:
    """Begun, shown at the alerts that wait, ended by anybody who attends."""
    path = f"/pipelines/{NAME}/silences"
    until = datetime.now(UTC) + timedelta(hours=2)
    body = {"condition": "c1", "until": until.isoformat(), "reason": "exchanged"}
    made = engineer.ask(path, "POST", json=body).json()
    assert (made["is_active"], made["by"]) == (True, "ann")
    waits = {a["alert_id"]: a["waits_for"] for a in engineer.get("/alerts")["items"]}
    assert "silenced by ann" in waits["a1"]
    assert waits["a0"] is None
    bob = place.client("bob", "data_engineer")
    ended = bob.ask(f"{path}/{made['silence_id']}", "DELETE").json()
    assert ended["is_active"] is False
    assert [s["is_active"] for s in engineer.get("/silences")["items"]] == [False]
    assert engineer.refused(f"{path}/none", "DELETE")[0] == 404
    for wrong in (datetime.now(UTC), datetime.now(UTC) + timedelta(days=31)):
        sent = {**body, "until": wrong.isoformat()}
        assert engineer.refused(path, "POST", json=sent)[0] == 422


def test_whom_it_was_told(place: Installation, engineer: Client) -> None:
    told = AlertDelivered(
        pipeline=NAME, alert_id="a1", condition=FAULT, notice_id="n", reason="raised",
        channel="team", outcome="given_up", attempts=7, detail="HTTP 500",
    )  # fmt: skip
    place.say(told, "told", 20)
    (notice,) = engineer.get("/alerts/a1")["notices"]
    assert (notice["outcome"], notice["attempts"]) == ("given_up", 7)
