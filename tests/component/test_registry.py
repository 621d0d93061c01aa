"""The registry as a process: from a trained model to an approved version."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.base import Event, derived_id
from driftloop.contracts.events import (
    AlertRaised,
    ApprovalExpired,
    ApprovalGiven,
    ApprovalReminded,
    ApprovalRequested,
    ModelApproved,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ModelTrained,
    PipelineApplied,
    PromotionSteered,
    RetrainRequested,
    RolloutAdvanced,
    RolloutSteered,
    ServedModel,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.cli import run_cli
from tests.component.processes import Log, ServiceProcess, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]


class Installation:
    """A broker, a registry process, and the trainer's side played by the test."""

    def __init__(self, node: KafkaNode, home: Path) -> None:
        create_topics(node.bootstrap)
        self.broker = node.bootstrap
        self.factory = Factory(home)
        self.log = Log(node.bootstrap, home)
        self.home = home
        self.registry = ServiceProcess("registry", home, node.bootstrap)


class World:
    """One test's pipeline in the installation."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.name = name
        self.path = f"/api/v1/models/{name}"
        self.home, self.log = installation.home, installation.log
        self.registry, self.client = installation.registry, installation.registry.client
        self._factory = installation.factory

    def apply(self, **pipeline: Any) -> None:
        spec = story.spec(name=self.name, **pipeline)
        event = PipelineApplied(pipeline=self.name, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, str(uuid.uuid4())))

    def trained(self, job: str, *args: Any, **options: Any) -> ModelTrained:
        """Write a package; return the event about it."""
        return story.trained(self._factory, job, *args, pipeline=self.name, **options)

    def train(self, job: str, *args: Any, **options: Any) -> str:
        """Publish a trained model; return the event's id."""
        event = self.trained(job, *args, **options)
        self.log.publish(event)
        return event.meta.id

    def read(self, *wanted: type[Event]) -> list[Any]:
        return self.log.read(*wanted, pipeline=self.name)

    def versions(self) -> list[dict[str, Any]]:
        answer = self.client.get(f"{self.path}/versions")
        items: list[dict[str, Any]] = answer.json().get("items", [])
        return items

    def state(self, version: int) -> str:
        states = {item["version"]: item["state"] for item in self.versions()}
        return str(states.get(version, "unknown"))

    def post(self, path: str, **options: Any) -> Any:
        return self.client.post(f"{self.path}/{path}", **options)

    def wait_for(self, version: int, state: str) -> None:
        wait_until(lambda: self.state(version) == state, 120)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("registry")
    with KafkaNode(folder / "kafka") as node:
        found = Installation(node, folder / "home")
        with found.registry:
            yield found
        found.log.close()


@pytest.fixture
def world(installation: Installation, unique_name: Callable[[str], str]) -> World:
    return World(installation, unique_name("bikes"))


def decision(by: str, reason: str = "looks right", **more: Any) -> dict[str, Any]:
    return {"json": {"by": by, "reason": reason, **more}}


def test_full_automation_needs_no_hand(world: World) -> None:
    """A good model is approved by the gate; a poor, false or forged one is not."""
    world.apply()
    first = world.train("one")
    world.train("two", story.worse())
    world.train("three", expected=12.0)
    forged = world.trained("four")
    better = forged.evaluation.model_copy(update={"candidate": 1.0})
    world.log.publish(forged.model_copy(update={"evaluation": better}))
    world.log.publish(story.named(world.trained("one"), f"again-{world.name}"))
    world.wait_for(4, "rejected")

    states = {item["version"]: item["state"] for item in world.versions()}
    assert states == {1: "approved", 2: "rejected", 3: "rejected", 4: "rejected"}
    approved = world.read(ModelApproved)
    assert [(e.version, e.approved_by) for e in approved] == [(1, ["gate"])]
    assert approved[0].meta.chain.id == f"chain-{first}"
    assert approved[0].meta.id == derived_id(first, "model-approved", 0)
    reasons = {e.version: "; ".join(e.reasons) for e in world.read(ModelRejected)}
    assert "significantly_better" in reasons[2]
    assert "sample 0" in reasons[3]
    assert "differ in evaluation" in reasons[4]

    steering = {"action": "hold", "requested_by": "ada", "reason": "holidays"}
    asked = world.post("rollout", json=steering | {"version": 1})
    assert asked.status_code == 202
    (event,) = world.read(RolloutSteered)
    assert event.meta.id == asked.json()["event_id"]
    assert (event.action, event.version, event.reason) == ("hold", 1, "holidays")
    none = world.post("rollout", json=steering | {"version": 2})
    assert none.status_code == 409
    assert "version 2 is rejected" in none.json()["title"]


