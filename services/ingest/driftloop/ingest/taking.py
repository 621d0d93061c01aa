"""Takes rows by HTTP: 202 once Kafka has them.

The rows go to the same topics that upstream systems write to, so one piece of code
types, identifies and batches them. What that code could only put aside as a dead
letter is refused here, where the sender still listens: nothing of a request with a
broken row is published.

Reading a body is the event loop's, parsing is for a few threads (it takes memory and
the interpreter's lock), waiting for Kafka for many.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from driftloop.contracts.events import PipelineApplied, RowKind
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.admission import Admission, BusyError, Place
from driftloop.ingest.attaching import Attached, has_attachments, refused_rows
from driftloop.ingest.core import typed_rows
from driftloop.ingest.discreet import has_rules, source_name
from driftloop.ingest.encodings import ENCODINGS, PLAIN, TooLargeError, decoded
from driftloop.ingest.errors import FormatError
from driftloop.ingest.formats import (
    KNOWN_TYPES,
    BadRow,
    Parsed,
    is_known,
    parse,
)
from driftloop.ingest.metrics import BUSY, IN_WORK
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.records import records_of, rewritten
from driftloop.ingest.settings import IngestSettings
from driftloop.runtime.envelope import STRUCTURED_TYPE, Attributes, attributes_of
from driftloop.runtime.errors import Reject
from driftloop.runtime.problems import problem
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, Publisher, PublishError, Record
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

NOT_APPLIED = "the pipeline is not applied"
PUBLISH_TIMEOUT_S = 10
BROKER_RETRY_AFTER_S = 5
BUSY_RETRY_AFTER_S = 1
SHOWN_ERRORS = 20
PARSERS = 2
"""Threads; each may hold a whole decoded request, so few."""
SENDERS = 32
"""Threads; each waits for Kafka most of the time."""

T = TypeVar("T")
Attach = Callable[[Parsed, PipelineSpec], Attached]
"""Puts references in place of payloads; see ``payload_door.py``."""


class Accepted(BaseModel):
    """Kafka has the rows."""

    pipeline: str
    kind: RowKind
    row_count: int
    message_count: int
    id: str = Field(description="CloudEvents id of the first message")


class Door:
    """What taking needs; made once for a process."""

    def __init__(
        self,
        settings: IngestSettings,
        publisher: Publisher,
        pipelines: StateView[PipelineApplied],
        privacy: PrivacyDoor | None = None,
        attach: Attach | None = None,
    ) -> None:
        self.settings = settings
        self.publisher = publisher
        self.pipelines = pipelines
        self.privacy = privacy
        self.attach = attach
        self.admission = Admission(
            settings.max_requests_in_work, settings.max_bytes_in_work
        )
        self.parsers = ThreadPoolExecutor(PARSERS, "door-parser")
        self.senders = ThreadPoolExecutor(SENDERS, "door-sender")


async def take(
    door: Door, request: Request, name: str, kind: RowKind, source: str
) -> Any:
    """Answer one request.

    Raises
    ------
    HTTPException
        With the status and a text that says what to do.
    """
    encoding = _encoding(request)
    spec = spec_of(door, name)
    size = announced(request)
    _check_size(size, door.settings.max_body_bytes)
    try:
        with door.admission.place(size) as place:
            body = await _body(request, place, door.settings)
            if encoding:
                body = await _decoded(door, body, encoding, place)
            IN_WORK.set(door.admission.bytes)
            given = _Given(dict(request.headers), body, spec, kind, source, door)
            prepared = await within(door.parsers, partial(_prepare, given))
            del body, given
            if isinstance(prepared, Response):
                return prepared
            accepted, records = prepared
            place.resize(sum(len(record.value or b"") for record in records))
            await _publish(door, records)
            return accepted
    except BusyError as error:
        raise busy(error, ", nothing of it was published") from error
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    finally:
        IN_WORK.set(door.admission.bytes)


def busy(error: BusyError, more: str = "") -> HTTPException:
    """Count a request that there is no room for, and return its answer."""
    BUSY.inc()
    return HTTPException(
        429,
        f"{error}; send this one again in a moment{more}",
        headers={"Retry-After": str(BUSY_RETRY_AFTER_S)},
    )


async def within(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """Return what a call gives in one of these threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def spec_of(door: Door, name: str) -> PipelineSpec:
    """Return a pipeline's file.

    Raises
    ------
    HTTPException
        When it is not applied.
    """
    applied = door.pipelines.get(name)
    if applied is None:
        known = ", ".join(sorted(door.pipelines)) or "none"
        raise HTTPException(404, f"no pipeline {name!r} is applied; applied: {known}")
    return applied.spec


def _encoding(request: Request) -> str | None:
    given = request.headers.get("content-encoding", PLAIN).strip().lower()
    if given == PLAIN:
        return None
    if given not in ENCODINGS:
        raise HTTPException(
            415,
            f"content encoding {given[:80]!r} is not known; use one of "
            f"{', '.join(ENCODINGS)}, or none",
        )
    return given


