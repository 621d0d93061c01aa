"""The AsyncAPI document and the picture hold the whole topic table."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from driftloop.contracts.topics import (
    SERVICES,
    TOPICS,
    all_topics,
    consumed_by,
    produced_by,
)
from jsonschema.protocols import Validator

ROOT = Path(__file__).parents[2]
OFFICIAL_SCHEMA = Path(__file__).parent / "vendor/asyncapi-3.1.0.json"


@pytest.fixture(scope="module")
def official() -> Validator:
    """The AsyncAPI initiative's own JSON Schema, Kafka bindings included."""
    schema = json.loads(OFFICIAL_SCHEMA.read_text("utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    text = (ROOT / "libs/contracts/asyncapi.yaml").read_text("utf-8")
    whole: dict[str, Any] = yaml.safe_load(text)
    return whole


def test_document_is_valid(official: Validator, document: dict[str, Any]) -> None:
    """The official schema has nothing to say."""
    assert [error.message for error in official.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("operations", "ingest.send.batch-ingested", "action"), "publish"),
        (("channels", "batch-ingested", "bindings", "kafka", "partitions"), "four"),
        (
            ("channels", "batch-ingested", "bindings", "kafka", "topicConfiguration",
             "cleanup.policy"),
            ["shred"],
        ),
        (("info", "title"), None),
    ],
    ids=lambda part: str(part[-1]) if isinstance(part, tuple) else "",
)  # fmt: skip
def test_wrong_document_is_refused(
    official: Validator, document: dict[str, Any], path: tuple[str, ...], value: Any
) -> None:
    """Negative control: the official schema sees a wrong value at each level."""
    broken = copy.deepcopy(document)
    place = broken
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert not official.is_valid(broken)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for part in node.values():
            yield from references(part)
    elif isinstance(node, list):
        for part in node:
            yield from references(part)


def resolve(document: dict[str, Any], reference: str) -> Any:
    place: Any = document
    for part in reference.removeprefix("#/").split("/"):
        place = place[part]
    return place


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No message, schema or channel is named that is not there."""
    for reference in set(references(document)):
        assert resolve(document, reference) is not None
    with pytest.raises(KeyError):  # negative control
        resolve(document, "#/components/schemas/Nowhere")


def test_document_holds_the_whole_table(document: dict[str, Any]) -> None:
    """Each topic with its partitions; each service's sending and receiving."""
    channels = document["channels"]
    assert {
        name: channel["bindings"]["kafka"]["partitions"]
        for name, channel in channels.items()
    } == {name: partitions for name, partitions, _ in all_topics()}
    for service in SERVICES:
        sent, received = (
            {
                name.removeprefix(f"{service}.{action}.")
                for name in document["operations"]
                if name.startswith(f"{service}.{action}.")
            }
            for action in ("send", "receive")
        )
        own = {topic.name for topic in produced_by(service)}
        assert sent == (own | {f"{service}-dead-letter"} if own else set())
        assert {topic.name for topic in consumed_by(service)} <= received


def test_example_is_a_valid_payload(document: dict[str, Any]) -> None:
    """The examples in the document keep the document's own schemas."""
    for topic in TOPICS:
        message = document["components"]["messages"][topic.name]
        schema = {**document, **message["payload"]}
        validator = jsonschema.Draft202012Validator(schema)
        payload = message["examples"][0]["payload"]
        validator.validate(payload)
        assert not validator.is_valid({**payload, "pipeline": 7})  # negative control


def test_picture_names_every_topic() -> None:
    """A topic is an arrow when somebody handles it, and always a table line."""
    page = (ROOT / "docs/chain.md").read_text("utf-8")
    picture = page.split("```mermaid")[1].split("```")[0]
    for topic in TOPICS:
        assert f"| `{topic.name}` |" in page
        if topic.consumers and topic.consumers != SERVICES:
            assert topic.name in picture
    assert "| `drift-suspected` |" not in page  # negative control
