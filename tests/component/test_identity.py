"""Real services: who gets in, who decides, and what the audit trail says of it."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.cli.access import work
from driftloop.cli.context import Installation as Place
from driftloop.contracts.events import (
    ApprovalGiven,
    PipelineApplied,
    TrackingChanged,
)
from driftloop.contracts.identity import AuditAnchored, AuditNoted, TokenChanged
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.settings import Settings

from tests.component.processes import Log, ServiceProcess, with_id
from tests.unit.registry import story
from tests.unit.runtime.access import ISSUER, Provider
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
OTHERS = ("ingest", "scorer", "monitor", "console")
END = 4_000_000_000
"""When access tokens end, in s since 1970: not while a test runs."""
OPEN = {"/ping", "/health", "/v2/health/live", "/v2/health/ready", "/livez", "/readyz"}
"""Probes, which tell whether a process is alive and ready, and nothing else."""


class Installation:
    """Every service with a door, and an identity provider that they believe."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        create_topics(node.bootstrap)
        self.home = folder / "home"
        self.provider = Provider(folder)
        self.provider.add_key("one")
        self.factory = Factory(self.home)
        self.log = Log(node.bootstrap, self.home)
        oidc = (
            f'{{"issuer": "{ISSUER}", "audience": "driftloop", '
            f'"jwks": "{self.provider.file}"}}'
        )
        self._begin(node)
        self.services = {
            name: ServiceProcess(
                name, self.home, node.bootstrap, environment={"DRIFTLOOP_OIDC": oidc}
            )
            for name in ("registry", *OTHERS)
        }
        self.registry = self.services["registry"]
        self.admin = self.signed_in("ada", "admin")
        self.place = Place(
            self.home,
            node.bootstrap,
            self.registry.url,
            self.provider.token(sub="eve", roles=["auditor"], exp=END),
            Settings.model_validate({"home": self.home}),
        )

    def _begin(self, node: KafkaNode) -> None:
        """Start a registry that nobody could get into; note whom it lets in."""
        with ServiceProcess("registry", self.home, node.bootstrap, token=None) as first:
            said = first.log.read_text()
            (self.first_token,) = re.findall(r"shown this once: (dlt_\S+)", said)
            headers = {"Authorization": f"Bearer {self.first_token}"}
            with httpx.Client(base_url=first.url, headers=headers) as client:
                wait_until(lambda: client.get("/api/v1/me").status_code == 200)
                self.first_subject = client.get("/api/v1/me").json()["subject"]

    def signed_in(self, subject: str, *roles: str) -> httpx.Client:
        """Return a client of somebody whom the provider proves."""
        token = self.provider.token(sub=subject, roles=list(roles), exp=END)
        return self.with_token(token)

    def with_token(self, token: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.registry.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=100,
        )

    @property
    def database(self) -> Path:
        (found,) = (self.home / "databases").glob("registry*.db")
        return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("identity")
    with KafkaNode(folder / "kafka") as node:
        found = Installation(node, folder)
        try:
            for service in found.services.values():
                service.start(wait=False)
            wait_until(found.registry.is_ready, 120)
            yield found
        finally:
            for service in found.services.values():
                service.__exit__(None, None, None)
            found.log.close()
            found.admin.close()


