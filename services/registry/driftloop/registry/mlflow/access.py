"""Which right a call of MLflow's clients takes, and who is not let in."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from driftloop.contracts.roles import Action
from driftloop.registry.mlflow.call import DEFAULT_USER
from driftloop.registry.mlflow.errors import Refusal
from driftloop.runtime.identity.guard import credential_in
from driftloop.runtime.identity.routing import (
    GuardedRoute,
    authenticate,
    authorise,
    who_in,
)
from driftloop.runtime.problems import problem
from fastapi import HTTPException, Request, Response

READING = frozenset(
    {
        "experiments/search",
        "runs/search",
        "logged-models/search",
        "registered-models/get-latest-versions",
    }
)
"""Calls that only read, though clients send them by POST."""
PROMOTING = frozenset({"registered-models/alias", "model-versions/transition-stage"})
NAMED = ("registered-models/", "model-versions/")
"""Calls whose field ``name`` may be a pipeline."""
UNAUTHENTICATED = 401
CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}


def call_in(template: str) -> str:
    """Return the call of a route's path, which may have parameters.

    >>> call_in("/api/2.0/mlflow/runs/get"), call_in("/get-artifact")
    ('runs/get', '')
    """
    return template.partition("/mlflow/")[2]


def action_of(method: str, call: str) -> Action:
    """Return the right that a call takes; what is not known here writes.

    >>> action_of("POST", "runs/search"), action_of("POST", "runs/log-batch")
    ('read', 'train')
    >>> action_of("POST", "registered-models/alias"), action_of("POST", "webhooks")
    ('promote', 'operate')
    """
    if call.startswith("webhooks"):
        return "operate"  # they send events to other places
    if method in ("GET", "HEAD") or (method == "POST" and call in READING):
        return "read"
    return "promote" if call in PROMOTING else "train"


class CallRoute(GuardedRoute):
    """A call of MLflow's clients; its path says which right it takes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, call = super().get_route_handler(), call_in(self.path)
        if "{" not in self.path:  # else it reads the path's parameters
            handle = self.endpoint

        async def checked(request: Request) -> Response:
            action = action_of(request.method, call)
            noted = action != "train"  # metrics by the thousand; in the log anyway
            try:
                caller = await authenticate(request, basic=True)
                await authorise(request, caller, action, None, noted=noted)
            except HTTPException as error:
                return no_entry(error)
            header = request.headers.get("authorization", "")
            claimed = credential_in(header, basic=True).user or DEFAULT_USER
            request.state.user = claimed if caller.is_operator else caller.subject
            request.state.call = call
            return await handle(request)

        return checked


def check_named(request: Request, fields: Mapping[str, Any]) -> None:
    """Check the right again for the pipeline that a call's fields name.

    Raises
    ------
    Refusal
        PERMISSION_DENIED: runs belong to no project, a pipeline's versions do.
    """
    call, name = request.state.call, fields.get("name")
    if call.startswith(NAMED) and isinstance(name, str):
        try:
            who_in(request).check(action_of(request.method, call), name)
        except HTTPException as error:
            raise Refusal(CODES[error.status_code], str(error.detail)) from error


def no_entry(error: HTTPException) -> Response:
    """Return 401, 403 or 503, as problem and with MLflow's error code.

    401 asks for Bearer only: a browser would keep a Basic password and send it along
    with the requests of other sites' pages.
    """
    text = str(error.detail)
    if error.status_code == UNAUTHENTICATED:
        text = (
            "send the token as 'Authorization: Bearer TOKEN' (MLFLOW_TRACKING_TOKEN), "
            "or as the password of Basic (MLFLOW_TRACKING_PASSWORD); driftloop status "
            f"shows where the installation's own is ({text})"
        )
    code = CODES.get(error.status_code, "TEMPORARILY_UNAVAILABLE")
    answer = problem(error.status_code, text, error_code=code, message=text)
    answer.headers.update(error.headers or {})
    return answer
