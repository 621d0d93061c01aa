"""The page ``docs/chain.md``: the chain as a picture and as tables."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from driftloop.contracts.access import OUTSIDE, Right, access_rights, outside_rights
from driftloop.contracts.asyncapi import summary_of
from driftloop.contracts.topics import EVERY_SERVICE, SERVICES, TOPICS, Topic

HEADER = """\
# The chain

Written by `python -m driftloop.contracts.generate` from the
[topic table](../libs/contracts/driftloop/contracts/topics.py); do not edit.
"""


def chain_page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        [
            HEADER,
            "## Picture",
            "",
            "An arrow is a topic. `pipeline-applied` goes from people to every service",
            "and is left out, as is the console, which reads every topic.",
            "",
            *_mermaid(),
            "",
            "## Topics",
            "",
            *_topic_table(),
            "",
            "Each service that writes has a dead-letter topic too, kept for ever:",
            "`<service>-dead-letter`, one partition, the bytes as they came.",
            "",
            "## Access rights",
            "",
            "Everything else is denied. Consumer groups are `driftloop-<service>`, of",
            "scorers before production `driftloop-scorer-<environment>`;",
            "topics whose names begin so (changelogs of views) are the service's own.",
            "",
            *_rights_table(),
            "",
        ]
    )


def _mermaid() -> Iterator[str]:
    yield "```mermaid"
    yield "flowchart LR"
    for outside in OUTSIDE:
        yield f"  {outside}([{outside}])"
    for service in SERVICES:
        if service != "console":
            yield f"  {service}[{service}]"
    by_pair: dict[tuple[str, str], list[str]] = {}
    for topic in TOPICS:
        if topic.consumers == EVERY_SERVICE:
            continue
        for producer in topic.producers:
            for consumer in topic.consumers:
                by_pair.setdefault((producer, consumer), []).append(topic.name)
    for (producer, consumer), names in by_pair.items():
        yield f'  {producer} -- "{"<br>".join(names)}" --> {consumer}'
    yield "```"


def _topic_table() -> Iterator[str]:
    yield "| topic | what it says | written by | handled by | key | kept |"
    yield "|---|---|---|---|---|---|"
    for topic in TOPICS:
        handled = (
            "all follow it"
            if topic.consumers == EVERY_SERVICE
            else ", ".join(topic.consumers) or "console"
        )
        cells = (
            f"`{topic.name}`",
            summary_of(topic),
            ", ".join(topic.producers),
            handled,
            " / ".join(topic.event.key_fields),
            _kept(topic),
        )
        yield f"| {' | '.join(cells)} |"


def _kept(topic: Topic) -> str:
    if topic.compacted:
        return "last of each key"
    return "for ever" if topic.retention is None else _days(topic.retention)


def _days(duration: timedelta) -> str:
    return f"{duration.days} day{'s' if duration.days != 1 else ''}"


def _rights_table() -> Iterator[str]:
    rights = [*access_rights(), *outside_rights()]
    yield "| who | reads | writes |"
    yield "|---|---|---|"
    for who in (*SERVICES, *OUTSIDE):
        own = [right for right in rights if right.service == who]
        yield f"| {who} | {_names(own, 'READ')} | {_names(own, 'WRITE')} |"


def _names(rights: Iterable[Right], operation: str) -> str:
    names = [
        right.name
        for right in rights
        if (right.operation, right.resource) == (operation, "TOPIC")
        and not right.is_prefix
    ]
    if len(names) == len(TOPICS):
        return "every topic"
    return ", ".join(f"`{name}`" for name in names) or "nothing"