class World:
    """One test's pipeline, with a version that waits for two people."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.name, self.here = name, installation
        self.version = f"/api/v1/models/{name}/versions/1"

    def wait_for_people(self, **approval: Any) -> None:
        """Apply a pipeline of the project credit; ada asked for its version."""
        spec = story.spec(
            name=self.name,
            project="credit",
            automation="approve",
            rollout={"approval": {"people": 2, **approval}},
        )
        applied = PipelineApplied(pipeline=self.name, spec=spec, applied_by="ada")
        self.here.log.publish(with_id(applied, str(uuid.uuid4())))
        trained = story.trained(
            self.here.factory, "one", pipeline=self.name, requested_by="Ada"
        )
        self.here.log.publish(trained)
        reader = self.here.signed_in("rita", "auditor")
        wait_until(
            lambda: reader.get(self.version).json().get("state") == "awaiting_approval",
            60,
        )
        reader.close()

    def decide(self, who: httpx.Client, what: str = "approve", **body: Any) -> Any:
        return who.post(f"{self.version}/{what}", json={"reason": "fine", **body})


@pytest.fixture
def world(installation: Installation, unique_name: Callable[[str], str]) -> World:
    return World(installation, unique_name("loans"))


def test_no_route_of_any_service_without_a_credential(
    installation: Installation,
) -> None:
    """Every route of every OpenAPI document answers 401; probes are the exception."""
    count = 0
    for service in installation.services.values():
        wait_until(service.is_ready, 120)
        with httpx.Client(base_url=service.url, timeout=100) as client:
            paths = client.get("/openapi.json").json()["paths"]
            for path, operations in paths.items():
                url = re.sub(r"{[^}]*}", "x", path)
                for method in operations:
                    for headers in ({}, {"Authorization": "Bearer wrong"}):
                        answer = client.request(method, url, headers=headers)
                        if path in OPEN:
                            assert answer.status_code in (200, 404, 503), path
                        else:
                            assert answer.status_code == 401, (method, path)
                            count += 1
            assert client.get("/livez").status_code == 200
            assert client.get("/metrics").status_code == 200
            if service.name == "console":
                assert client.get("/").status_code == 401
    assert count > 60  # negative control: the documents hold the routes


def test_tokens_live_in_the_log(installation: Installation) -> None:
    """Made by an admin, known to all services at once, taken back in all at once."""
    admin = installation.admin
    made = admin.post(
        "/api/v1/tokens", json={"name": "dashboards", "roles": ["auditor"]}
    )
    assert made.status_code == 201, made.text
    token, token_id = made.json()["token"], made.json()["token_id"]
    with installation.with_token(token) as client:
        assert client.get("/api/v1/me").json()["roles"] == ["auditor@*"]
        for name, path in (
            ("registry", "/api/v1/models"),
            ("console", "/api/state"),
            ("monitor", "/v1/pipelines/none/windows"),
        ):
            url = f"{installation.services[name].url}{path}"
            wait_until(lambda url=url: _answers(client, url))
        console = installation.services["console"].url
        with httpx.Client(base_url=console) as browser:
            assert browser.get("/", params={"token": token}).status_code == 200
            assert token.encode() not in str(browser.cookies).encode()
            assert browser.get("/api/state").status_code == 200
            gone = admin.delete(f"/api/v1/tokens/{token_id}")
            assert gone.json()["revoked_by"] == "ada"
            wait_until(lambda: browser.get("/api/state").status_code == 401)
        wait_until(lambda: client.get("/api/v1/me").status_code == 401)
    listed = admin.get("/api/v1/tokens")
    assert token_id in {each["token_id"] for each in listed.json()["items"]}
    assert "sha256" not in listed.text
    events = installation.log.read(TokenChanged)
    assert not any(token in event.model_dump_json() for event in events)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code in (200, 404)
    except httpx.ConnectError:
        return False  # not started yet


def test_an_admin_gives_in_their_projects_only(installation: Installation) -> None:
    """Nobody makes themselves more than they are; the operator's name is taken."""
    mine = installation.signed_in("carl", "admin@credit")
    for roles, status in (
        (["approver@credit"], 201),
        (["approver"], 403),
        (["admin@rides"], 403),
        (["approver@credit", "auditor@rides"], 403),
        (["no role"], 422),
    ):
        answer = mine.post("/api/v1/tokens", json={"name": "x", "roles": roles})
        assert answer.status_code == status, roles
    named = {"name": "x", "roles": ["client@credit"], "subject": "operator"}
    assert mine.post("/api/v1/tokens", json=named).status_code == 422
    other = installation.signed_in("dora", "data_scientist")
    assert other.get("/api/v1/tokens").status_code == 403
    mine.close()
    other.close()