def test_worse_on_a_slice_is_rejected_with_the_comparison(world: World) -> None:
    """Where the file names the slice; the card can be read all the same."""
    world.apply(gate={"slices": ["sky"]})
    world.train("one", story.worse_on_a_slice())
    world.wait_for(1, "rejected")
    [rejected] = world.read(ModelRejected)
    assert rejected.reasons == [
        "no_slice_worse: worse on sky rain: mae 95 against 60 on 80 rows (p = 0.002)"
    ]
    assert "mae 40 against champion v1 80 on 400 hold-out rows" in rejected.comparison
    detail = world.client.get(f"{world.path}/versions/1").json()
    assert detail["trial"]["p50_ms"] <= detail["trial"]["p99_ms"]

    card = f"{world.path}/versions/1/card"
    assert world.client.get(card).json() == {"a": "card"}
    page = world.client.get(card, headers={"Accept": "text/html,*/*"})
    assert "A card" in page.text
    assert page.headers["vary"] == "Accept"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert world.client.get(f"{card}.html").text == page.text
    assert world.client.get(f"{card}.json").json() == {"a": "card"}
    assert world.client.get(f"{world.path}/versions/7/card").status_code == 404

    bom = world.client.get(f"{world.path}/versions/1/bom")
    assert bom.json() == {"bomFormat": "CycloneDX"}
    assert bom.headers["content-type"] == "application/vnd.cyclonedx+json; version=1.6"
    assert world.client.get(f"{world.path}/versions/7/bom").status_code == 404


def test_a_person_decides_by_rest(world: World) -> None:
    """Wrong package, author, twice by one, late: each is answered, none counts."""
    world.apply(automation="approve", people=2)
    world.train("one", requested_by="Eve")
    world.wait_for(1, "awaiting_approval")

    wrong = world.post("versions/1/approve", **decision("ann", package_digest="0" * 64))
    assert wrong.status_code == 409
    assert "is about package" in wrong.json()["title"]
    own = world.post("versions/1/approve", **decision("eve"))
    assert own.status_code == 409
    key = {"Idempotency-Key": "ann-1"}
    first = world.post("versions/1/approve", headers=key, **decision("ann"))
    assert (first.status_code, first.json()["state"]) == (200, "awaiting_approval")
    again = world.post("versions/1/approve", headers=key, **decision("ann"))
    assert again.status_code == 200
    twice = world.post("versions/1/approve", **decision("Ann ", "still"))
    assert twice.status_code == 409
    second = world.post("versions/1/approve", **decision("bob"))
    assert (second.status_code, second.json()["state"]) == (200, "approved")
    late = world.post("versions/1/reject", **decision("cid", "no"))
    assert late.status_code == 409
    assert "is approved" in late.json()["title"]
    assert world.post("versions/9/approve", **decision("ann")).status_code == 404

    assert [e.approved_by for e in world.read(ModelApproved)] == [["ann", "bob"]]
    given = world.read(ApprovalGiven)
    assert {e.meta.chain.id for e in given} == {f"chain-trained-{world.name}-one"}
    lineage = world.client.get(f"{world.path}/versions/1")
    assert [a["by"] for a in lineage.json()["approvals"]] == ["ann", "bob"]
    tag = {"If-None-Match": lineage.headers["etag"]}
    same = world.client.get(f"{world.path}/versions/1", headers=tag)
    assert same.status_code == 304


