"""What of a raw message may stand in dead letters, logs and traces.

Of a pipeline with attachments no value that may hold a payload. Of one with privacy
rules more: where the message is and what kind of thing is wrong
with it, so that upstream can mend and send it again. Nothing that upstream wrote: not
the value, not the record's key, and no header that is not of a fixed form.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from driftloop.contracts.base import NAME_PATTERN
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import BY_NAME
from driftloop.ingest.attaching import has_attachments, may_hold_payload
from driftloop.ingest.keys import PrivacyKeys
from driftloop.runtime.envelope import Attributes, attributes_of
from driftloop.runtime.errors import Reject
from driftloop.runtime.transport import Message

SOURCE = re.compile(r"[\w.-]{1,64}", re.ASCII)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
KEPT_BACK = "what is wrong is kept back, as it may hold what nobody may read"
KNOWN_REASONS = (
    "the record has no value",
    "header values must be UTF-8 text",
    "not a structured CloudEvent",
    "not UTF-8 text",
    "names no pipeline",
    "is not applied",
    "content type",
    "broken JSON",
    "JSON nested deeper",
    "neither a JSON object nor a list of objects",
    "not a JSON object",
    "broken CSV header",
    "broken CSV",
    "CSV needs a first line that names every column",
    "cells, the header has",
    "broken Parquet",
    "broken Arrow stream",
    "is there twice",
    "objects and lists",
    "cast it to a plain type",
    "has characters that cannot be printed",
    "columns",
    "rows; send several messages",
    "bytes when decoded",
    "missing; each row needs its event time",
    "is no time; send ISO 8601 text such as 2011-01-01T00:00:00Z",
    "longer than",
)
"""Parts of reasons that quote nothing; the longer of two stands first."""


def has_rules(spec: PipelineSpec) -> bool:
    return bool(spec.data.privacy)


def plain_reason(reason: str) -> str:
    """Return what a reason says apart from what it quotes.

    Examples
    --------
    >>> plain_reason("'ada@example.org' is no time; send ISO 8601 text such as "
    ...     "2011-01-01T00:00:00Z")
    'is no time; send ISO 8601 text such as 2011-01-01T00:00:00Z'
    >>> plain_reason("broken CSV: ada,lovelace")
    'broken CSV'
    """
    return next((known for known in KNOWN_REASONS if known in reason), KEPT_BACK)


def named_pipeline(attributes: Attributes, key: bytes | None) -> str:
    """Return the pipeline that a message is for; empty where it names none."""
    of_key = (key or b"").partition(b"/")[0].decode(errors="replace")
    name = attributes.get("subject") or of_key
    return name if re.fullmatch(NAME_PATTERN, name) else ""


def told(
    message: Message,
    pipelines: Mapping[str, PipelineApplied],
    keys: PrivacyKeys | None,
) -> Message:
    """Return what may be told of a message; the message itself without rules.

    A message that cannot be told to belong to a pipeline without rules is treated
    like one with rules, as soon as any pipeline has some.
    """
    try:
        attributes = attributes_of(message)
    except Reject:
        attributes = Attributes({}, "", None)
    applied = pipelines.get(named_pipeline(attributes, message.key))
    if applied is not None:
        is_open = not has_rules(applied.spec)
    else:
        is_open = not any(has_rules(each.spec) for each in pipelines.values())
    if is_open:
        return _without_payloads(message, applied, pipelines)
    headers = dict(_safe_headers(message, attributes, keys))
    if applied is not None:
        headers["ce_subject"] = applied.pipeline
    return replace(
        message,
        key=applied.pipeline.encode() if applied is not None else None,
        value=None,
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def _without_payloads(
    message: Message,
    applied: PipelineApplied | None,
    pipelines: Mapping[str, PipelineApplied],
) -> Message:
    """Return the message without its value, where that may hold a payload."""
    specs = [applied.spec] if applied else [each.spec for each in pipelines.values()]
    if any(map(has_attachments, specs)) and may_hold_payload(message.value):
        return replace(message, value=None)
    return message


def _safe_headers(
    message: Message, attributes: Attributes, keys: PrivacyKeys | None
) -> list[tuple[str, str]]:
    safe = [("ce_specversion", "1.0")]
    if message.topic in BY_NAME:
        safe.append(("ce_type", BY_NAME[message.topic].event.type_name()))
    event_id = attributes.get("id")
    if event_id and UUID.fullmatch(event_id):
        safe.append(("ce_id", event_id))
    elif event_id and keys is not None:
        safe.append(("ce_id", keys.pseudonym("\0message", event_id)))
    chain_id = attributes.get("chainid")
    if chain_id and UUID.fullmatch(chain_id):
        safe.append(("ce_chainid", chain_id))
    traceparent = attributes.get("traceparent")
    if traceparent and TRACEPARENT.fullmatch(traceparent):
        safe.append(("traceparent", traceparent))
    safe.append(("ce_source", f"/upstream/{source_name(attributes.get('source'))}"))
    return safe


def source_name(given: str | None) -> str:
    """Return the name of the sending system; ``upstream`` where it is none.

    The record's key is not asked: often it is a person's id.
    """
    last = (given or "").rstrip("/").rpartition("/")[2]
    return last if SOURCE.fullmatch(last) else "upstream"