def test_decisions_are_made_by_who_is_proven(world: World) -> None:
    """Never one's own, never twice by one, never in another's name."""
    world.wait_for_people()
    here = world.here
    people = {
        "ada": here.signed_in("ada", "approver@credit"),
        "ben": here.signed_in("ben", "approver@credit"),
        "cleo": here.signed_in("cleo", "approver"),
        "dan": here.signed_in("dan", "approver@rides"),
        "eli": here.signed_in("eli", "data_scientist@credit"),
    }
    assert world.decide(people["dan"]).status_code == 403
    refused = world.decide(people["eli"])
    assert refused.status_code == 403
    assert "approver in project 'credit'" in refused.json()["title"]
    own = world.decide(people["ada"])
    assert own.status_code == 409
    assert "another must approve" in own.json()["title"]
    false_name = world.decide(people["ben"], by="cleo")
    assert false_name.status_code == 403
    assert "ben's" in false_name.json()["title"]
    assert world.decide(people["ben"]).json()["state"] == "awaiting_approval"
    again = world.decide(people["ben"])
    assert again.status_code == 409
    token = here.admin.post(
        "/api/v1/tokens",
        json={"name": "second", "roles": ["approver@credit"], "subject": "ben"},
    ).json()["token"]
    with here.with_token(token) as second:  # another credential, the same person
        wait_until(lambda: second.get("/api/v1/me").status_code == 200)
        assert world.decide(second).status_code == 409
    assert world.decide(people["cleo"]).json()["state"] == "approved"
    given = here.log.read(ApprovalGiven, pipeline=world.name)
    assert [event.by for event in given] == ["ben", "cleo"]
    for client in people.values():
        client.close()


def test_role_of_the_pipeline_file(world: World) -> None:
    """Where the file names a role of its own, approvers have to have that, too."""
    world.wait_for_people(role="risk_officer", people=1)
    for roles, status in (
        (["approver@credit"], 403),
        (["approver@credit", "risk_officer@rides"], 403),
        (["approver@credit", "risk_officer@credit"], 200),
    ):
        client = world.here.signed_in("ben", *roles)
        assert world.decide(client).status_code == status
        client.close()


def test_somebody_of_each_role_that_the_file_names(world: World) -> None:
    """A second approver is not compliance; nobody counts for two roles."""
    world.wait_for_people(people=1, also={"compliance": 1})
    ben, cleo, dan, eve = (
        world.here.signed_in(name, "approver@credit", *more)
        for name, more in (
            ("ben", ["compliance@credit"]),
            ("cleo", []),
            ("dan", []),
            ("eve", ["compliance@rides"]),
        )
    )
    shown = f"/api/v1/approvals/{world.name}/1"
    both = {"approver": 1, "compliance": 1}
    assert ben.get(shown).json()["missing"] == both
    assert world.decide(cleo).json()["state"] == "awaiting_approval"
    asked = dan.get(shown).json()
    assert (asked["needed"], asked["missing"]) == (1, {"compliance": 1})
    assert not asked["you_may"]
    for late in (dan, eve):
        refused = world.decide(late)
        assert refused.status_code == 409
        assert "waits for 1 compliance" in refused.json()["title"]
    assert world.decide(ben).json()["state"] == "approved"
    given = world.here.log.read(ApprovalGiven, pipeline=world.name)
    assert [(x.by, sorted(x.roles)) for x in given] == [
        ("cleo", ["approver"]),
        ("ben", ["approver", "compliance"]),
    ]
    for client in (ben, cleo, dan, eve):
        client.close()


