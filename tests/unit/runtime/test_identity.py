"""Who is let in, what each role may do, and what no token gets past."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.identity import AuditNoted, TokenChanged
from driftloop.contracts.roles import ACTIONS, GRANTS, RoleError, parse_binding
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.identity import tokens
from driftloop.runtime.identity.callers import IdentityError
from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.identity.oidc import PAUSE_S, AccessTokens, ProviderKeys
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.identity.trail import Trail
from driftloop.runtime.settings import Settings
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, PublishError, Record
from fastapi import APIRouter, FastAPI
from pydantic import ValidationError

from tests.unit.runtime.access import (
    Provider,
    application,
    applied,
    settings_of,
)
from tests.unit.support import HttpClient

OPERATOR = "the-installation's-own-token"
PIPELINES = {
    "loans": applied("loans", project="credit"),
    "bikes": applied("bikes", project="rides", shared_with=["credit"]),
}
# The table of docs/security.md, cell by cell.
TABLE = {
    "read": "data_engineer data_scientist ml_infra_engineer approver auditor admin",
    "send": "data_engineer client",
    "score": "data_scientist ml_infra_engineer client",
    "train": "data_scientist",
    "promote": "data_scientist ml_infra_engineer",
    "apply": "data_scientist ml_infra_engineer",
    "govern": "ml_infra_engineer",
    "approve": "approver",
    "operate": "ml_infra_engineer",
    "attend": "data_engineer data_scientist ml_infra_engineer",
    "comment": "data_engineer data_scientist ml_infra_engineer approver auditor",
    "erase": "data_engineer approver",
    "settle": "approver",
    "reveal": "data_engineer",
    "audit": "auditor",
    "manage_access": "admin",
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Provider:
    found = Provider(tmp_path_factory.mktemp("provider"))
    found.add_key("one")
    return found


def header(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


class Tokens:
    """Service tokens as the log says them."""

    def __init__(self) -> None:
        self.view = StateView(TokenChanged)
        self.view.caught_up.set()

    def make(self, *roles: str, **more: Any) -> str:
        new = tokens.mint()
        self.view.put(
            TokenChanged.model_validate(
                {
                    "token_id": new.token_id,
                    "name": "of the tests",
                    "subject": "ben",
                    "sha256": new.sha256,
                    "roles": roles,
                    "issued_by": "ada",
                    "issued_at": datetime.now(UTC),
                    **more,
                }
            )
        )
        return new.token


def client_of(known: Tokens, **settings: Any) -> HttpClient:
    guard = Guard(settings_of(**settings), known.view, PIPELINES)
    return HttpClient(application(guard))


def test_role_matrix() -> None:
    """Each role may do what its column says, in its project, and nothing else."""
    assert set(TABLE) == set(ACTIONS)
    known = Tokens()
    client = client_of(known)
    for role in GRANTS:
        token = known.make(f"{role}@credit")
        for action in ACTIONS:
            may = role in TABLE[action].split()
            answer = client.get(f"/loans/{action}", **header(token))
            assert answer.status_code == (200 if may else 403), (role, action)
            if not may:
                assert answer.headers["content-type"] == "application/problem+json"
                for needed in TABLE[action].split():
                    assert needed in answer.json()["title"]
                assert "'credit'" in answer.json()["title"]
            shared = may and action in ("read", "score")
            other = client.get(f"/bikes/{action}", **header(token))
            assert other.status_code == (200 if shared else 403), (role, action)
        everywhere = known.make(role)
        allowed = TABLE["read"].split()
        answer = client.get("/bikes/read", **header(everywhere))
        assert answer.status_code == (200 if role in allowed else 403)


def test_unknown_role_grants_nothing() -> None:
    """A role of the pipeline file's own is no right by itself."""
    known = Tokens()
    client, token = client_of(known), known.make("risk_officer@credit")
    assert client.get("/me", **header(token)).json() == "ben"
    for action in ACTIONS:
        assert client.get(f"/loans/{action}", **header(token)).status_code == 403


def test_without_credential() -> None:
    """401 with the way in, everywhere but where a route says that it is open."""
    client = client_of(Tokens(), api_token=OPERATOR)
    for path in ["/me", *(f"/loans/{action}" for action in ACTIONS)]:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "x"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/open").status_code == 200


