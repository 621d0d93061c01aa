"""An identity provider, and an application with a route for each action."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    generate_private_key,
)
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.contracts.roles import ACTIONS
from driftloop.runtime.http import http_app
from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.identity.routing import (
    Asking,
    GuardedRouter,
    needs,
    openly,
    proven,
)
from driftloop.runtime.settings import Settings
from fastapi import FastAPI

ISSUER, AUDIENCE = "https://login.example/realms/one", "driftloop"


class Provider:
    """Signs access tokens; its keys lie in a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jwks.json"
        self.keys: dict[str, RSAPrivateKey] = {}

    def add_key(self, kid: str) -> None:
        """Make a key and publish it beside the others."""
        self.keys[kid] = generate_private_key(65537, 2048)
        self.publish()

    def publish(self, *more: dict[str, Any]) -> None:
        keys = [self.jwk(kid) for kid in self.keys]
        self.file.write_text(json.dumps({"keys": [*keys, *more]}))

    def jwk(self, kid: str) -> dict[str, Any]:
        public = self.keys[kid].public_key()
        found = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        return {**found, "kid": kid, "use": "sig"}

    def pem(self, kid: str) -> bytes:
        return (
            self.keys[kid]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
        )

    def token(self, kid: str = "one", **claims: Any) -> str:
        """Return a good access token, but for what ``claims`` change; None: without."""
        now = int(time.time())
        content = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now,
            "exp": now + 300,
            "roles": ["auditor"],
            **claims,
        }
        kept = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(kept, self.keys[kid], "RS256", headers={"kid": kid})


def applied(name: str, **fields: Any) -> PipelineApplied:
    """Return a pipeline of a project."""
    file = {"name": name, "task": "regression", "data": {"target": "cnt"}, **fields}
    spec = parse_pipeline(json.dumps(file))
    return PipelineApplied(pipeline=name, spec=spec, applied_by="ada")


def application(guard: Guard) -> FastAPI:
    """Return an application with ``/PIPELINE/ACTION`` for each action."""
    router = GuardedRouter()
    for action in ACTIONS:

        @router.get(f"/{{pipeline}}/{action}", dependencies=[needs(action)])
        def done(pipeline: str, caller: Asking) -> str:
            return caller.subject

    @router.get("/me", dependencies=[proven()])
    def me(caller: Asking) -> str:
        return caller.subject

    @router.get("/open", dependencies=[openly("a test")])
    def open_to_all() -> str:
        return "all"

    app = http_app("test", guard.settings, lambda: {"live": True, "ready": True}, guard)
    app.include_router(router)
    return app


def settings_of(provider: Provider | None = None, **more: Any) -> Settings:
    """Return settings with the provider, if there is one."""
    oidc = provider and {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks": str(provider.file),
    }
    return Settings.model_validate({"oidc": oidc, **more})