def test_file_that_lets_go_of_people(world: World) -> None:
    """Who trains may change a pipeline, but not who decides about what was trained."""
    world.wait_for_people()
    scientist = world.here.signed_in("eli", "data_scientist@credit")
    engineer = world.here.signed_in("ida", "ml_infra_engineer@credit")

    def apply(who: httpx.Client, **fields: str) -> int:
        file = {
            "name": world.name, "task": "regression", "data": "{target: cnt}",
            "project": "credit", "automation": "approve",
            "rollout": "{approval: {people: 2}}", **fields,
        }  # fmt: skip
        text = "\n".join(f"{name}: {value}" for name, value in file.items())
        answer = who.post("/api/v1/pipelines", json={"file": text})
        assert answer.status_code in (200, 403), answer.text
        return answer.status_code

    apply(engineer)
    assert apply(scientist, description="for people") == 200
    assert apply(scientist, automation="full") == 403
    assert apply(scientist, rollout="{approval: {people: 1}}") == 403
    assert apply(scientist, project="rides") == 403
    assert apply(engineer, project="rides") == 403
    assert apply(engineer, automation="full") == 200
    scientist.close()
    engineer.close()


def test_only_one_s_own_projects_are_listed(world: World) -> None:
    world.wait_for_people()
    for role, seen in (("auditor@credit", True), ("auditor@rides", False)):
        client = world.here.signed_in("rita", role)
        names = {m["pipeline"] for m in client.get("/api/v1/models").json()["items"]}
        assert (world.name in names) == seen
        assert client.get(world.version).status_code == (200 if seen else 403)
        client.close()


def test_clients_of_mlflow(
    installation: Installation, unique_name: Callable[[str], str]
) -> None:
    """Roles hold for them too, and the proven name counts, not the user of Basic."""
    path, body = "/api/2.0/mlflow/experiments", {"name": unique_name("runs")}
    auditor = installation.signed_in("eve", "auditor")
    refused = auditor.post(f"{path}/create", json=body)
    assert refused.status_code == 403
    assert refused.json()["error_code"] == "PERMISSION_DENIED"
    assert "data_scientist" in refused.json()["message"]
    assert auditor.post(f"{path}/search", json={"max_results": 1}).status_code == 200
    assert auditor.post("/api/2.0/mlflow/no/such-call").status_code == 403
    auditor.close()
    token = installation.provider.token(sub="eli", roles=["data_scientist"], exp=END)
    basic = httpx.BasicAuth("mallory", token)
    url = f"{installation.registry.url}{path}/create"
    assert httpx.post(url, json=body, auth=basic).status_code == 200
    made = [
        event.by
        for event in installation.log.read(TrackingChanged)
        if isinstance(event, TrackingChanged)
        and getattr(event.change, "name", "") == body["name"]
    ]
    assert made == ["eli"]


# ── the audit trail ─────────────────────────────────────────────────────────


def kinds(report: dict[str, Any]) -> set[tuple[int, str]]:
    return {(each["position"], each["kind"]) for each in report["breaks"]}


def test_trail_of_a_decision(world: World) -> None:
    """Who asked with which credential, the outcome, an anchor; auditors only."""
    world.wait_for_people()
    here = world.here
    ben = here.signed_in("ben", "approver@credit")
    world.decide(ben)
    world.decide(ben)
    ben.close()
    auditor = here.signed_in("eve", "auditor")
    entries: list[dict[str, Any]] = []

    def is_there() -> bool:
        items = auditor.get("/api/v1/audit", params={"limit": 500}).json()["items"]
        entries[:] = [i for i in items if i["content"]["about"] == world.name]
        return len(entries) == 4

    wait_until(is_there, 120)
    said = [(e["content"]["outcome"], e["content"]["status"]) for e in entries]
    assert said == [
        ("asked", None), ("answered", 200), ("asked", None), ("answered", 409),
    ]  # fmt: skip
    content = entries[0]["content"]
    assert (content["subject"], content["action"]) == ("ben", "approve")
    assert content["credential"].startswith("oidc:")
    assert content["request_sha256"]
    assert entries[1]["content"]["asked_id"] == content["event_id"]
    position = entries[3]["position"]
    wait_until(
        lambda: (
            position
            in {
                event.position
                for event in here.log.read(AuditAnchored)
                if isinstance(event, AuditAnchored)
            }
        ),
        30,
    )
    report = auditor.get("/api/v1/audit/verify")
    assert report.json()["whole"], report.text
    auditor.close()
    for role in ("admin", "approver", "ml_infra_engineer"):
        client = here.signed_in("ben", role)
        assert client.get("/api/v1/audit").status_code == 403
        assert client.get("/api/v1/audit/verify").status_code == 403
        client.close()


