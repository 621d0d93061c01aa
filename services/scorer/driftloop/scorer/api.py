"""The scorer's HTTP interface: two doors to the same models."""

from collections.abc import Callable

from driftloop.runtime.http import require_token
from driftloop.scorer.answering import Desk
from driftloop.scorer.invocations import invocations_router, ping_router
from driftloop.scorer.open_inference import health_router, open_inference_router
from driftloop.scorer.settings import ScorerSettings
from fastapi import APIRouter


def routers(
    desk: Desk, settings: ScorerSettings, is_ready: Callable[[], bool]
) -> list[APIRouter]:
    """Return all routes; only the probes, which tell nothing, need no token."""
    check = require_token(settings)
    return [
        open_inference_router(desk, check, settings.max_body_bytes),
        invocations_router(desk, check, settings.max_body_bytes),
        health_router(is_ready),
        ping_router(desk),
    ]
