"""The check that each request passes: who it is, and whether they may."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.identity import TokenChanged
from driftloop.contracts.pipeline import DEFAULT_PROJECT
from driftloop.contracts.roles import EVERYWHERE, Action, Rights, RoleError
from driftloop.runtime.identity import tokens
from driftloop.runtime.identity.callers import (
    OPERATOR,
    Caller,
    IdentityError,
    NotReadyError,
)
from driftloop.runtime.identity.oidc import AccessTokens
from driftloop.runtime.identity.trail import Trail
from driftloop.runtime.settings import Settings
from driftloop.runtime.state import StateView
from driftloop.runtime.telemetry import log
from starlette.concurrency import run_in_threadpool

HOW = (
    "send 'Authorization: Bearer TOKEN' with a service token, an access token of the "
    "identity provider, or the installation's own token (driftloop status shows where "
    "that is)"
)
MAX_USER = 200
logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Credential:
    """What an ``Authorization`` header holds.

    Attributes
    ----------
    user : of Basic, as the sender says; empty: none.
    """

    secret: str = ""
    user: str = ""


def credential_in(header: str, *, basic: bool = False) -> Credential:
    """Return the secret of an ``Authorization`` header; empty: there is none.

    Parameters
    ----------
    basic : the password of Basic counts too.

    >>> credential_in("Bearer abc").secret
    'abc'
    >>> header = "Basic " + base64.b64encode(b"ann:abc").decode()
    >>> credential_in(header).secret, credential_in(header, basic=True)
    ('', Credential(secret='abc', user='ann'))
    """
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return Credential(value.strip())
    if basic and scheme.lower() == "basic":
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return Credential()
        user, _, secret = text.partition(":")
        return Credential(secret, user[:MAX_USER])
    return Credential()


@dataclass
class Guard:
    """Knows who may do what in this process.

    Parameters
    ----------
    tokens : service tokens by id, as the log says; None: none are known here.
    pipelines : says to which project each belongs.
    trail : where decisions and writes are noted.

    Raises
    ------
    RuntimeError
        When the installation's own token is set, to nothing.
    """

    settings: Settings
    tokens: StateView[TokenChanged] | None = None
    pipelines: Mapping[str, PipelineApplied] = field(default_factory=dict)
    trail: Trail | None = None

    def __post_init__(self) -> None:
        token = self.settings.api_token
        if token is not None and not token.get_secret_value():
            raise RuntimeError(
                "DRIFTLOOP_API_TOKEN is empty: set it to a long random text, or leave "
                "it out where people and programs have tokens of their own"
            )
        self._operator = token.get_secret_value().encode() if token else b""
        oidc = self.settings.oidc
        self._provider = AccessTokens(oidc) if oidc else None

    async def caller(self, secret: str) -> Caller:
        """Return who proves themselves with a secret.

        A coroutine: what needs no waiting costs no thread's hop.

        Raises
        ------
        IdentityError
            When it proves nobody.
        NotReadyError
            While that cannot be told.
        """
        if not secret:
            raise IdentityError(HOW)
        if self._operator and hmac.compare_digest(secret.encode(), self._operator):
            return Caller(
                OPERATOR,
                OPERATOR,
                is_operator=True,
                may_decide=self.settings.operator_decides,
            )
        token_id = tokens.id_of(secret)
        if token_id is not None:
            return self._holder(token_id, secret)
        if self._provider is not None and secret.count(".") == 2:  # a JWT
            caller = self._provider.known(secret)
            if caller is None:
                caller = await run_in_threadpool(self._provider.check, secret)
            return caller
        raise IdentityError(f"this token is not known here; {HOW}")

    def _holder(self, token_id: str, secret: str) -> Caller:
        if self.tokens is None:
            raise IdentityError("service tokens are not known here")
        known = self.tokens.get(token_id)
        if known is None and not self.tokens.is_current:
            raise NotReadyError("who may do what is still being read; try again")
        problem = tokens.problem_with(known, secret, datetime.now(UTC))
        if problem or known is None:
            raise IdentityError(problem or "")
        return self._caller_of(known)

    def _caller_of(self, known: TokenChanged) -> Caller:
        try:
            rights = Rights.of(known.roles)
        except RoleError as error:
            logger.error("bad roles of a token", token=known.token_id, error=str(error))
            rights = Rights()
        credential = f"token:{known.token_id}"
        return Caller(known.subject, credential, rights, until=known.expires_at)

    def still_holds(self, credential: str) -> bool:
        """Whether a credential that was checked before has not been taken back."""
        kind, _, token_id = credential.partition(":")
        if kind != "token":
            return True
        known = self.tokens.get(token_id) if self.tokens else None
        return (
            known is not None
            and known.revoked_at is None
            and (known.expires_at is None or known.expires_at > datetime.now(UTC))
        )

    def project_of(self, pipeline: str) -> tuple[str, list[str]] | None:
        """Return a pipeline's project and those it is shared with; None: unknown."""
        applied = self.pipelines.get(pipeline)
        if applied is None:
            return None
        return applied.spec.project, applied.spec.shared_with

    def allows(self, caller: Caller, action: Action, pipeline: str | None) -> bool:
        """Whether a caller may do something, about a pipeline or about none.

        About a pipeline that nobody has applied, whoever may in any project may: the
        answer is that there is none. What is about no pipeline belongs to no project.

        Raises
        ------
        NotReadyError
            While it cannot be told which project the pipeline belongs to.
        """
        if pipeline is None:
            return caller.may_somewhere(action)
        place = self.project_of(pipeline)
        if place is not None:
            return caller.may(action, *place)
        if caller.may(action, EVERYWHERE):
            return True
        if isinstance(self.pipelines, StateView) and not self.pipelines.is_current:
            raise NotReadyError("the pipelines are still being read; try again")
        return caller.may_somewhere(action)

    def check(self, caller: Caller, action: Action, pipeline: str | None) -> None:
        """Let only those pass who may.

        Raises
        ------
        DeniedError
            Names the role that is missing.
        NotReadyError
            See :meth:`allows`.
        """
        if not self.allows(caller, action, pipeline):
            place = self.project_of(pipeline) if pipeline else None
            raise caller.refusal(action, place[0] if place else None)


__all__ = ["DEFAULT_PROJECT", "Credential", "Guard", "credential_in"]
