"""Reports of runners at the edge: one route of ingest's HTTP interface.

202 means that Kafka has the report. Its event has an id and a time that follow from
the report, so a report that is sent again, because its answer was lost, is one event.
"""

from functools import partial
from typing import Annotated

from driftloop.contracts.base import NAME_PATTERN, Chain, Meta, derived_id
from driftloop.contracts.edge import EdgeReport, report_name
from driftloop.contracts.events import EdgeReported
from driftloop.ingest.taking import (
    NOT_APPLIED,
    PUBLISH_TIMEOUT_S,
    Door,
    spec_of,
    within,
)
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from driftloop.runtime.problems import refusals
from driftloop.runtime.transport import PublishError
from fastapi import HTTPException, Path, Request
from pydantic import BaseModel, Field, ValidationError

MAX_REPORT_BYTES = 64 * 1024
RETRY_AFTER_S = 5
SHOWN_ERRORS = 20


class Reported(BaseModel):
    """Kafka has the report."""

    pipeline: str
    edge: str
    event_id: str = Field(description="the same for a report that is sent again")


def router(door: Door, store: ArtifactStore) -> GuardedRouter:
    """Return the route that takes reports of runners."""
    routes = GuardedRouter(
        prefix="/v1/pipelines/{name}",
        tags=["edge"],
        dependencies=[needs("send")],
        responses=refusals(
            {
                404: NOT_APPLIED,
                413: "the report is too large",
                422: "it is no report",
                503: "Kafka does not take it at the moment; send it again",
            }
        ),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type

    @routes.post(
        "/edge-reports",
        status_code=202,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": EdgeReport.model_json_schema()}
                },
            }
        },
    )
    async def edge_reports(request: Request, name: Name, who: AskedBy) -> Reported:
        """Take what a runner of an exported version tells of itself."""
        spec_of(door, name)
        report = report_in(await _body(request))
        event = EdgeReported(
            pipeline=name, reported_by=who.caller.subject, **dict(report)
        )
        event_id = derived_id(
            report_name(name, report.edge, report.report_id), event.topic(), 0
        )
        meta = Meta(event_id, report.until, "/driftloop/edge", Chain(event_id))
        record = encode(event, meta, store)
        send = partial(door.publisher.publish, [record], timeout_s=PUBLISH_TIMEOUT_S)
        try:
            await within(door.senders, send)
        except PublishError as error:
            raise HTTPException(
                503,
                "Kafka does not take the report at the moment; send it again, it "
                "counts once",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        return Reported(pipeline=name, edge=report.edge, event_id=event_id)

    return routes


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_REPORT_BYTES:
            raise HTTPException(413, f"a report has at most {MAX_REPORT_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def report_in(body: bytes) -> EdgeReport:
    """Return the report that a body is; what a newer runner adds to it is left out.

    Raises
    ------
    HTTPException
        422 that names what is not right.
    """
    try:
        report = EdgeReport.model_validate_json(body)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc'])) or 'report'}: {one['msg']}"
            for one in error.errors()[:SHOWN_ERRORS]
        ]
        raise HTTPException(422, "; ".join(wrong)) from error
    known = EdgeReport.model_fields
    return EdgeReport.model_construct(
        **{name: value for name, value in report if name in known}
    )