def test_tampering_is_found(world: World) -> None:
    """A changed, a removed and a rewritten row; by REST and, on its own, by the CLI."""
    world.wait_for_people()
    here = world.here
    ben = here.signed_in("ben", "approver@credit")
    world.decide(ben)
    ben.close()
    auditor = here.signed_in("eve", "auditor")

    def verified() -> list[dict[str, Any]]:
        by_rest = auditor.get("/api/v1/audit/verify").json()
        by_cli = work.verify(here.place)
        assert by_rest["whole"] == by_cli["whole"]
        assert kinds(by_rest) == kinds(by_cli)
        return [by_rest, by_cli]

    wait_until(lambda: bool(verified()[0]["entry_count"] >= 2), 120)
    assert verified()[0]["whole"]
    with closing(sqlite3.connect(here.database, timeout=100)) as database:
        rows = database.execute("SELECT * FROM registry_audit ORDER BY position")
        saved = rows.fetchall()
        middle = saved[-2][0]

        def damaged(statement: str, *values: Any) -> set[tuple[int, str]]:
            with database:
                database.execute(statement, values)
            found = kinds(verified()[0])
            with database:
                database.execute("DELETE FROM registry_audit")
                database.executemany(
                    "INSERT INTO registry_audit VALUES (?, ?, ?, ?)", saved
                )
            return found

        change = "UPDATE registry_audit SET content = replace(content, 'ben', 'dan')"
        assert (middle, "altered") in damaged(f"{change} WHERE position = ?", middle)
        remove = "DELETE FROM registry_audit WHERE position = ?"
        assert (middle, "removed") in damaged(remove, middle)
        assert (saved[-1][0], "removed") in damaged(remove, saved[-1][0])
        fork = "UPDATE registry_audit SET previous = ? WHERE position = ?"
        assert (middle, "forked") in damaged(fork, "f" * 64, middle)
    assert verified()[0]["whole"]  # negative control: put back as it was
    auditor.close()


def test_trail_is_rebuilt_from_the_log(world: World) -> None:
    """Without its database the registry comes to the same hashes."""
    here = world.here
    here.admin.post("/api/v1/tokens", json={"name": "x", "roles": ["client"]})
    auditor = here.signed_in("eve", "auditor")

    def trail() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = auditor.get(
            "/api/v1/audit", params={"limit": 500}
        ).json()["items"]
        return found

    wait_until(lambda: len(trail()) == len(here.log.read(AuditNoted)) > 0, 120)
    before = trail()
    assert here.registry.stop() == 0
    for file in (here.home / "databases").glob("registry*"):
        file.unlink()
    here.registry.start()
    wait_until(lambda: len(trail()) >= len(before), 120)
    assert trail() == before
    assert auditor.get("/api/v1/audit/verify").json()["whole"]
    auditor.close()


def test_first_admin(installation: Installation) -> None:
    """Where nobody could get in, the registry showed a token once; the log has none."""
    assert installation.first_subject == "first-admin"
    folder = installation.home.parent / "kafka"
    data = b"".join(path.read_bytes() for path in folder.rglob("*.log"))
    assert b"first-admin" in data  # negative control: this is where it would be
    assert installation.first_token.encode() not in data
    with installation.with_token(installation.first_token) as client:
        assert client.get("/api/v1/me").json()["roles"] == ["admin@*"]