def test_a_request_that_nobody_decides_expires(world: World) -> None:
    """Killed in between; a late yes is told what to do; asked again, it is approved."""
    terms = {"people": 2, "expires_after": "3s", "remind_after": ["1s"]}
    world.apply(automation="approve", rollout={"approval": terms})
    world.train("one")
    wait_until(lambda: world.state(1) in {"awaiting_approval", "expired"}, 120)
    said = world.post("versions/1/approve", **decision("ann"))
    if said.status_code == 200:  # else the machine took longer than three seconds
        assert said.json()["approval_request"]["progress"] == "1 of 2"
    world.registry.kill()
    world.registry.start()
    world.wait_for(1, "expired")
    late = world.post("versions/1/approve", **decision("bob"))
    assert late.status_code == 409
    assert "expired at" in late.json()["title"]
    assert "driftloop request-approval" in late.json()["title"]
    assert [e.request for e in world.read(ApprovalExpired)] == [1]
    assert len(world.read(ApprovalReminded)) <= 1  # the end may be quicker
    [alert] = world.read(AlertRaised)
    assert "expired" in alert.title
    assert [e.rejected_by for e in world.read(ModelRejected)] == ["expiry"]

    terms = {"people": 2, "expires_after": "never"}
    world.apply(automation="approve", rollout={"approval": terms})
    wait_until(lambda: _terms(world) == "never", 120)
    again = {
        "headers": {"Idempotency-Key": "again"},
        "json": {"requested_by": "dan", "reason": "everybody was away"},
    }
    for _ in range(2):  # the second is a repeat
        asked = world.post("versions/1/request-approval", **again)
        assert asked.status_code == 200, asked.text
        assert asked.json()["state"] == "awaiting_approval"
        assert asked.json()["approval_request"]["request"] == 2
    other = world.post("versions/1/request-approval", json=again["json"])
    assert other.status_code == 409
    assert "waits for approval already" in other.json()["title"]
    first = world.post("versions/1/approve", **decision("ann", "again"))
    assert first.json()["approval_request"]["said_yes"] == ["ann"]
    second = world.post("versions/1/approve", **decision("bob", "again"))
    assert second.json()["state"] == "approved"
    assert [e.approved_by for e in world.read(ModelApproved)] == [["ann", "bob"]]
    assert [e.request for e in world.read(ApprovalRequested)] == [1, 2]


def test_people_at_the_command_line(installation: Installation, world: World) -> None:
    """Asked again, and two roles say yes; each answer says who is missing."""

    def say(command: str, by: str) -> str:
        about = (command, f"{world.name}/1", "--by", by, "--reason", "fine")
        url = installation.registry.url
        return run_cli(world.home, installation.broker, *about, REGISTRY_URL=url)

    def ask(expires_after: str) -> None:
        terms = {"also": {"compliance": 1}, "expires_after": expires_after}
        world.apply(automation="approve", rollout={"approval": terms})
        wait_until(lambda: _terms(world) == expires_after, 120)

    ask("1s")
    world.train("one")
    world.wait_for(1, "expired")
    ask("never")
    both = "1 approver and 1 compliance said yes"
    assert f"0 of {both}" in say("request-approval", "dan")
    assert f"1 of {both} (ann)" in say("approve", "ann")
    assert "approved" in say("approve", "bob")
    [request, *_] = reversed(world.read(ApprovalRequested))
    assert (request.request, request.also) == (2, {"compliance": 1})


def _terms(world: World) -> str:
    items = world.client.get("/api/v1/pipelines").json()["items"]
    spec = next(item["spec"] for item in items if item["name"] == world.name)
    terms: str = spec["rollout"]["approval"]["expires_after"]
    return terms


