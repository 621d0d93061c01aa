"""Each topic has a realistic example that every reader of the contract accepts."""

import base64
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from driftloop.contracts.base import Event, Meta
from driftloop.contracts.generate import read_examples, schema_of
from driftloop.contracts.topics import TOPICS, Topic
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.errors import Reject
from driftloop.runtime.transport import Message
from pydantic import ValidationError


def fields_of(example: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in example.items() if name != "rows"}


def closed(schema: Any) -> Any:
    """Return the schema with unknown fields refused: a typing error would hide."""
    if isinstance(schema, dict):
        result = {name: closed(part) for name, part in schema.items()}
        if "properties" in result and result.get("additionalProperties") is True:
            result["additionalProperties"] = False
        return result
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


def test_each_topic_has_an_example(root: Path) -> None:
    """Neither a topic without an example nor an example without a topic."""
    assert set(read_examples(root)) == {topic.name for topic in TOPICS}


def test_example_keeps_the_json_schema(topic: Topic, example: dict[str, Any]) -> None:
    """The published schema, with unknown fields refused, accepts the example."""
    jsonschema.Draft202012Validator(closed(schema_of(topic))).validate(
        fields_of(example)
    )


def test_misspelt_field_is_found(topic: Topic, example: dict[str, Any]) -> None:
    """Negative control: the check above sees a field that is not in the schema."""
    broken = fields_of(example) | {"pipelin": "x"}
    with pytest.raises(jsonschema.ValidationError, match="pipelin"):
        jsonschema.Draft202012Validator(closed(schema_of(topic))).validate(broken)


def test_missing_field_is_refused(topic: Topic, example: dict[str, Any]) -> None:
    """Negative control: without any one required field both readers refuse it."""
    schema = schema_of(topic)
    for name in schema["required"]:
        broken = fields_of(example)
        del broken[name]
        with pytest.raises(jsonschema.ValidationError, match=name):
            jsonschema.Draft202012Validator(schema).validate(broken)
        with pytest.raises(ValidationError, match=name):
            topic.event.model_validate(broken)


def test_example_rows_match_their_count(topic: Topic, example: dict[str, Any]) -> None:
    """Events with rows have an example with as many rows as they say."""
    assert ("rows" in example) == topic.event.has_rows
    if topic.event.has_rows:
        assert len(example["rows"]) == example["row_count"]


def test_binary_round_trip(
    event: Event, meta: Meta, store: ArtifactStore, deliver: Any
) -> None:
    """What is encoded is decoded to the same event, origin and rows."""
    message = deliver(encode(event, meta, store))

    back = decode(message, store)

    assert back.model_dump() == event.model_dump()
    assert back.meta == replace(meta, topic=message.topic, partition=2, offset=7)
    if event.has_rows:
        assert back.rows.equals(event.rows)


def as_structured(message: Message) -> Message:
    """Return the same event in CloudEvents structured mode."""
    headers = {name: value.decode() for name, value in message.headers}
    whole: dict[str, Any] = {
        name.removeprefix("ce_"): value
        for name, value in headers.items()
        if name.startswith("ce_")
    }
    whole["datacontenttype"] = headers["content-type"]
    assert message.value is not None
    if headers["content-type"] == "application/json":
        whole["data"] = json.loads(message.value)
    else:
        whole["data_base64"] = base64.b64encode(message.value).decode()
    kept = [(n, v) for n, v in message.headers if n == "traceparent"]
    content_type = ("content-type", b"application/cloudevents+json; charset=UTF-8")
    return replace(
        message, value=json.dumps(whole).encode(), headers=(content_type, *kept)
    )


def test_structured_round_trip(
    event: Event, meta: Meta, store: ArtifactStore, deliver: Any
) -> None:
    """Structured mode says the same as binary mode."""
    message = deliver(encode(event, meta, store))

    back = decode(as_structured(message), store)

    assert back.model_dump() == event.model_dump()
    assert back.meta == decode(message, store).meta
    if event.has_rows:
        assert back.rows.equals(event.rows)


def without_header(message: Message, name: str) -> Message:
    headers = tuple(header for header in message.headers if header[0] != name)
    return replace(message, headers=headers)


def test_binary_mode_refuses_broken_messages(
    event: Event, meta: Meta, store: ArtifactStore, deliver: Any
) -> None:
    """Negative control: no id, another type, half a value are each rejected."""
    good = deliver(encode(event, meta, store))
    other_type = ("ce_type", b"io.driftloop.something-else.v1")
    broken = (
        without_header(good, "ce_id"),
        without_header(good, "ce_type"),
        replace(good, headers=(*without_header(good, "ce_type").headers, other_type)),
        replace(good, value=good.value[: len(good.value) // 2]),
        replace(good, value=None),
    )
    for message in broken:
        with pytest.raises(Reject):
            decode(message, store)


def test_structured_mode_refuses_broken_messages(
    event: Event, meta: Meta, store: ArtifactStore, deliver: Any
) -> None:
    """Negative control: the same for the structured form."""
    good = as_structured(deliver(encode(event, meta, store)))
    whole = json.loads(good.value)
    for name in ("id", "type", "data" if "data" in whole else "data_base64"):
        broken = copy.deepcopy(whole)
        del broken[name]
        with pytest.raises(Reject):
            decode(replace(good, value=json.dumps(broken).encode()), store)
    with pytest.raises(Reject):
        decode(replace(good, value=good.value[:-1]), store)
