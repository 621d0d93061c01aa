"""Routes declare what they do; without that none can be registered.

>>> router = GuardedRouter()
>>> @router.get("/secrets")
... def secrets() -> None: ...
Traceback (most recent call last):
    ...
TypeError: GET /secrets declares no action: give it needs(...), or openly(...)
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from driftloop.contracts.roles import ACTIONS, Action
from driftloop.runtime.identity.callers import (
    Caller,
    DeniedError,
    IdentityError,
    NotReadyError,
)
from driftloop.runtime.identity.guard import Guard, credential_in
from driftloop.runtime.identity.trail import NOTE, Asked
from driftloop.runtime.transport import PublishError
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi import params as fastapi_params
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

PIPELINE_PARAMETERS = ("pipeline", "name", "model")
"""How paths call the pipeline that a request is about."""
NOT_NOTED: frozenset[Action] = frozenset({"read", "send", "score", "audit"})
"""Actions that decide and change nothing, or are rows: no notes for the audit trail."""
bearer = HTTPBearer(
    auto_error=False, description="service token, access token, or the installation's"
)


class Needs:
    """What a route does; lets only those pass who may.

    Parameters
    ----------
    personal : the body may name a person, so no digest of it is kept.
    """

    def __init__(self, action: Action, *, personal: bool = False) -> None:
        self.action = action
        self.personal = personal

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
    ) -> None:
        await admit(request, self.action, personal=self.personal)


class Open:
    """Says why a route asks nobody who they are."""

    def __init__(self, why: str) -> None:
        self.why = why

    async def __call__(self) -> None:
        """Let everybody pass."""


def needs(action: Action, *, personal: bool = False) -> Any:
    """Return a route's or a router's declaration; of several, each has to be met."""
    if action not in ACTIONS:
        raise ValueError(f"{action!r} is none of {', '.join(ACTIONS)}")
    return Depends(Needs(action, personal=personal))


def openly(why: str) -> Any:
    """Return the declaration of a route that is open to all."""
    return Depends(Open(why))


class Proven:
    """Lets everybody pass who is proven to be somebody, whatever their roles."""

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
    ) -> None:
        await authenticate(request)


def proven() -> Any:
    """Return the declaration of a route that tells callers about themselves only."""
    return Depends(Proven())


class GuardedRoute(APIRoute):
    """A kind of route that checks rights itself, before its endpoint."""


class GuardedRouter(APIRouter):
    """A router whose every route declares what it does, itself or by its router."""

    def add_api_route(
        self, path: str, endpoint: Callable[..., Any], **fields: Any
    ) -> None:
        """Add a route.

        Raises
        ------
        TypeError
            When neither it nor the router declares an action.
        """
        own: Sequence[Any] = fields.get("dependencies") or ()
        checks_itself = issubclass(self.route_class, GuardedRoute)
        declared = any(_declares(each) for each in (*self.dependencies, *own))
        if not declared and not checks_itself:
            methods = ", ".join(sorted(fields.get("methods") or ["GET"]))
            raise TypeError(
                f"{methods} {self.prefix}{path} declares no action: give it "
                "needs(...), or openly(...)"
            )
        super().add_api_route(path, endpoint, **fields)

    def include_router(self, router: APIRouter, **fields: Any) -> None:
        """Add another router's routes.

        Raises
        ------
        TypeError
            When its routes need not declare what they do.
        """
        check_router(router)
        super().include_router(router, **fields)


def _declares(dependency: Any) -> bool:
    return isinstance(dependency, fastapi_params.Depends) and isinstance(
        dependency.dependency, Needs | Open | Proven
    )


def check_router(router: APIRouter) -> None:
    """Refuse a router whose routes need not declare what they do.

    Raises
    ------
    TypeError
        See above.
    """
    if not isinstance(router, GuardedRouter):
        raise TypeError(f"{router!r} is no GuardedRouter: its routes would be open")


def guard_of(request: Request) -> Guard:
    guard: Guard = request.app.state.guard
    return guard


def pipeline_in(request: Request) -> str | None:
    """Return the pipeline that a request's path names."""
    for name in PIPELINE_PARAMETERS:
        value = request.path_params.get(name)
        if value is not None:
            return str(value)
    return None


