"""The registry's REST interface, ``/api/v1``."""

from driftloop.contracts.identity import TokenChanged
from driftloop.registry.access import access_routes
from driftloop.registry.alerting.rest import Alerting, alert_routes
from driftloop.registry.audit_api import audit_routes
from driftloop.registry.changes.rest import Streams, change_routes
from driftloop.registry.comments.rest import comment_routes
from driftloop.registry.erasures.rest import erasure_routes
from driftloop.registry.lineage.rest import lineage_routes
from driftloop.registry.promotions import promotion_routes
from driftloop.registry.reads import read_routes
from driftloop.registry.resources.approvals import approval_routes
from driftloop.registry.resources.comparisons import comparison_routes
from driftloop.registry.resources.datasets import dataset_routes
from driftloop.registry.resources.decisions import decision_routes
from driftloop.registry.resources.deployments import deployment_routes
from driftloop.registry.resources.edges import edge_routes
from driftloop.registry.resources.runs import run_routes
from driftloop.registry.rest import Context
from driftloop.registry.verdicts.rest import verdict_routes
from driftloop.registry.writes import write_routes
from driftloop.runtime.identity.routing import GuardedRouter
from driftloop.runtime.problems import refusals
from driftloop.runtime.state import StateView

RESOURCES = (
    dataset_routes,
    run_routes,
    comparison_routes,
    approval_routes,
    deployment_routes,
    edge_routes,
    decision_routes,
    comment_routes,
    verdict_routes,
)


def api_router(
    context: Context,
    tokens: StateView[TokenChanged],
    streams: Streams,
    alerting: Alerting,
) -> GuardedRouter:
    """Return every route; each says which right it takes."""
    router = GuardedRouter(
        prefix="/api/v1",
        responses=refusals(
            {
                404: "there is no such thing; says what there is",
                503: "what it takes is away, or still being read; come again",
            }
        ),
    )
    router.include_router(read_routes(context))
    router.include_router(write_routes(context))
    router.include_router(promotion_routes(context))
    for routes in RESOURCES:
        router.include_router(routes(context))
    router.include_router(change_routes(context, streams))
    router.include_router(alert_routes(context, alerting))
    router.include_router(lineage_routes(context))
    router.include_router(erasure_routes(context))
    router.include_router(access_routes(context, tokens))
    router.include_router(audit_routes(context))
    return router
