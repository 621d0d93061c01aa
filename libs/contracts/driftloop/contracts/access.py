"""Who may read and write which topic, derived from the topic table."""

from dataclasses import dataclass
from typing import Literal

from driftloop.contracts.topics import (
    DOOR_TOPICS,
    SERVICES,
    TOPICS,
    dead_letter_topic,
    produced_by,
)

OUTSIDE = ("people", "upstream")
"""Producers in the table that are no services: the command line, other systems."""
IN_ENVIRONMENTS = ("scorer",)
"""Services whose replicas in an environment before production are a group of their own:
``driftloop-scorer-staging``."""
OWN_OPERATIONS: tuple[Literal["READ", "WRITE", "CREATE"], ...] = (
    "READ",
    "WRITE",
    "CREATE",
)


@dataclass(frozen=True, slots=True)
class Right:
    """One line of the access list; everything else is denied.

    Attributes
    ----------
    name : of the resource, or what its name begins with.
    """

    service: str
    operation: Literal["READ", "WRITE", "CREATE"]
    resource: Literal["TOPIC", "GROUP"]
    name: str
    is_prefix: bool = False


def access_rights() -> list[Right]:
    """Return every right of every service; the console reads only."""
    rights: list[Right] = []
    for service in SERVICES:
        reads = (
            TOPICS
            if service == "console"
            else tuple(t for t in TOPICS if service in (*t.consumers, *t.readers))
        )
        writes = [topic.name for topic in produced_by(service)]
        if writes:
            writes.append(dead_letter_topic(service))
        rights += [Right(service, "READ", "TOPIC", topic.name) for topic in reads]
        rights += [Right(service, "WRITE", "TOPIC", name) for name in writes]
        rights.append(Right(service, "READ", "GROUP", f"driftloop-{service}"))
        if service in IN_ENVIRONMENTS:
            name = f"driftloop-{service}-"
            rights.append(Right(service, "READ", "GROUP", name, is_prefix=True))
        # changelogs of windowed views (Faust names them after the group)
        rights += [
            Right(service, operation, "TOPIC", f"driftloop-{service}-", is_prefix=True)
            for operation in OWN_OPERATIONS
        ]
    return rights


def outside_rights() -> list[Right]:
    """Return the rights of those outside: upstream reads nothing.

    People read all but upstream's rows, which may hold personal data as they came.
    """
    rights = [
        Right(writer, "WRITE", "TOPIC", topic.name)
        for writer in OUTSIDE
        for topic in produced_by(writer)
    ]
    return rights + [
        Right("people", "READ", "TOPIC", topic.name)
        for topic in TOPICS
        if topic.name not in DOOR_TOPICS
    ]
