"""The data door on HTTP: rows in, 202 once Kafka has them.

The rows go to the same topics that upstream systems write to, so one piece of code
types, identifies and batches them. What that code could only put aside as a dead
letter is refused here, where the sender still listens: nothing of a request with a
broken row is published.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid5

import pyarrow as pa
from driftloop.contracts.base import EVENT_NAMESPACE, NAME_PATTERN
from driftloop.contracts.events import (
    LabelArrived,
    ObservationArrived,
    PipelineApplied,
    RowKind,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.ingest.core import MAX_BATCH_BYTES, typed_rows
from driftloop.ingest.formats import (
    KNOWN_TYPES,
    NDJSON_TYPE,
    BadRow,
    FormatError,
    Parsed,
    is_known,
    parse,
    row_json,
)
from driftloop.ingest.settings import IngestSettings
from driftloop.runtime.envelope import STRUCTURED_TYPE, Attributes, attributes_of
from driftloop.runtime.errors import Reject
from driftloop.runtime.http import problem, require_token
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, Publisher, PublishError, Record
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

PUBLISH_TIMEOUT_S = 10
RETRY_AFTER_S = 5
SHOWN_ERRORS = 20
TOPICS: dict[RowKind, str] = {
    "observations": ObservationArrived.topic(),
    "labels": LabelArrived.topic(),
}
TYPES: dict[RowKind, str] = {
    "observations": ObservationArrived.type_name(),
    "labels": LabelArrived.type_name(),
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "rows; each with the pipeline's id and time columns",
        "content": {
            name: {} for name in (*KNOWN_TYPES, "application/cloudevents+json")
        },
    }
}


class Accepted(BaseModel):
    """Kafka has the rows."""

    pipeline: str
    kind: RowKind
    row_count: int
    message_count: int
    id: str = Field(description="CloudEvents id of the first message")


@dataclass(frozen=True)
class Door:
    """What the routes need."""

    settings: IngestSettings
    publisher: Publisher
    pipelines: StateView[PipelineApplied]


def router(door: Door) -> APIRouter:
    """Return the routes; all of them need the installation's token."""
    routes = APIRouter(
        prefix="/v1/pipelines/{name}",
        tags=["rows"],
        dependencies=[Depends(require_token(door.settings))],
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type
    Source = Annotated[  # noqa: N806 - a type
        str,
        Query(
            pattern=r"^[\w.:-]{1,200}$",
            description="the upstream system; rows of one source stay in order",
        ),
    ]

    @routes.post(
        "/observations", status_code=202, response_model=Accepted, openapi_extra=_BODY
    )
    async def observations(
        request: Request, name: Name, source: Source = "http"
    ) -> Any:
        """Take rows of features, with or without their target."""
        return await _take(door, request, name, "observations", source)

    @routes.post(
        "/labels", status_code=202, response_model=Accepted, openapi_extra=_BODY
    )
    async def labels(request: Request, name: Name, source: Source = "http") -> Any:
        """Take targets of rows known by id."""
        return await _take(door, request, name, "labels", source)

    return routes


async def _take(
    door: Door, request: Request, name: str, kind: RowKind, source: str
) -> Any:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "send the body without a content-encoding")
    applied = door.pipelines.get(name)
    if applied is None:
        known = ", ".join(sorted(door.pipelines)) or "none"
        raise HTTPException(404, f"no pipeline {name!r} is applied; applied: {known}")
    body = await _body(request, door.settings.max_body_bytes)
    return await run_in_threadpool(
        _accept, door, dict(request.headers), body, applied.spec, kind, source
    )


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body, and no more than the limit of it."""
    parts, size = [], int(request.headers.get("content-length", 0))
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        raise HTTPException(
            413, f"more than {limit} bytes; send several requests, or publish to Kafka"
        )
    return b"".join(parts)


def _accept(
    door: Door,
    headers: dict[str, str],
    body: bytes,
    spec: PipelineSpec,
    kind: RowKind,
    source: str,
) -> Accepted | Response:
    try:
        attributes = _attributes(headers, body)
        data = attributes.data or b""
        if not is_known(attributes.content_type):
            raise HTTPException(
                415,
                f"content type {attributes.content_type!r} is not known; use one of "
                f"{', '.join(KNOWN_TYPES)} or application/cloudevents+json",
            )
        parsed = parse(data, attributes.content_type)
    except (FormatError, Reject) as error:
        raise HTTPException(422, str(error)) from error
    source = _source_of(attributes, parsed) or source
    bad = [*parsed.bad]
    if len(parsed.numbers):
        bad += [row for _, row in typed_rows(parsed, spec, kind, source).bad]
    if bad:
        return _refusal(bad)
    if not parsed.numbers:
        raise HTTPException(422, "there are no rows in the request")
    records = _records(attributes, parsed, spec.name, kind, source, headers)
    try:
        door.publisher.publish(records, timeout_s=PUBLISH_TIMEOUT_S)
    except PublishError as error:
        raise HTTPException(
            503,
            "Kafka does not take the rows at the moment; send them again, a row that "
            f"did arrive is not taken twice ({error})",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ) from error
    return Accepted(
        pipeline=spec.name,
        kind=kind,
        row_count=len(parsed.numbers),
        message_count=len(records),
        id=dict(records[0].headers)["ce_id"].decode(),
    )


def _attributes(headers: dict[str, str], body: bytes) -> Attributes:
    """Read CloudEvents attributes; HTTP writes ``ce-id`` where Kafka has ``ce_id``."""
    renamed = [
        (f"ce_{name[3:]}" if name.startswith("ce-") else name, value.encode())
        for name, value in headers.items()
        if name.startswith("ce-") or name in ("content-type", "traceparent")
    ]
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith(f"{STRUCTURED_TYPE}-batch"):
        raise HTTPException(415, "send CloudEvents one by one, with many rows in each")
    message = Message("", -1, -1, None, body, tuple(renamed))
    return attributes_of(message)


def _source_of(attributes: Attributes, parsed: Parsed) -> str:
    given = attributes.get("source") or parsed.source or ""
    return given.rstrip("/").rpartition("/")[2]


def _refusal(bad: list[BadRow]) -> JSONResponse:
    bad.sort(key=lambda row: row.number)
    errors = [
        {"row": row.number, "field": row.field, "problem": row.reason}
        for row in bad[:SHOWN_ERRORS]
    ]
    return problem(
        422,
        f"{len(bad)} of the rows cannot be taken; nothing was published",
        errors=errors,
        error_count=len(bad),
    )


def _records(
    attributes: Attributes,
    parsed: Parsed,
    pipeline: str,
    kind: RowKind,
    source: str,
    headers: dict[str, str],
) -> list[Record]:
    """Return Kafka records of a request; the same request gives the same ids."""
    data = attributes.data or b""
    if len(data) <= MAX_BATCH_BYTES:
        pieces = [(attributes.content_type, data)]
    else:
        pieces = list(_pieces(parsed))
    digest = hashlib.sha256(data).hexdigest()
    given = attributes.get("id") or digest
    records = []
    for number, (content_type, value) in enumerate(pieces):
        name = f"{pipeline}/{kind}/{source}/{given}/{number}"
        fields = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid5(EVENT_NAMESPACE, name)),
            "ce_source": f"/upstream/{source}",
            "ce_type": TYPES[kind],
            "ce_subject": pipeline,
            "ce_time": datetime.now(UTC).isoformat(),
            "content-type": content_type,
        }
        if "traceparent" in headers:
            fields["traceparent"] = headers["traceparent"]
        records.append(
            Record(
                TOPICS[kind],
                f"{pipeline}/{source}".encode(),
                value,
                tuple((key, text.encode()) for key, text in fields.items()),
            )
        )
    return records


def _pieces(parsed: Parsed) -> Iterator[tuple[str, bytes]]:
    """Cut a large request into messages that the broker takes."""
    if isinstance(parsed.rows, list):
        yield from _ndjson_pieces(parsed)
        return
    table = parsed.rows
    row_bytes = max(1, table.nbytes // table.num_rows)
    size = max(1, MAX_BATCH_BYTES // row_bytes)
    for start in range(0, table.num_rows, size):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, size))
        yield ARROW_TYPE, sink.getvalue().to_pybytes()


def _ndjson_pieces(parsed: Parsed) -> Iterator[tuple[str, bytes]]:
    lines: list[bytes] = []
    size = 0
    for row in parsed.rows:
        line = row_json(row)
        if len(line) > MAX_BATCH_BYTES:
            raise HTTPException(413, f"a row of more than {MAX_BATCH_BYTES} bytes")
        if lines and size + len(line) > MAX_BATCH_BYTES:
            yield NDJSON_TYPE, b"\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield NDJSON_TYPE, b"\n".join(lines)
