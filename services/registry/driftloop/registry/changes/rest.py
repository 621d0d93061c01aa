"""REST: follow what happens, by server-sent events."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from driftloop.contracts import events as e
from driftloop.contracts.roles import EVERYWHERE
from driftloop.registry.changes.positions import Positions, parse_positions
from driftloop.registry.changes.stream import (
    EventStream,
    Listener,
    LogReader,
    told,
)
from driftloop.registry.requests import wait_for
from driftloop.registry.resources.listing import OfPipeline
from driftloop.registry.rest import ApiRouter, Context
from driftloop.runtime.follower import LogSilentError, bounds_of
from driftloop.runtime.identity.callers import IdentityError, NotReadyError
from driftloop.runtime.identity.guard import credential_in
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, Who, needs
from driftloop.runtime.problems import refusals
from fastapi import Header, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool

CHANGES = tuple(
    event.topic()
    for event in (
        e.PipelineApplied, e.DatasetVersioned, e.DriftDetected, e.RetrainRequested,
        e.TrainingStarted, e.TrainingSkipped, e.TrainingFailed, e.TrainingCancelled,
        e.ModelTrained, e.ModelRegistered, e.ApprovalRequested, e.ApprovalReminded,
        e.ApprovalRenewed, e.ApprovalExpired, e.ApprovalGiven, e.ModelApproved,
        e.ModelRejected, e.RollbackRequested, e.RolloutSteered, e.PromotionSteered,
        e.RolloutAdvanced, e.ModelDeployed, e.ModelRolledBack, e.CommentChanged,
        e.ErasureTraced, e.SettlementRequested, e.ErasureSettled, e.ErasureCompleted,
    )
)  # fmt: skip
"""Topics that are told of: what is decided and done, no rows and no runs of MLflow."""
START = "start"
APPLIED_WITHIN_S = 2.0
MAX_POSITION_CHARACTERS = 8000
LISTENING: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "server-sent events; `data` is a change, `id` where to go on",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: model-deployed/0/18\ndata: {"kind": "model-deployed", '
                '"pipeline": "bike-demand", "version": 3, '
                '"text": "v3 answers all requests"}\n\n',
            }
        },
    },
    **refusals({503: "the broker is away, or too many follow already"}),
}
OfChange = Annotated[
    list[str] | None,
    Query(
        alias="kind",
        max_length=len(CHANGES),
        description="topic of an event; may be given several times. Default: all of "
        + ", ".join(CHANGES),
        examples=[["model-deployed"]],
    ),
]
LastId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=MAX_POSITION_CHARACTERS,
        description="`id` of the last event that came; what came after it follows",
    ),
]
AfterId = Annotated[
    str | None,
    Query(
        max_length=MAX_POSITION_CHARACTERS,
        description=f"as Last-Event-ID, which wins; {START}: all that the log holds. "
        "Default: from now on",
    ),
]


@dataclass(frozen=True)
class Streams:
    """How many may follow at once, and whether the process ends."""

    places: threading.Semaphore
    stopping: threading.Event


def change_routes(context: Context, streams: Streams) -> GuardedRouter:
    """Return the route that follows the log."""
    router = ApiRouter(tags=["changes"], dependencies=[needs("read")])

    @router.get(
        "/changes", response_class=EventStream, status_code=200, responses=LISTENING
    )
    async def changes(
        request: Request,
        who: AskedBy,
        pipeline: OfPipeline = None,
        kinds: OfChange = None,
        last_id: LastId = None,
        after: AfterId = None,
    ) -> EventStream:
        """Follow what happens, of the projects that one may read.

        The order of one kind and pipeline is the log's; kinds have none among each
        other. An event can come twice where its sender was killed: `event_id` is the
        same then.
        """
        if pipeline is not None:
            who.check("read", pipeline)
        topics = _topics(kinds)
        begin = await run_in_threadpool(
            _begin, context, topics, last_id if last_id is not None else after
        )
        if not streams.places.acquire(blocking=False):
            raise HTTPException(
                503, "too many follow already", headers={"Retry-After": "10"}
            )
        reader = LogReader(context.settings, topics, begin)

        def close() -> None:
            reader.close()
            streams.places.release()

        secret = credential_in(request.headers.get("authorization", "")).secret

        async def still_holds() -> bool:
            try:
                await who.guard.caller(secret)
            except (IdentityError, NotReadyError):
                return False
            return True

        may_read = _reading_rights(context, who)
        listener = Listener(pipeline, may_read, still_holds)
        store = context.requests.store
        return EventStream(
            told(reader, begin, listener, store, streams.stopping), close
        )

    return router


def _reading_rights(context: Context, who: Who) -> Callable[[str], bool]:
    """Return whether a caller may read a pipeline, asked in a thread of its own.

    The file of a new pipeline may be read a moment after what happened to it, so it is
    waited for, once a name. What belongs to no project is for those who may read all.
    """
    never_applied: set[str] = set()

    def may_read(name: str) -> bool:
        if who.caller.may("read", EVERYWHERE):
            return True
        if name not in context.pipelines and name not in never_applied:
            wait_for(lambda: context.pipelines.get(name), APPLIED_WITHIN_S)
        if name not in context.pipelines:
            never_applied.add(name)
            return False
        return who.readable([name]) == [name]

    return may_read


def _topics(kinds: list[str] | None) -> list[str]:
    unknown = sorted(set(kinds or ()) - set(CHANGES))
    if unknown:
        raise HTTPException(
            422, f"kind: no {unknown[0]!r:.80}; there are {', '.join(CHANGES)}"
        )
    return sorted(set(kinds or CHANGES))


def _begin(context: Context, topics: list[str], after: str | None) -> Positions:
    """Return where to begin: after an id, at the log's beginning, or now."""
    if after == START:
        return {}
    if after is not None:
        try:
            return parse_positions(after)
        except ValueError as error:
            raise HTTPException(
                422, f"Last-Event-ID: {error}; send the id of an event as it came"
            ) from error
    settings = context.settings
    try:
        bounds = bounds_of(settings.broker, topics, settings.kafka_config)
    except LogSilentError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error
    return {place: end for place, (_, end) in bounds.items()}
