"""Payloads at the HTTP door: uploaded by themselves, or taken out of rows.

An upload is hashed while it is read and lies in a temporary file until it is complete,
so that a process holds no more of it than :data:`MEMORY_BYTES`. 201 means that the
store has it.
"""

import asyncio
import base64
import binascii
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from driftloop.contracts.attachments import Attachment
from driftloop.contracts.payloads import Found, Meter, bare_type
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.admission import BusyError, Place
from driftloop.ingest.attaching import Attached, attach, has_attachments
from driftloop.ingest.formats import Parsed
from driftloop.ingest.keys import PrivacyKeys
from driftloop.ingest.metrics import IN_WORK, PAYLOADS
from driftloop.ingest.owners import Owners
from driftloop.ingest.taking import Door, announced, busy, spec_of, within
from driftloop.runtime.errors import Retry
from driftloop.runtime.payloads import PayloadStore
from fastapi import HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from starlette.requests import ClientDisconnect

MEMORY_BYTES = 1024 * 1024
RETRY_AFTER_S = 5
ANY_TYPE = "application/octet-stream"
CONTENT_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,100}):")


class Uploaded(BaseModel):
    """The store has the payload; a row may name its sha256."""

    sha256: str
    size_bytes: int
    media_type: str = Field(description="what its bytes are")
    uri: str


@dataclass(frozen=True)
class PayloadDoor:
    """Where payloads lie, and the database that remembers whose they are."""

    store: PayloadStore
    engine: Engine
    keys: PrivacyKeys

    def attached(self, parsed: Parsed, spec: PipelineSpec) -> Attached:
        """Return rows with references in place of payloads, which are stored.

        Raises
        ------
        HTTPException
            When the store or the database is away or busy.
        """
        try:
            with Session(self.engine) as session:
                owners = Owners(session, self.keys)
                found = attach(parsed, spec, self.store, owners)
                session.commit()
        except (Retry, OperationalError) as error:
            raise HTTPException(
                503,
                "the store of payloads does not answer; send the rows again",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        return found


async def upload(
    door: Door, store: PayloadStore, request: Request, name: str, column: str | None
) -> Uploaded | Response:
    """Answer one upload.

    Raises
    ------
    HTTPException
        With the status and a text that says what to do.
    """
    spec = spec_of(door, name)
    allowed = _allowed(spec, column)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "send a payload as it is, without content-encoding")
    limit = max(each.max_bytes for each in allowed.values())
    size = announced(request)
    _check_size(size, limit)
    try:
        with (
            door.admission.place(min(size, MEMORY_BYTES)) as place,
            tempfile.SpooledTemporaryFile(MEMORY_BYTES) as file,
        ):
            found = await _received(door, request, place, file, limit)  # type: ignore[arg-type]  # a binary file but by name
            kind = _checked(found, request, allowed)
            put = partial(store.put_file, name, file)  # type: ignore[arg-type]  # as above
            reference = await within(door.senders, put)
    except BusyError as error:
        raise busy(error) from error
    except (Retry, OSError) as error:
        raise HTTPException(
            503,
            "the store does not take the payload at the moment; send it again",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ) from error
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    finally:
        IN_WORK.set(door.admission.bytes)
    PAYLOADS.labels(name, "upload").inc()
    return Uploaded(
        sha256=reference.sha256,
        size_bytes=found.size_bytes,
        media_type=kind,
        uri=reference.uri,
    )


def _allowed(spec: PipelineSpec, column: str | None) -> dict[str, Attachment]:
    """Return the attachments that an upload may be for."""
    attachments = {
        name: each
        for name, each in spec.data.attachments.items()
        if name not in spec.data.privacy
    }
    if not has_attachments(spec) or not attachments:
        raise HTTPException(
            422, f"pipeline {spec.name!r} takes no payloads: it has no attachments"
        )
    if column is None:
        return attachments
    if column not in attachments:
        raise HTTPException(
            422,
            f"{column[:80]!r} is no attachment of the pipeline; it has "
            f"{', '.join(attachments)}",
        )
    return {column: attachments[column]}


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPException(413, f"more than {limit} bytes; the pipeline takes no more")


async def _received(
    door: Door, request: Request, place: Place, file: BinaryIO, limit: int
) -> Found:
    meter = Meter()
    timeout_s = door.settings.body_timeout_seconds
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                _check_size(meter.size_bytes + len(part), limit)
                meter.update(part)
                file.write(part)
                place.resize(max(place.size, min(meter.size_bytes, MEMORY_BYTES)))
                IN_WORK.set(door.admission.bytes)
    except TimeoutError as error:
        raise HTTPException(
            408, f"the payload did not arrive within {timeout_s:g} s"
        ) from error
    return meter.found()


def _checked(found: Found, request: Request, allowed: dict[str, Attachment]) -> str:
    """Return what the payload is, if that is what may come and what was said."""
    if not found.size_bytes:
        raise HTTPException(422, "the payload is empty")
    types = sorted({kind for each in allowed.values() for kind in each.media_types})
    kind = found.media_type
    if kind not in types:
        raise HTTPException(
            415,
            f"its bytes are {kind or 'of no known media type'}; the pipeline takes "
            f"{', '.join(types)}",
        )
    claim = bare_type(request.headers.get("content-type", ANY_TYPE))
    if claim not in ("", ANY_TYPE, kind):
        raise HTTPException(
            415,
            f"content type {claim[:80]!r} does not fit: its bytes are {kind}; correct "
            f"it, or send {ANY_TYPE}",
        )
    fits = [each for each in allowed.values() if kind in each.media_types]
    _check_size(found.size_bytes, max(each.max_bytes for each in fits))
    digest = CONTENT_DIGEST.search(request.headers.get("content-digest", ""))
    if digest is not None and _hex(digest[1]) != found.sha256:
        raise HTTPException(
            422, f"content-digest differs: its bytes have the sha256 {found.sha256}"
        )
    return kind


def _hex(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return None
