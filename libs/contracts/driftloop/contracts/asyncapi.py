"""The AsyncAPI 3.1 document of all topics, derived from the topic table.

Source: AsyncAPI 3.1.0; Kafka bindings 0.5.0; CloudEvents Kafka binding 1.0.
"""

from collections.abc import Mapping
from typing import Any

from driftloop.contracts.access import IN_ENVIRONMENTS
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.contracts.rows import EVENT_METADATA_KEY
from driftloop.contracts.topics import (
    SERVICES,
    TOPICS,
    Topic,
    all_topics,
    consumed_by,
    dead_letter_topic,
    produced_by,
)
from pydantic.json_schema import models_json_schema

Node = dict[str, Any]

BINDING_VERSION = "0.5.0"
JSON_TYPE = "application/json"
TRACEPARENT_PATTERN = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"

CLOUD_EVENT_HEADERS: Node = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"],
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {
            "type": "string",
            "description": "derived from the cause: a repeat has the same id",
        },
        "ce_source": {"type": "string", "examples": ["/driftloop/monitor"]},
        "ce_type": {"type": "string"},
        "ce_subject": {"type": "string", "description": "the pipeline"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_chainid": {
            "type": "string",
            "description": "id of the event that began the causal chain",
        },
        "ce_causationid": {
            "type": "string",
            "description": "id of the event that led to this one",
        },
        "ce_sequence": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "number in the topic's own count, where it has one",
        },
        "ce_dataref": {
            "type": "string",
            "description": "claim check: where the value is when it is above 1 MiB",
        },
        "ce_datasha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "traceparent": {
            "type": "string",
            "pattern": TRACEPARENT_PATTERN,
            "description": "W3C trace context of the span that made the event",
        },
        "content-type": {"type": "string"},
    },
}

DEAD_LETTER_HEADERS: Node = {
    "type": "object",
    "description": "The headers of the message as it came, and where it came from.",
    "required": [
        "dead-letter-id", "dead-letter-topic", "dead-letter-partition",
        "dead-letter-offset", "dead-letter-error", "dead-letter-reason",
    ],
    "properties": {
        "dead-letter-id": {"type": "string", "description": "service/topic/p/offset"},
        "dead-letter-topic": {"type": "string"},
        "dead-letter-partition": {"type": "string", "pattern": "^[0-9]+$"},
        "dead-letter-offset": {"type": "string", "pattern": "^[0-9]+$"},
        "dead-letter-error": {"type": "string", "examples": ["Reject"]},
        "dead-letter-reason": {"type": "string"},
        "dead-letter-attempts": {"type": "string", "pattern": "^[0-9]+$"},
        "dead-letter-time": {"type": "string", "format": "date-time"},
    },
}  # fmt: skip


def document(version: str, examples: Mapping[str, Node]) -> Node:
    """Return the whole document.

    Parameters
    ----------
    version : of the contracts distribution.
    examples : topic name to the example event (for rows: with a ``rows`` list).
    """
    _, definitions = models_json_schema(
        [(topic.event, "validation") for topic in TOPICS],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "driftloop",
            "version": version,
            "description": (
                "Every topic of driftloop, its events, and which service sends and "
                "receives them. CloudEvents 1.0 over Kafka in binary mode; structured "
                "mode is read too."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON_TYPE,
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "the broker of `make up`",
            }
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": {
                "CloudEventHeaders": CLOUD_EVENT_HEADERS,
                "DeadLetterHeaders": DEAD_LETTER_HEADERS,
                **definitions["$defs"],
            },
            "messages": _messages(examples),
        },
    }


def _ref(*path: str) -> Node:
    return {"$ref": "#/" + "/".join(path)}


def _kafka(**values: Any) -> Node:
    return {"kafka": {**values, "bindingVersion": BINDING_VERSION}}


def _is_door(topic: Topic) -> bool:
    """Whether systems that do not know driftloop's events write to the topic."""
    return "upstream" in topic.producers