def test_operator_decides_only_where_told() -> None:
    """The installation's own token has all rights, but proves no person."""
    client = client_of(Tokens(), api_token=OPERATOR)
    for action in ACTIONS:
        answer = client.get(f"/loans/{action}", **header(OPERATOR))
        assert answer.status_code == (403 if action == "approve" else 200)
    alone = client_of(Tokens(), api_token=OPERATOR, operator_decides=True)
    assert alone.get("/loans/approve", **header(OPERATOR)).status_code == 200
    with pytest.raises(RuntimeError, match="DRIFTLOOP_API_TOKEN"):
        client_of(Tokens(), api_token="")


def test_service_token_ends() -> None:
    """Revoked, expired, changed or unknown: 401; a good one passes before."""
    known = Tokens()
    client = client_of(known)
    token = known.make("auditor")
    assert client.get("/loans/audit", **header(token)).status_code == 200
    token_id = tokens.id_of(token)
    assert token_id is not None
    event = known.view[token_id]
    known.view.put(event.model_copy(update={"revoked_at": datetime.now(UTC)}))
    past = datetime.now(UTC) - timedelta(seconds=1)
    other = known.make("auditor")
    forged = other[:-1] + ("A" if other[-1] != "A" else "B")
    for bad, why in (
        (token, "revoked"),
        (known.make("auditor", expires_at=past), "expired"),
        (forged, "not known"),
        (tokens.mint().token, "not known"),
    ):
        answer = client.get("/loans/audit", **header(bad))
        assert answer.status_code == 401
        assert why in answer.json()["title"]


def test_token_before_the_log_is_read() -> None:
    """Whoever cannot be told yet comes again; nobody is let in on trust."""
    known = Tokens()
    known.view.caught_up.clear()
    answer = client_of(known).get("/me", **header(tokens.mint().token))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_project_before_the_log_is_read() -> None:
    """Who has a role in one project waits until it is told whose a pipeline is."""
    known, pipelines = Tokens(), StateView(PipelineApplied)
    client = HttpClient(application(Guard(settings_of(), known.view, pipelines)))
    here, everywhere = known.make("auditor@credit"), known.make("auditor")
    assert client.get("/bikes/read", **header(here)).status_code == 503
    assert client.get("/bikes/read", **header(everywhere)).status_code == 200
    pipelines.put(applied("bikes", project="rides"))
    pipelines.caught_up.set()
    assert client.get("/bikes/read", **header(here)).status_code == 403
    assert client.get("/none/read", **header(here)).status_code == 200


def test_log_holds_no_secret() -> None:
    """Of a token there is its hash, and 256 bits behind it."""
    known = Tokens()
    token = known.make("auditor")
    (event,) = known.view.values()
    secret = token.split("_", 2)[2]
    assert secret not in event.model_dump_json()
    assert event.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert len(base64.urlsafe_b64decode(secret + "=")) * 8 == 256


# ── access tokens of an identity provider ───────────────────────────────────


