"""CloudEvents 1.0 over Kafka: binary mode out, binary and structured mode in.

Source: CloudEvents Kafka protocol binding 1.0; extensions ``dataref`` (claim
check), ``sequence``, ``chainid`` and ``causationid``; W3C ``traceparent`` as a plain
header.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.contracts.rows import RowsError, read_rows, write_rows
from driftloop.contracts.topics import BY_NAME
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.errors import Reject
from driftloop.runtime.transport import Message, Record
from pydantic import ValidationError

JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents"
CLAIM_CHECK_BYTES = 1024 * 1024
"""Rows above this travel by reference (DESIGN.md, Kafka's default message limit)."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """CloudEvents attributes of a message, whichever mode it came in."""

    values: dict[str, str]
    content_type: str
    data: bytes | None

    def get(self, name: str) -> str | None:
        return self.values.get(name)


def encode(event: Event, meta: Meta, store: ArtifactStore) -> Record:
    """Return the record of an event, binary mode; large rows go to the store."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": meta.id,
        "ce_source": meta.source,
        "ce_type": event.type_name(),
        "ce_subject": event.pipeline,
        "ce_time": meta.time.isoformat(),
        "ce_chainid": meta.chain.id,
    }
    if meta.causation_id:
        headers["ce_causationid"] = meta.causation_id
    if event.sequence is not None:
        headers["ce_sequence"] = str(event.sequence)
    if meta.chain.traceparent:
        headers["traceparent"] = meta.chain.traceparent
    body = event.model_dump_json().encode()
    content_type = JSON_TYPE
    if event.has_rows:
        content_type = ARROW_TYPE
        body = write_rows(event.rows, body)
        if len(body) > CLAIM_CHECK_BYTES:
            ref = store.put(body)
            headers["ce_dataref"] = ref.uri
            headers["ce_datasha256"] = ref.sha256
            body = b""
    headers["content-type"] = content_type
    return Record(
        topic=event.topic(),
        key=event.key.encode(),
        value=body,
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )


def attributes_of(message: Message) -> Attributes:
    """Read CloudEvents attributes; a plain record has none and keeps its value.

    Raises
    ------
    Reject
        When headers are not UTF-8 or a structured event is not valid JSON.
    """
    try:
        headers = {name.lower(): value.decode() for name, value in message.headers}
    except (UnicodeDecodeError, AttributeError) as error:
        raise Reject("header values must be UTF-8 text") from error
    content_type = headers.get("content-type", JSON_TYPE)
    if content_type.lower().startswith(STRUCTURED_TYPE):
        return _structured(message, headers)
    values = {n[3:]: v for n, v in headers.items() if n.startswith("ce_")}
    if "traceparent" in headers:
        values["traceparent"] = headers["traceparent"]
    return Attributes(values, content_type, message.value)


def sequence_of(message: Message) -> int | None:
    """Return the ``sequence`` of a message in binary mode, undecoded; None: none."""
    for name, value in message.headers:
        if name == "ce_sequence" and value.isdigit():
            return int(value)
    return None


def _structured(message: Message, headers: dict[str, str]) -> Attributes:
    try:
        whole = json.loads(message.value or b"")
        if not isinstance(whole, dict):
            raise TypeError("not an object")
        if "data_base64" in whole:
            data = base64.b64decode(whole.pop("data_base64"), validate=True)
        else:
            data = json.dumps(whole.pop("data", None)).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Reject(f"not a structured CloudEvent: {error}") from error
    values = {k: str(v) for k, v in whole.items() if v is not None}
    if "traceparent" in headers:
        values["traceparent"] = headers["traceparent"]
    return Attributes(values, values.get("datacontenttype", JSON_TYPE), data)


def meta_of(attributes: Attributes, message: Message) -> Meta:
    """Return the origin of a message; a record without an id gets its position."""
    position = f"{message.topic}/{message.partition}/{message.offset}"
    event_id = attributes.get("id") or position
    sent = attributes.get("time")
    try:
        time = datetime.fromisoformat(sent) if sent else None
    except ValueError as error:
        raise Reject(f"not an RFC 3339 time: {sent!r}", field="ce_time") from error
    if time is None:
        time = datetime.fromtimestamp(max(message.timestamp_ms, 0) / 1000, UTC)
    elif time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return Meta(
        id=event_id,
        time=time,
        source=attributes.get("source") or "unknown",
        chain=Chain(
            attributes.get("chainid") or event_id, attributes.get("traceparent")
        ),
        causation_id=attributes.get("causationid"),
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
    )


def decode(message: Message, store: ArtifactStore) -> Event:
    """Return the event of a record on one of driftloop's topics.

    Raises
    ------
    Reject
        Names what is wrong with the record.
    Retry
        When the store that holds its rows is away.
    """
    topic = BY_NAME.get(message.topic)
    if topic is None:
        raise Reject(f"{message.topic} is not in the topic table")
    attributes = attributes_of(message)
    expected = topic.event.type_name()
    found = attributes.get("type")
    if found != expected:
        raise Reject(f"expected {expected!r}, found {found!r}", field="ce_type")
    if not attributes.get("id"):
        raise Reject("missing", field="ce_id")
    data = _data(attributes, store)
    event = _parse(topic.event, data)
    return event.with_meta(meta_of(attributes, message))


def _data(attributes: Attributes, store: ArtifactStore) -> bytes:
    uri, digest = attributes.get("dataref"), attributes.get("datasha256")
    if uri and digest:
        return store.get(uri, digest)
    if attributes.data is None:
        raise Reject("the record has no value")
    return attributes.data


def _parse(cls: type[Event], data: bytes) -> Event:
    try:
        if not cls.has_rows:
            return cls.model_validate_json(data)
        rows, body = read_rows(data)
        return cls.model_validate_json(body).with_rows(rows)
    except RowsError as error:
        raise Reject(str(error)) from error
    except ValidationError as error:
        raise Reject(_first_problem(error.errors())) from error


def _first_problem(problems: Iterable[Any]) -> str:
    parts = [f"{'.'.join(map(str, p['loc'])) or 'data'}: {p['msg']}" for p in problems]
    return "; ".join(parts[:5])
