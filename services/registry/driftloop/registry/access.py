"""REST: who may do what; tokens are made, shown once, and taken back here."""

import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from driftloop.contracts.identity import TokenChanged
from driftloop.contracts.roles import BINDING_PATTERN, EVERYWHERE, parse_binding
from driftloop.registry.requests import Requests, id_of
from driftloop.registry.rest import ApiRouter, Context, Page, later
from driftloop.runtime.identity import tokens
from driftloop.runtime.identity.callers import OPERATOR, Caller
from driftloop.runtime.identity.routing import (
    Asking,
    GuardedRouter,
    needs,
    proven,
)
from driftloop.runtime.settings import Settings
from driftloop.runtime.state import StateView
from fastapi import HTTPException, Path
from pydantic import BaseModel, Field, StringConstraints

MAX_DAYS = 3650
DEFAULT_DAYS = 365
MAX_ROLES = 50
POLL_S = 0.1
FIRST_ADMIN = "first-admin"
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)
]
Role = Annotated[str, StringConstraints(pattern=BINDING_PATTERN)]
TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]


class TokenBody(BaseModel):
    """A token to be made."""

    name: Text = Field(description="what it is for", examples=["rides gateway"])
    roles: list[Role] = Field(
        min_length=1, max_length=MAX_ROLES, examples=[["client@rides"]]
    )
    subject: Text | None = Field(
        default=None,
        description="who acts with it; a person's tokens share one. Default: the name",
    )
    days: int = Field(
        default=DEFAULT_DAYS, ge=1, le=MAX_DAYS, description="how long it holds"
    )


class Token(BaseModel):
    """A token, but for its secret."""

    token_id: str
    name: str
    subject: str
    roles: list[str]
    issued_by: str
    issued_at: datetime
    expires_at: datetime | None
    revoked_by: str | None
    revoked_at: datetime | None


class CreatedToken(Token):
    """A token at its birth."""

    token: str = Field(description="shown this once; only its hash is kept")


class Self(BaseModel):
    """Who asks, as this installation sees it."""

    subject: str
    credential: str
    roles: list[str]
    is_operator: bool
    until: datetime | None


def access_routes(context: Context, known: StateView[TokenChanged]) -> GuardedRouter:
    """Return the routes about tokens."""
    router = ApiRouter(tags=["access"])

    @router.get("/me", dependencies=[proven()])
    def me(caller: Asking) -> Self:
        """Say who the credential proves, and which roles it has."""
        return Self(
            subject=caller.subject,
            credential=caller.credential,
            roles=[str(each) for each in sorted(caller.rights.bindings)],
            is_operator=caller.is_operator,
            until=caller.until,
        )

    @router.get("/tokens", dependencies=[needs("manage_access")])
    def list_tokens(caller: Asking) -> Page[Token]:
        """List the tokens of the projects that one gives rights in, newest first."""
        mine = [each for each in known.values() if _may_give(caller, each.roles)]
        mine.sort(key=lambda each: each.issued_at, reverse=True)
        return Page(items=[_view(each) for each in mine])

    @router.post(
        "/tokens",
        status_code=201,
        response_model=CreatedToken,
        dependencies=[needs("manage_access")],
    )
    def create_token(body: TokenBody, caller: Asking) -> Any:
        """Make a token, and show it this once."""
        roles = [str(parse_binding(text)) for text in body.roles]
        _check_gift(caller, roles, body.subject)
        new = tokens.mint()
        now = datetime.now(UTC)
        event = TokenChanged(
            token_id=new.token_id,
            name=body.name,
            subject=body.subject or body.name,
            sha256=new.sha256,
            roles=roles,
            expires_at=now + timedelta(days=body.days),
            issued_by=caller.subject,
            issued_at=now,
        )
        context.publish(event, id_of(event, None))
        context.wait(lambda: known.get(new.token_id))
        return CreatedToken(**_view(event).model_dump(), token=new.token)

    @router.delete(
        "/tokens/{token_id}",
        response_model=Token,
        dependencies=[needs("manage_access")],
    )
    def revoke_token(token_id: TokenId, caller: Asking) -> Any:
        """Take a token back; it proves nothing from now on."""
        found = known.get(token_id)
        if found is None or not _may_give(caller, found.roles):
            raise HTTPException(404, f"no token {token_id} that you may take back")
        if found.revoked_at is not None:
            return _view(found)
        event = found.model_copy(
            update={"revoked_by": caller.subject, "revoked_at": datetime.now(UTC)}
        )
        meta = context.publish(event, id_of(event, None))
        gone = context.wait(lambda: _revoked(known.get(token_id)))
        return _view(gone) if gone else later(meta, "/api/v1/tokens")

    return router


def _revoked(token: TokenChanged | None) -> TokenChanged | None:
    return token if token is not None and token.revoked_at is not None else None


def _view(token: TokenChanged) -> Token:
    return Token.model_validate(token.model_dump(include=set(Token.model_fields)))


def _may_give(caller: Caller, roles: Iterable[str]) -> bool:
    return all(
        caller.may("manage_access", parse_binding(role).project) for role in roles
    )


def _check_gift(caller: Caller, roles: list[str], subject: str | None) -> None:
    if subject == OPERATOR:
        raise HTTPException(422, f"subject: {OPERATOR!r} is the installation's own")
    for role in roles:
        if not _may_give(caller, [role]):
            project = parse_binding(role).project
            where = "all projects" if project == EVERYWHERE else f"project {project!r}"
            raise HTTPException(
                403, f"{caller.subject} may not give {role}: it takes admin in {where}"
            )


def first_admin(
    settings: Settings,
    known: StateView[TokenChanged],
    requests: Requests,
    stopping: threading.Event,
) -> None:
    """Make an admin's token where nobody could get in otherwise, and show it once.

    That is where there is neither a token of the installation, nor an identity
    provider, nor a token of an admin. It is shown before it is valid: a kill in between
    costs a start, not the way in.
    """
    while not known.caught_up.wait(POLL_S):
        if stopping.is_set():
            return
    now = datetime.now(UTC)
    others = settings.api_token or settings.oidc
    if others or any(_is_admin(token, now) for token in known.values()):
        return
    new = tokens.mint()
    sys.stderr.write(
        f"driftloop: the first admin's token, shown this once: {new.token}\n"
        "driftloop: make tokens for people and programs with it (driftloop tokens "
        f"create), then revoke it: driftloop tokens revoke {new.token_id}\n"
    )
    sys.stderr.flush()
    event = TokenChanged(
        token_id=new.token_id,
        name=FIRST_ADMIN,
        subject=FIRST_ADMIN,
        sha256=new.sha256,
        roles=[f"admin@{EVERYWHERE}"],
        issued_by="registry",
        issued_at=now,
    )
    requests.publish(event, id_of(event, None))


def _is_admin(token: TokenChanged, now: datetime) -> bool:
    return (
        f"admin@{EVERYWHERE}" in token.roles
        and token.revoked_at is None
        and (token.expires_at is None or token.expires_at > now)
    )
