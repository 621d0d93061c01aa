"""The scorer's HTTP interface: two doors to the same models."""

from collections.abc import Callable

from driftloop.runtime.identity.routing import GuardedRouter
from driftloop.scorer.answering import Desk
from driftloop.scorer.invocations import invocations_router, ping_router
from driftloop.scorer.open_inference.rest import health_router, open_inference_router
from driftloop.scorer.settings import ScorerSettings


def routers(
    desk: Desk, settings: ScorerSettings, is_ready: Callable[[], bool]
) -> list[GuardedRouter]:
    """Return all routes; only the probes, which tell nothing, ask nobody."""
    return [
        open_inference_router(desk, settings.max_body_bytes),
        invocations_router(desk, settings.max_body_bytes),
        health_router(is_ready),
        ping_router(desk),
    ]
