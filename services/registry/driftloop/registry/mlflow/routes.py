"""The HTTP side of MLflow's interface: each call's path, the token, errors as its own.

Every route hangs below one router that asks who it is, by ``Authorization: Bearer
TOKEN`` or by the password of Basic. Beside the installation's own token, which names
nobody, the user of Basic is who writes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from driftloop.registry.mlflow import experiments, logged, logged_models, runs
from driftloop.registry.mlflow.access import CallRoute, check_named
from driftloop.registry.mlflow.call import Call, Json
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.http import (
    Endpoint,
    answer,
    answering,
    fields_of,
    refused,
)
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.proxy import Proxy, proxy_router
from driftloop.registry.mlflow.registered import aliases, models, versions
from driftloop.registry.mlflow.registered.packages import Packages, packages_router
from driftloop.registry.mlflow.registered.pipelines import NO_PIPELINES, Pipelines
from driftloop.runtime.identity.routing import GuardedRouter, who_in
from fastapi import Request, Response

PREFIX = "/api/2.0/mlflow"
Function = Callable[[Call], Json]
CALLS: tuple[tuple[str, str, Function], ...] = (
    ("POST", "experiments/create", experiments.create),
    ("GET", "experiments/get", experiments.get),
    ("GET", "experiments/get-by-name", experiments.get_by_name),
    ("GET", "experiments/search", experiments.search),
    ("POST", "experiments/search", experiments.search),
    ("POST", "experiments/update", experiments.update),
    ("POST", "experiments/delete", experiments.delete),
    ("POST", "experiments/restore", experiments.restore),
    ("POST", "experiments/set-experiment-tag", experiments.set_tag),
    ("POST", "experiments/delete-experiment-tag", experiments.delete_tag),
    ("POST", "runs/create", runs.create),
    ("GET", "runs/get", runs.get),
    ("POST", "runs/search", runs.search),
    ("POST", "runs/update", runs.update),
    ("POST", "runs/delete", runs.delete),
    ("POST", "runs/restore", runs.restore),
    ("POST", "runs/log-metric", logged.log_metric),
    ("POST", "runs/log-parameter", logged.log_param),
    ("POST", "runs/log-batch", logged.log_batch),
    ("POST", "runs/set-tag", logged.set_tag),
    ("POST", "runs/delete-tag", logged.delete_tag),
    ("POST", "runs/log-inputs", logged.log_inputs),
    ("POST", "runs/outputs", logged.log_outputs),
    ("GET", "metrics/get-history", logged.history),
    ("POST", "logged-models", logged_models.create),
    ("POST", "logged-models/search", logged_models.search),
    ("GET", "logged-models/{model_id}", logged_models.get),
    ("PATCH", "logged-models/{model_id}", logged_models.finalize),
    ("DELETE", "logged-models/{model_id}", logged_models.delete),
    ("POST", "logged-models/{model_id}/params", logged_models.log_params),
    ("PATCH", "logged-models/{model_id}/tags", logged_models.set_tags),
    ("DELETE", "logged-models/{model_id}/tags/{key:path}", logged_models.delete_tag),
    ("POST", "registered-models/create", models.create),
    ("GET", "registered-models/get", models.get),
    ("PATCH", "registered-models/update", models.update),
    ("POST", "registered-models/rename", models.rename),
    ("DELETE", "registered-models/delete", models.delete),
    ("GET", "registered-models/search", models.search),
    ("GET", "registered-models/get-latest-versions", models.latest),
    ("POST", "registered-models/get-latest-versions", models.latest),
    ("POST", "registered-models/set-tag", models.set_tag),
    ("DELETE", "registered-models/delete-tag", models.delete_tag),
    ("POST", "registered-models/alias", aliases.put),
    ("DELETE", "registered-models/alias", aliases.delete),
    ("GET", "registered-models/alias", aliases.get),
    ("POST", "model-versions/create", versions.create),
    ("GET", "model-versions/get", versions.get),
    ("PATCH", "model-versions/update", versions.update),
    ("DELETE", "model-versions/delete", versions.delete),
    ("GET", "model-versions/search", versions.search),
    ("GET", "model-versions/get-download-uri", versions.download_uri),
    ("POST", "model-versions/transition-stage", versions.move),
    ("POST", "model-versions/set-tag", versions.set_tag),
    ("DELETE", "model-versions/delete-tag", versions.delete_tag),
)
QUICK = frozenset(
    {
        experiments.get,
        experiments.get_by_name,
        runs.get,
        aliases.get,
        versions.get,
        versions.download_uri,
    }
)
"""Calls that read some rows by their key. On SQLite they are answered in place: to hand
one to a thread takes longer than to answer it."""
SEARCHES = frozenset(
    {
        experiments.search,
        runs.search,
        logged.history,
        logged_models.get,
        logged_models.search,
        models.get,
        models.search,
        models.latest,
        versions.search,
    }
)
"""Calls that read many rows. On SQLite they take turns on a few threads: each of many
would hold the interpreter's lock for a moment only, and wait for the others in between.
"""
SEARCH_THREADS = 2
LIKE_MLFLOW: dict[int | str, dict[str, Any]] = {
    400: {"description": "refused; error_code and message say why"},
    401: {"description": "the token is missing or wrong"},
    403: {"description": "the role is missing; message says which"},
    404: {"description": "there is no such thing"},
    503: {"description": "the log is still being read, or the database is away"},
}


def mlflow_router(
    journal: Journal,
    proxy: Proxy,
    packages: Packages,
    pipelines: Pipelines = NO_PIPELINES,
    more: Sequence[tuple[str, str, Function]] = (),
) -> GuardedRouter:
    """Return every route of MLflow's interface.

    Parameters
    ----------
    more : calls beside :data:`CALLS`, of parts that need more than a journal.
    """
    whole = GuardedRouter(tags=["mlflow"], responses=LIKE_MLFLOW)
    whole.include_router(packages_router(packages, proxy))
    whole.include_router(proxy_router(proxy))
    router = GuardedRouter(prefix=PREFIX, route_class=CallRoute)
    searchers = CapacityLimiter(SEARCH_THREADS)
    for method, path, function in (*CALLS, *more):
        router.add_api_route(
            f"/{path}",
            _endpoint(journal, pipelines, function, searchers),
            methods=[method],
            name=f"{method} {path}",
        )

    @router.api_route(
        "/{path:path}",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    def unknown(path: str) -> Response:
        return refused(
            Refusal("ENDPOINT_NOT_FOUND", f"{path}: this call is not kept here")
        )

    whole.include_router(router)
    return whole


def _endpoint(
    journal: Journal,
    pipelines: Pipelines,
    function: Function,
    searchers: CapacityLimiter,
) -> Endpoint:
    is_quick = journal.is_local and function in QUICK
    threads = searchers if journal.is_local and function in SEARCHES else None

    async def work(request: Request) -> Response:
        fields, size = await fields_of(request)
        fields |= request.path_params  # what the path names counts
        check_named(request, fields)
        asked = pipelines.asked_by(who_in(request))
        call = Call(journal, fields, request.state.user, size, asked)
        if is_quick:
            return answer(function(call))
        return answer(await to_thread.run_sync(function, call, limiter=threads))

    work.__doc__ = function.__doc__
    return answering(work)