async def authenticate(request: Request, *, basic: bool = False) -> Caller:
    """Return who asks, and keep it for the endpoint.

    Raises
    ------
    HTTPException
        401 when the request proves nobody; 503 while that cannot be told.
    """
    header = request.headers.get("authorization", "")
    credential = credential_in(header, basic=basic)
    try:
        caller = await guard_of(request).caller(credential.secret)
    except IdentityError as error:
        raise HTTPException(
            401, str(error), headers={"WWW-Authenticate": "Bearer"}
        ) from error
    except NotReadyError as error:
        raise _later(error) from error
    request.state.caller = caller
    return caller


def _later(error: NotReadyError) -> HTTPException:
    return HTTPException(503, str(error), headers={"Retry-After": "2"})


async def admit(request: Request, action: Action, *, personal: bool = False) -> Caller:
    """Let a request pass whose sender may do this, and note it where that is due.

    Raises
    ------
    HTTPException
        401, 403 with the role that is missing, or 503.
    """
    caller = await authenticate(request)
    await authorise(request, caller, action, pipeline_in(request), personal=personal)
    return caller


async def authorise(
    request: Request,
    caller: Caller,
    action: Action,
    pipeline: str | None,
    *,
    personal: bool = False,
    noted: bool = True,
) -> None:
    """Check a right and note its use.

    Parameters
    ----------
    noted : False: this use is not worth a note, whatever the action.

    Raises
    ------
    HTTPException
        403 with the role that is missing; 503 when it cannot be noted.
    """
    guard = guard_of(request)
    trail = guard.trail if noted and action not in NOT_NOTED else None
    try:
        guard.check(caller, action, pipeline)
    except NotReadyError as error:
        raise _later(error) from error
    except DeniedError as error:
        if trail is not None:
            asked = await _asked(request, action, pipeline, personal)
            await _noting(lambda: trail.note(caller, asked, "refused", 403))
        raise HTTPException(403, str(error)) from error
    if trail is not None:
        asked = await _asked(request, action, pipeline, personal)
        note = await _noting(lambda: trail.note(caller, asked, "asked"))
        setattr(request.state, NOTE, note)


async def _asked(
    request: Request, action: Action, pipeline: str | None, personal: bool
) -> Asked:
    body = b"" if personal else await request.body()
    query = request.url.query
    return Asked(
        action,
        request.method,
        f"{request.url.path}?{query}" if query else request.url.path,
        pipeline,
        None if personal else hashlib.sha256(body).hexdigest(),
    )


async def _noting(note: Callable[[], Any]) -> Any:
    try:
        return await run_in_threadpool(note)
    except PublishError as error:
        raise HTTPException(
            503,
            "the broker is away, so it cannot be noted who asked; try again",
            headers={"Retry-After": "5"},
        ) from error


def check_about(request: Request, action: Action, pipeline: str) -> None:
    """Check a right again where the path does not say which pipeline it is about.

    Raises
    ------
    HTTPException
        403 with the role that is missing.
    """
    who_in(request).check(action, pipeline)


def caller_in(request: Request) -> Caller:
    """Return who asks, as it was checked before the endpoint."""
    caller: Caller = request.state.caller
    return caller


Asking = Annotated[Caller, Depends(caller_in)]
"""An endpoint's parameter: who asks."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, with what tells their rights: for work that is not a route's alone."""

    caller: Caller
    guard: Guard

    def check(self, action: Action, pipeline: str) -> None:
        """Let only those pass who may.

        Raises
        ------
        HTTPException
            403 with the role that is missing; 503 while that cannot be told.
        """
        try:
            self.guard.check(self.caller, action, pipeline)
        except DeniedError as error:
            raise HTTPException(403, str(error)) from error
        except NotReadyError as error:
            raise _later(error) from error

    def readable(self, pipelines: Iterable[str]) -> list[str]:
        """Return the pipelines, by name, that may be read.

        Raises
        ------
        HTTPException
            503 while that cannot be told.
        """
        try:
            return [
                name
                for name in sorted(pipelines)
                if self.guard.allows(self.caller, "read", name)
            ]
        except NotReadyError as error:
            raise _later(error) from error

    def named(self, claimed: str | None) -> str:
        return name_in(self.caller, claimed)


def who_in(request: Request) -> Who:
    """Return who asks, as it was checked before the endpoint."""
    return Who(caller_in(request), guard_of(request))


AskedBy = Annotated[Who, Depends(who_in)]
"""An endpoint's parameter: who asks, with what tells their rights."""


def name_in(caller: Caller, claimed: str | None) -> str:
    """Return who acts; see :meth:`Caller.named`.

    Raises
    ------
    HTTPException
        403 when the request says another name than it proves.
    """
    try:
        return caller.named(claimed)
    except DeniedError as error:
        raise HTTPException(403, str(error)) from error