def unsigned(head: dict[str, Any], claims: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        text = base64.urlsafe_b64encode(json.dumps(value).encode())
        return text.rstrip(b"=").decode()

    return f"{part(head)}.{part(claims)}"


def hmac_signed(head: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    text = unsigned(head, claims)
    mac = hmac.digest(key, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_good_access_token(provider: Provider) -> None:
    """Who the provider proves, with the roles that it says."""
    client = client_of(Tokens(), provider=provider)
    answer = client.get("/loans/audit", **header(provider.token()))
    assert (answer.status_code, answer.json()) == (200, "ann")
    late = provider.token(exp=int(time.time()) - 5, nbf=int(time.time()) + 5)
    assert client.get("/me", **header(late)).status_code == 200  # within the leeway


def test_bad_access_tokens(provider: Provider, tmp_path: Path) -> None:
    """Each weakness that tokens are known for is refused, by name."""
    client = client_of(Tokens(), provider=provider)
    now = int(time.time())
    stranger = Provider(tmp_path)
    stranger.add_key("one")
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    pem, head = provider.pem("one"), {"alg": "HS256", "typ": "JWT", "kid": "one"}
    bad = {
        "expired": provider.token(exp=now - 120),
        "not yet valid": provider.token(nbf=now + 120),
        "issuer": provider.token(iss="https://evil.example"),
        "udience": provider.token(aud="another-system"),
        '"exp"': provider.token(exp=None),
        '"aud"': provider.token(aud=None),
        "sub": provider.token(sub=None),
        "Signature": stranger.token(),
        "'none'": unsigned({"alg": "none", "kid": "one"}, claims) + ".",
        "'None'": unsigned({"alg": "None", "kid": "one"}, claims) + ".",
        "'HS256'": hmac_signed(head, claims, pem),
        "'RS512'": jwt.encode(claims, provider.keys["one"], "RS512", {"kid": "one"}),
        "unknown key": jwt.encode(
            claims, provider.keys["one"], "RS256", {"kid": "../one"}
        ),
        "too long": provider.token(sub="x" * 9000),
    }
    for why, token in bad.items():
        answer = client.get("/loans/audit", **header(token))
        assert answer.status_code == 401, why
        assert why in answer.json()["title"], answer.json()


def test_symmetric_key_of_the_provider_is_no_key(provider: Provider) -> None:
    """A key that verifier and signer share, in the provider's own list, is left out."""
    secret = b"s" * 32
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    provider.publish({"kty": "oct", "k": text, "kid": "shared", "alg": "RS256"})
    client = client_of(Tokens(), provider=provider)
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    forged = hmac_signed({"alg": "RS256", "kid": "shared"}, claims, secret)
    assert client.get("/me", **header(forged)).status_code == 401
    assert client.get("/me", **header(provider.token())).status_code == 200


def test_algorithms_without_a_key_pair_cannot_be_set(provider: Provider) -> None:
    """Neither none nor HMAC, nor keys over a line that can be changed."""
    for wrong in (
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
        {"jwks": "http://login.example/keys"},
        {"role_map": {"group": ["no role!"]}},
    ):
        oidc = {"issuer": "i", "audience": "a", "jwks": "https://i/keys", **wrong}
        with pytest.raises(ValidationError):
            Settings.model_validate({"oidc": oidc})


def test_keys_rotate(tmp_path: Path) -> None:
    """A new key is found when it is first used; an unknown one not again."""
    clock = [0.0]
    provider = Provider(tmp_path)
    provider.add_key("one")
    oidc = settings_of(provider).oidc
    assert oidc is not None
    access = AccessTokens(oidc, lambda: clock[0])
    assert access.check(provider.token()).subject == "ann"
    provider.add_key("two")
    with pytest.raises(IdentityError, match="unknown key"):
        access.check(provider.token("two"))  # asked just now
    clock[0] += PAUSE_S + 1
    assert access.check(provider.token("two")).subject == "ann"
    clock[0] += PAUSE_S + 1
    provider.file.write_text("not JSON")
    assert access.check(provider.token("two", sub="eve")).subject == "eve"  # kept


def test_removed_key_ends(tmp_path: Path) -> None:
    """A key that the provider takes back is gone after ten minutes."""
    clock = [0.0]
    provider = Provider(tmp_path)
    provider.add_key("one")
    keys = ProviderKeys(str(provider.file), lambda: clock[0])
    assert keys.get("one")
    del provider.keys["one"]
    provider.publish()
    assert keys.get("one")
    clock[0] += 601
    assert keys.get("one") is None


@pytest.mark.parametrize(
    ("settings", "claims", "roles"),
    [
        ({}, {"roles": ["auditor", "offline access", 7]}, ["auditor@*"]),
        ({}, {"roles": "auditor approver@credit"}, ["approver@credit", "auditor@*"]),
        (
            {"roles_claim": "realm_access.roles"},
            {"realm_access": {"roles": ["admin"]}},
            ["admin@*"],
        ),
        ({"roles_claim": "groups", "role_map": {"/ds": ["data_scientist@credit"]}},
         {"groups": ["/ds", "admin"]}, ["data_scientist@credit"]),
        ({}, {"roles": None}, []),
        ({}, {"roles": {"admin": True}}, []),
    ],
)  # fmt: skip
def test_roles_of_claims(
    provider: Provider,
    settings: dict[str, Any],
    claims: dict[str, Any],
    roles: list[str],
) -> None:
    """Roles come from the claim or the map, and from nothing else."""
    oidc = settings_of(provider).oidc
    assert oidc is not None
    access = AccessTokens(oidc.model_copy(update=settings))
    rights = access.check(provider.token(**claims)).rights
    assert sorted(map(str, rights.bindings)) == roles


@pytest.mark.parametrize("text", ["", "Admin", "admin@", "admin@A", "a b", "admin@*x"])
def test_text_that_is_no_role(text: str) -> None:
    with pytest.raises(RoleError, match="role@project"):
        parse_binding(text)


# ── routes without a declaration ────────────────────────────────────────────


def test_route_without_action_cannot_be_registered() -> None:
    """Neither by itself nor below a router that would not notice."""
    router = GuardedRouter()
    with pytest.raises(TypeError, match="GET /data declares no action"):
        router.get("/data")(lambda: None)
    with pytest.raises(TypeError, match="POST /data"):
        router.add_api_route("/data", lambda: None, methods=["POST"])
    with pytest.raises(TypeError, match="no GuardedRouter"):
        router.include_router(APIRouter())
    with pytest.raises(ValueError, match="none of"):
        needs("anything")  # type: ignore[arg-type]  # what is tested
    router.get("/data", dependencies=[needs("read")])(lambda: None)
    GuardedRouter(dependencies=[needs("read")]).get("/data")(lambda: None)


# ── notes for the audit trail ───────────────────────────────────────────────


class Broker:
    """Takes records, or is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_away = False

    def publish(self, records: list[Record], timeout_s: float = 0) -> None:
        if self.is_away:
            raise PublishError("away")
        self.records += records

    def notes(self, store: FolderStore) -> list[AuditNoted]:
        found = []
        for record in self.records:
            message = Message(
                record.topic, 0, 0, record.key, record.value, record.headers, 0
            )
            event = decode(message, store)
            assert isinstance(event, AuditNoted)
            found.append(event)
        return found


class Noted:
    """An application with a trail, and what it published."""

    def __init__(self, folder: Path) -> None:
        self.broker, self.store = Broker(), FolderStore(folder)
        self.known = Tokens()
        trail = Trail("test", self.broker, self.store)  # type: ignore[arg-type]  # a fake
        guard = Guard(settings_of(), self.known.view, PIPELINES, trail)
        self.app: FastAPI = application(guard)
        router = GuardedRouter()

        @router.post("/{pipeline}/fails", dependencies=[needs("operate")])
        def fails(pipeline: str) -> None:
            raise ZeroDivisionError(pipeline)

        @router.post("/{pipeline}/erased", dependencies=[needs("erase", personal=True)])
        def erased(pipeline: str) -> None: ...

        self.app.include_router(router)
        self.client = HttpClient(self.app)

    def said(self) -> list[tuple[str, str, int | None]]:
        return [(n.action, n.outcome, n.status) for n in self.broker.notes(self.store)]


def test_notes_before_and_after(tmp_path: Path) -> None:
    """Who, what, which body; then the answer's status; failures and refusals too."""
    noted = Noted(tmp_path)
    engineer = noted.known.make("ml_infra_engineer")
    noted.client.get("/loans/operate?dry=1", **header(engineer))
    noted.client.get("/loans/approve", **header(engineer))
    noted.client.get("/loans/read", **header(engineer))
    noted.client.get("/loans/score", **header(engineer))
    with pytest.raises(ZeroDivisionError):
        noted.client.post("/loans/fails", content=b"{}", **header(engineer))
    assert noted.said() == [
        ("operate", "asked", None), ("operate", "answered", 200),
        ("approve", "refused", 403),
        ("operate", "asked", None), ("operate", "answered", 500),
    ]  # fmt: skip
    first, second, *_ = noted.broker.notes(noted.store)
    assert (first.subject, first.about, first.path) == (
        "ben", "loans", "/loans/operate?dry=1",
    )  # fmt: skip
    assert first.credential == f"token:{tokens.id_of(engineer)}"
    assert second.asked_id == first.meta.id
    body = noted.broker.notes(noted.store)[3].request_sha256
    assert body == hashlib.sha256(b"{}").hexdigest()


def test_nothing_is_done_unnoted(tmp_path: Path) -> None:
    """While the broker is away what has to be noted is not done; reading goes on."""
    noted = Noted(tmp_path)
    engineer = noted.known.make("ml_infra_engineer")
    noted.broker.is_away = True
    assert noted.client.get("/loans/operate", **header(engineer)).status_code == 503
    assert noted.client.get("/loans/read", **header(engineer)).status_code == 200


def test_body_that_may_name_a_person_leaves_no_trace(tmp_path: Path) -> None:
    """A digest of few possible bodies would tell which it was."""
    noted = Noted(tmp_path)
    approver = noted.known.make("approver")
    noted.client.post("/loans/erased", content=b"person 17", **header(approver))
    notes = noted.broker.notes(noted.store)
    assert [note.outcome for note in notes] == ["asked", "answered"]
    assert all(note.request_sha256 is None for note in notes)