def _channels() -> Node:
    channels = {}
    doors = {topic.name for topic in TOPICS if _is_door(topic)}
    for name, partitions, settings in all_topics():
        messages = [name, f"{name}.rows"] if name in doors else [name]
        channels[name] = {
            "address": name,
            "messages": {m: _ref("components", "messages", m) for m in messages},
            "bindings": _kafka(
                topic=name,
                partitions=partitions,
                topicConfiguration={
                    "cleanup.policy": [settings["cleanup.policy"]],
                    "retention.ms": int(settings["retention.ms"]),
                    "max.message.bytes": int(settings["max.message.bytes"]),
                },
            ),
        }
    return channels


def _messages(examples: Mapping[str, Node]) -> Node:
    messages = {t.name: _message(t, examples.get(t.name)) for t in TOPICS}
    messages |= {f"{t.name}.rows": _door_message(t) for t in TOPICS if _is_door(t)}
    for service in SERVICES:
        if produced_by(service):
            messages[dead_letter_topic(service)] = {
                "title": f"Dead letter of {service}",
                "summary": "A message that could not be handled, its bytes unchanged.",
                "headers": _ref("components", "schemas", "DeadLetterHeaders"),
                "contentType": "application/octet-stream",
            }
    return messages


def _message(topic: Topic, example: Node | None) -> Node:
    event = topic.event
    message: Node = {
        "name": event.type_name(),
        "title": event.__name__,
        "summary": summary_of(topic),
        "contentType": ARROW_TYPE if event.has_rows else JSON_TYPE,
        "headers": {
            "allOf": [
                _ref("components", "schemas", "CloudEventHeaders"),
                {"properties": {"ce_type": {"const": event.type_name()}}},
            ]
        },
        "payload": _ref("components", "schemas", event.__name__),
        "bindings": _kafka(
            key={"type": "string", "description": " / ".join(event.key_fields)}
        ),
    }
    if event.has_rows:
        message["description"] = (
            "The value is an Arrow IPC stream of one record batch. The payload below "
            "is the JSON in the schema's metadata under "
            f"`{EVENT_METADATA_KEY.decode()}`; the batch holds the rows."
        )
    if example is not None:
        payload = {name: part for name, part in example.items() if name != "rows"}
        message["examples"] = [{"payload": payload}]
    return message


def _door_message(topic: Topic) -> Node:
    """Return the message of an upstream system that writes rows as it has them."""
    row = {"type": "object", "description": "a row, with the pipeline's own columns"}
    return {
        "title": f"{topic.event.__name__}, rows as upstream has them",
        "summary": "One row or many, without driftloop's own fields; docs/events.md.",
        "description": (
            "JSON as below, or by `content-type` NDJSON, CSV, Parquet or an Arrow IPC "
            "stream. The pipeline is the CloudEvents subject or, without one, the "
            "record's key; no header is required."
        ),
        "contentType": JSON_TYPE,
        "payload": {"oneOf": [row, {"type": "array", "items": row}]},
        "bindings": _kafka(key={"type": "string", "description": "the pipeline"}),
    }


def summary_of(topic: Topic) -> str:
    """Return the first line of the event's docstring."""
    return (topic.event.__doc__ or "").strip().splitlines()[0]


def _group(service: str) -> dict[str, str]:
    name = f"driftloop-{service}"
    if service in IN_ENVIRONMENTS:
        return {"type": "string", "pattern": f"^{name}(-.+)?$"}
    return {"type": "string", "const": name}


def _operations() -> Node:
    operations: Node = {}
    for service in SERVICES:
        sent = [topic.name for topic in produced_by(service)]
        if sent:
            sent.append(dead_letter_topic(service))
        for name in sent:
            operations[f"{service}.send.{name}"] = _operation("send", name)
        for topic in consumed_by(service):
            operations[f"{service}.receive.{topic.name}"] = {
                **_operation("receive", topic.name),
                "bindings": _kafka(groupId=_group(service)),
            }
        for topic in TOPICS:  # followed from the beginning, without a group
            if topic.compacted and service in topic.consumers:
                operations[f"{service}.receive.{topic.name}"] = _operation(
                    "receive", topic.name
                )
    return operations


def _operation(action: str, name: str) -> Node:
    """Return an operation on every message of a channel."""
    return {"action": action, "channel": _ref("channels", name)}