def announced(request: Request) -> int:
    """Return the length that the sender announces; 0: it does not say.

    Raises
    ------
    HTTPException
        When it is no number.
    """
    text = request.headers.get("content-length", "0")
    if not text.isdecimal():
        raise HTTPException(400, f"content-length {text[:80]!r} is no number")
    return int(text)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPException(
            413, f"more than {limit} bytes; send several requests, or publish to Kafka"
        )


async def _body(request: Request, place: Place, settings: IngestSettings) -> bytes:
    """Read a request's body, and no more than the limit of it."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            async for part in request.stream():
                size += len(part)
                _check_size(size, settings.max_body_bytes)
                place.resize(max(place.size, size))
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(
            408,
            f"the body did not arrive within {settings.body_timeout_seconds:g} s; send "
            "smaller requests",
        ) from error
    return b"".join(parts)


async def _decoded(door: Door, body: bytes, encoding: str, place: Place) -> bytes:
    limit = door.settings.max_decoded_bytes
    place.resize(len(body) + limit)
    try:
        body = await within(door.parsers, partial(decoded, body, encoding, limit))
    except FormatError as error:
        raise HTTPException(422, str(error)) from error
    except TooLargeError as error:
        raise HTTPException(413, f"{error}; send several requests") from error
    place.resize(len(body))
    return body


@dataclass(frozen=True)
class _Given:
    """A request as it arrived."""

    headers: dict[str, str]
    body: bytes
    spec: PipelineSpec
    kind: RowKind
    source: str
    door: Door


def _prepare(given: _Given) -> tuple[Accepted, list[Record]] | Response:
    """Return what is to be published and the answer after that, or a refusal."""
    spec, kind = given.spec, given.kind
    try:
        attributes = _attributes(given.headers, given.body)
        if not is_known(attributes.content_type):
            raise HTTPException(
                415,
                f"content type {attributes.content_type[:80]!r} is not known; use one "
                f"of {', '.join(KNOWN_TYPES)} or application/cloudevents+json",
            )
        parsed = parse(attributes.data or b"", attributes.content_type)
        source = _source_of(attributes, parsed) or given.source
        private = _private(given)
        attached = _attached(given, parsed)
        parsed = attached.parsed
        if private:
            source, parsed = source_name(source), private.treated(parsed, spec)
        bad = [*parsed.bad, *refused_rows(attached)]
        if len(parsed.numbers):
            bad += [row for _, row in typed_rows(parsed, spec, kind, source).bad]
        if bad:
            return _refusal(bad)
        if not parsed.numbers:
            raise HTTPException(422, "there are no rows in the request")
        if private:
            attributes = private.own_attributes(attributes, parsed)
        elif attached.is_changed:
            attributes = rewritten(attributes.values, parsed)
        records = records_of(attributes, parsed, spec.name, kind, source)
        if private:
            records = [private.sealed(record, spec) for record in records]
    except (FormatError, Reject) as error:
        raise HTTPException(422, str(error)) from error
    except TooLargeError as error:
        raise HTTPException(413, str(error)) from error
    accepted = Accepted(
        pipeline=spec.name,
        kind=kind,
        row_count=len(parsed.numbers),
        message_count=len(records),
        id=dict(records[0].headers)["ce_id"].decode(),
    )
    return accepted, records


def _private(given: _Given) -> PrivacyDoor | None:
    """Return what applies the privacy rules; None: the pipeline has none."""
    if not has_rules(given.spec):
        return None
    if given.door.privacy is None:
        raise HTTPException(503, "there is no privacy key; set DRIFTLOOP_PRIVACY_KEY")
    return given.door.privacy


def _attached(given: _Given, parsed: Parsed) -> Attached:
    """Return the rows with references in place of payloads."""
    if not has_attachments(given.spec) or not len(parsed.numbers):
        return Attached(parsed)
    if given.door.attach is None:
        raise HTTPException(503, "there is no store of payloads")
    return given.door.attach(parsed, given.spec)


async def _publish(door: Door, records: list[Record]) -> None:
    deadline = time.monotonic() + PUBLISH_TIMEOUT_S

    def send() -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise PublishError("earlier requests still wait for the broker")
        door.publisher.publish(records, timeout_s=left_s)

    try:
        await within(door.senders, send)
    except PublishError as error:
        raise HTTPException(
            503,
            "Kafka does not take the rows at the moment; send them again, a row that "
            f"did arrive is not taken twice ({error})",
            headers={"Retry-After": str(BROKER_RETRY_AFTER_S)},
        ) from error


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
    attributes = attributes_of(message)
    for name in ("id", "source", "datacontenttype"):
        if not (attributes.get(name) or "").isprintable():
            raise Reject("has characters that cannot be printed", field=f"ce-{name}")
    return attributes


def _source_of(attributes: Attributes, parsed: Parsed) -> str:
    given = attributes.get("source") or parsed.source or ""
    if not given.isprintable():
        raise Reject("has characters that cannot be printed", field="source")
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