def test_contradicting_decisions_at_once(world: World) -> None:
    """Approval and rejection in the same moment: one holds, both are in the history."""
    world.apply(automation="approve")
    world.train("one")
    world.wait_for(1, "awaiting_approval")
    answers: dict[str, int] = {}

    def decide(what: str, by: str) -> None:
        answers[what] = world.post(f"versions/1/{what}", **decision(by)).status_code

    threads = [
        threading.Thread(target=decide, args=pair)
        for pair in (("approve", "ann"), ("reject", "bob"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert sorted(answers.values()) == [200, 409]
    held = "approved" if answers["approve"] == 200 else "rejected"
    assert world.state(1) == held
    assert len(world.read(ModelApproved, ModelRejected)) == 1


def test_killed_between_publish_and_apply(world: World) -> None:
    """A decision that the log has is applied once, whatever was killed."""
    world.apply(automation="approve")
    world.train("one")
    world.wait_for(1, "awaiting_approval")
    asked = world.read(ApprovalRequested)
    world.registry.kill()
    digest = asked[0].package.digest
    given = ApprovalGiven(
        pipeline=world.name,
        version=1,
        decision="approve",
        by="ann",
        reason="fine",
        package_digest=digest,
    )
    world.log.publish(with_id(given, world.name), with_id(given, world.name))
    world.train("two")
    world.registry.start(wait=False)
    world.registry.kill()  # somewhere in its start
    world.registry.start()
    world.wait_for(1, "approved")
    world.wait_for(2, "awaiting_approval")
    assert len(world.read(ModelApproved)) == 1
    assert len(world.read(ModelRegistered)) == 2


def test_rebuilt_from_the_log(world: World) -> None:
    """Without its database the registry comes to the same answers and ids."""
    world.apply(automation="approve")
    world.train("one")
    world.wait_for(1, "awaiting_approval")
    world.post("versions/1/approve", **decision("ann"))
    deployed = ModelDeployed(
        pipeline=world.name,
        rollout_id="r",
        version=1,
        package=world.trained("one").package,
        generation=2,
    )
    world.log.publish(with_id(deployed, f"deployed-{world.name}"))
    world.train("two", story.worse())
    world.wait_for(2, "rejected")
    world.wait_for(1, "deployed")
    before = [world.client.get(f"{world.path}/versions/1").json(), world.versions()]
    said = {e.meta.id for e in world.read()}

    assert world.registry.stop() == 0
    for file in (world.home / "databases").iterdir():
        file.unlink()
    world.apply(automation="full", gate={"confidence": 0.5})  # must not matter
    world.registry.start()
    world.wait_for(1, "deployed")
    world.wait_for(2, "rejected")

    after = [world.client.get(f"{world.path}/versions/1").json(), world.versions()]
    for figure in ("latency_p99_ms", "trial"):  # of a machine, not of the log
        before[0].pop(figure)
        after[0].pop(figure)
    assert after == before
    new = {e.meta.id for e in world.read()} - said
    assert len(new) == 1  # the second pipeline-applied; see Log.read on repeats


def test_as_it_was_then(world: World) -> None:
    """By time and by position in the log; who answered when, who let it, and why."""
    world.apply(automation="approve")
    world.train("one")
    world.wait_for(1, "awaiting_approval")
    asked = world.post("versions/1/approve", **decision("ann", "right on the bikes"))
    approved_at = asked.json()["approvals"][0]["at"]
    second = world.trained("two")
    world.log.publish(second.with_meta(replace(second.meta, time=datetime.now(UTC))))
    world.wait_for(2, "awaiting_approval")
    one, two = (world.trained(job).package for job in ("one", "two"))
    common = {"pipeline": world.name, "rollout_id": "r"}
    changes: list[Event] = [
        ModelDeployed(version=1, package=one, generation=1, **common),
        ModelDeployed(version=2, package=two, generation=2, **common),
        ModelRolledBack(
            version=2,
            generation=2,
            restored=ServedModel(version=1, package=one),
            reason="ann asked for it: errors",
            **common,
        ),
    ]
    world.post("versions/2/approve", **decision("bob"))
    for number, change in enumerate(changes):
        world.log.publish(with_id(change, f"{world.name}-{number}"))
    world.wait_for(2, "rolled_back")

    terms = world.client.get(f"{world.path}/service").json()["items"]
    assert [t["version"] for t in terms] == [1, 2, 1]
    assert [t["approved_by"] for t in terms] == [["ann"], ["bob"], ["ann"]]
    assert [t["event_id"] for t in terms] == [f"{world.name}-{n}" for n in range(3)]
    assert terms[0]["until"] == terms[1]["since"]
    assert terms[2]["until"] is None
    assert "against champion" in terms[0]["why"]
    assert terms[2]["why"] == "ann asked for it: errors"

    def then(path: str, at: str) -> Any:
        return world.client.get(f"{world.path}/{path}", params={"at": at})

    champion = then("aliases/champion", terms[1]["since"]).json()
    assert (champion["version"], champion["state"]) == (2, "deployed")
    assert then("versions/1", approved_at).json()["state"] == "approved"
    items = then("versions", approved_at).json()["items"]
    assert [item["version"] for item in items] == [1]
    assert then("versions/2", approved_at).status_code == 404
    assert then("aliases/champion", approved_at).status_code == 404
    assert len(then("service", terms[1]["since"]).json()["items"]) == 2

    deployed = world.read(ModelDeployed)[1].meta
    position = f"{deployed.topic}/{deployed.partition}/{deployed.offset}"
    assert then("aliases/champion", position).json()["version"] == 2
    assert then("versions", "model-deployed/0/99999").status_code == 404
    assert then("versions", "nothing/0/1").status_code == 404
    for wrong in ("yesterday", "2026-11-26T08:00:00", "model-deployed/0"):
        answer = then("versions", wrong)
        assert answer.status_code == 422
        assert "nor a position in the log" in answer.json()["title"]


def test_requests_become_events(world: World) -> None:
    """Retrain, rollback and apply are published; impossible ones are refused."""
    client = world.client
    file = f"{{name: {world.name}, task: regression, data: {{target: cnt}}}}"
    body = {"applied_by": "ada", "file": file}
    assert client.post("/api/v1/pipelines", json=body).status_code == 200
    wrong = client.post("/api/v1/pipelines", json=body | {"file": "{nam: x}"})
    assert wrong.status_code == 422
    assert "did you mean 'name'" in wrong.json()["title"]
    asked = world.post("retrain", json={"requested_by": "ada", "reason": "curious"})
    assert asked.status_code == 202
    events = world.read(RetrainRequested)
    assert [e.meta.id for e in events] == [asked.json()["event_id"]]
    back = world.post("rollback", json={"requested_by": "ada", "reason": "worse"})
    assert back.status_code == 409
    steering = {"action": "hold", "requested_by": "ada", "reason": "holidays"}
    none_yet = world.post("rollout", json=steering | {"version": 1})
    assert none_yet.status_code == 404
    bad = world.post("rollout", json=steering | {"version": 1, "action": "stop"})
    assert bad.status_code == 422
    unknown = client.post(
        "/api/v1/models/other/retrain", json={"requested_by": "a", "reason": "b"}
    )
    assert unknown.status_code == 404
    assert "those you may read" in unknown.json()["title"]
    assert world.name not in unknown.json()["title"]


def test_no_route_without_the_token(world: World) -> None:
    """Every route of the OpenAPI document asks for it; health does not."""
    client = world.client
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) >= 9
    for path, operations in paths.items():
        url = path.replace("{pipeline}", world.name).replace("{version}", "1")
        url = url.replace("{alias}", "champion")
        for method in operations:
            for header in ({}, {"Authorization": "Bearer wrong"}):
                headers = {"Authorization": "", **header}
                answer = client.request(method, url, headers=headers, json={})
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
    other = client.get("/api/v1/models", headers={"Host": "evil.example"})
    assert other.status_code == 400


def test_collections_leave_out_what_it_is_built_of(installation: Installation) -> None:
    """It says so before its work begins; a bare interpreter has a tenth of that."""
    text = installation.registry.log.read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines() if '"built"' in line]
    assert lines
    assert all(line["kept_objects"] > 100_000 for line in lines)


def test_people_let_a_version_go_on(world: World) -> None:
    """What may count is published; the author, and what cannot wait, is refused."""
    staging = {"name": "staging", "promote": "approval"}
    world.apply(rollout={"environments": [staging]})
    world.train("one", requested_by="ada")
    world.wait_for(1, "approved")
    by_author = world.post("versions/1/promote", **decision("Ada"))
    assert by_author.status_code == 409
    assert "another must say yes" in by_author.json()["title"]
    yes = world.post("versions/1/promote", **decision("ben"))
    assert yes.status_code == 202
    again = {"json": {"requested_by": "ben", "reason": "it expired"}}
    assert world.post("versions/1/request-promotion", **again).status_code == 202
    no = world.post("versions/1/refuse-promotion", **decision("ada"))
    assert no.status_code == 202
    events = world.read(PromotionSteered)
    assert {(e.action, e.by, e.version) for e in events} == {
        ("approve", "ben", 1), ("ask", "ben", 1), ("reject", "ada", 1),
    }  # fmt: skip
    by_action = {e.action: e for e in events}
    assert by_action["approve"].meta.id == yes.json()["event_id"]
    assert by_action["approve"].roles == ["approver"]
    digests = {e.package_digest for e in events}
    assert digests == {world.read(ModelApproved)[0].package.digest}
    assert world.read(ModelApproved)[0].author == "ada"

    stopped = RolloutAdvanced(
        pipeline=world.name, rollout_id="r", version=1, environment="staging",
        step="promotion", verdict="failed", detail="rejected by ada: looks wrong",
    )  # fmt: skip
    world.log.publish(with_id(stopped, str(uuid.uuid4())))
    world.wait_for(1, "rolled_back")
    late = world.post("versions/1/promote", **decision("ben"))
    assert late.status_code == 409
    assert "it waits for no promotion" in late.json()["title"]
    path = f"/api/v1/deployments?pipeline={world.name}"
    (shown,) = world.client.get(path).json()["items"]
    assert shown["state"] == "failed"
    assert [step["environment"] for step in shown["steps"]] == ["staging"]
    steering = {"action": "hold", "requested_by": "ada", "reason": "x", "version": 1}
    unknown = world.post("rollout", json=steering | {"environment": "qa"})
    assert unknown.status_code == 409
    assert "there are staging, production" in unknown.json()["title"]


def test_nobody_is_asked_where_no_environment_asks(world: World) -> None:
    world.apply()
    world.train("one")
    world.wait_for(1, "approved")
    answer = world.post("versions/1/promote", **decision("ben"))
    assert answer.status_code == 409
    assert "rollout.environments" in answer.json()["title"]
