"""Write Kafka's topics and users for Kubernetes: ``make kubernetes``.

They come from the topic table, as resources of Strimzi's operators;
``infra/kubernetes/base`` has the rest.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from driftloop.contracts.access import OUTSIDE, Right, access_rights, outside_rights
from driftloop.contracts.topics import SERVICES, all_topics

FOLDER = Path("infra/kubernetes/base")
CLUSTER = "kafka"
PASSWORDS = "driftloop-kafka-passwords"
HEADER = "# Written by `make kubernetes` from the topic table; do not edit.\n"
API = "kafka.strimzi.io/v1"
Object = dict[str, Any]


def topics() -> Iterator[Object]:
    """Yield a KafkaTopic for each topic, with the cluster's default copies."""
    for name, partitions, settings in all_topics():
        config: Object = {
            key: int(value) if value.lstrip("-").isdigit() else value
            for key, value in settings.items()
        }
        yield _object("KafkaTopic", name, {"partitions": partitions, "config": config})


def users() -> Iterator[Object]:
    """Yield a KafkaUser for each service and each of those outside, with its rights."""
    rights = [*access_rights(), *outside_rights()]
    for name in (*SERVICES, *OUTSIDE):
        own = [right for right in rights if right.service == name]
        secret = {"name": PASSWORDS, "key": name}
        yield _object(
            "KafkaUser",
            name,
            {
                "authentication": {
                    "type": "scram-sha-512",
                    "password": {"valueFrom": {"secretKeyRef": secret}},
                },
                "authorization": {"type": "simple", "acls": list(_acls(own))},
            },
        )


def _acls(rights: Sequence[Right]) -> Iterator[Object]:
    def resource(right: Right) -> tuple[str, str, bool]:
        return (right.resource.lower(), right.name, right.is_prefix)

    ordered = sorted(rights, key=lambda right: (*resource(right), right.operation))
    for (kind, name, is_prefix), group in groupby(ordered, resource):
        pattern = "prefix" if is_prefix else "literal"
        yield {
            "resource": {"type": kind, "name": name, "patternType": pattern},
            "operations": [right.operation.capitalize() for right in group],
        }


def _object(kind: str, name: str, spec: Object) -> Object:
    labels = {"strimzi.io/cluster": CLUSTER}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def as_yaml(objects: Iterator[Object]) -> str:
    """Return a YAML document for each, lists with an entry a line, the rest as JSON."""
    return HEADER + "---\n".join("\n".join(_lines(each, "")) + "\n" for each in objects)


def _lines(value: Object, indent: str) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {json.dumps(entry)}" for entry in inner)
        elif isinstance(inner, dict) and any(
            isinstance(each, dict | list) for each in inner.values()
        ):
            yield f"{indent}{key}:"
            yield from _lines(inner, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(inner)}"


def files() -> dict[str, str]:
    """Return what is written, by file name."""
    return {
        "kafka-topics.yaml": as_yaml(topics()),
        "kafka-users.yaml": as_yaml(users()),
    }


def main() -> int:
    """Write them below the current folder, a checkout of driftloop."""
    if not FOLDER.is_dir():
        sys.stderr.write(f"no {FOLDER} here; run this in a checkout of driftloop\n")
        return 1
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
