"""Dead letters: what could not be handled, and sending it again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import publisher
from driftloop.cli.options import plain_table
from driftloop.contracts.topics import SERVICES, dead_letter_topic, produced_by
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message, Record
from rich.console import RenderableType
from rich.text import Text

LOG_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter with its provenance."""

    id: str
    service: str
    topic: str
    partition: int
    offset: int
    error: str
    reason: str
    time: str
    message: Message

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        found.pop("message")
        found["value"] = (self.message.value or b"")[:500].decode(errors="replace")
        return found


PROVENANCE = "dead-letter-"


def dead_letters(installation: Installation, service: str | None) -> list[Letter]:
    """Return the dead letters, oldest first; a repeat is shown once.

    Raises
    ------
    CommandError
        When there is no such service.
    """
    names = [name for name in SERVICES if produced_by(name)]
    if service and service not in names:
        raise CommandError(f"no service {service!r}; one of {', '.join(names)}")
    topics = [dead_letter_topic(name) for name in ([service] if service else names)]
    messages: list[Message] = []
    follower = LogFollower(
        installation.bootstrap,
        topics,
        messages.append,
        installation.settings.kafka_config,
    )
    if not follower.read_to_end(LOG_TIMEOUT_S):
        raise CommandError(f"the broker at {installation.bootstrap} does not answer")
    found = {letter.id: letter for letter in map(_letter, messages)}
    return sorted(found.values(), key=lambda letter: letter.time)


def _letter(message: Message) -> Letter:
    headers = {name: value.decode(errors="replace") for name, value in message.headers}
    return Letter(
        id=headers.get("dead-letter-id", ""),
        service=message.topic.removesuffix("-dead-letter"),
        topic=headers.get("dead-letter-topic", ""),
        partition=int(headers.get("dead-letter-partition", -1)),
        offset=int(headers.get("dead-letter-offset", -1)),
        error=headers.get("dead-letter-error", ""),
        reason=headers.get("dead-letter-reason", ""),
        time=headers.get("dead-letter-time", ""),
        message=message,
    )


def dead_letter_table(found: Sequence[Letter]) -> RenderableType:
    """Return the letters, oldest first."""
    if not found:
        return Text("no dead letters: every message could be handled")
    table = plain_table(f"{len(found)} dead letters, oldest first")
    for name in ("time", "service"):
        table.add_column(name, no_wrap=True)
    for name in ("from", "why", "value"):
        table.add_column(name, overflow="fold")
    for letter in found:
        value = (letter.message.value or b"")[:80].decode(errors="replace")
        table.add_row(
            letter.time[:19].replace("T", " "),
            letter.service,
            f"{letter.topic}/{letter.partition}/{letter.offset}",
            Text(letter.reason),
            Text(value, style="dim"),
        )
    return table


def replay(installation: Installation, service: str, letter_id: str | None) -> int:
    """Publish dead letters to the topic they came from, with their first headers.

    Letters without a value (which may hold what nobody may read) are left out.

    Raises
    ------
    CommandError
        When there is no such letter.
    """
    found = dead_letters(installation, service)
    chosen = [x for x in found if letter_id is None or x.id == letter_id]
    if letter_id and not chosen:
        raise CommandError(f"no dead letter {letter_id!r} of {service}")
    empty = [letter for letter in chosen if letter.message.value is None]
    if empty and letter_id:
        raise CommandError(
            f"{letter_id} holds no value, as nobody may read it here; let "
            f"{empty[0].topic}/{empty[0].partition}/{empty[0].offset} be sent again "
            "upstream"
        )
    records = [
        Record(
            letter.topic,
            letter.message.key,
            letter.message.value,
            tuple(h for h in letter.message.headers if not h[0].startswith(PROVENANCE)),
        )
        for letter in chosen
        if letter.message.value is not None
    ]
    if records:
        sender = publisher(installation)
        try:
            sender.publish(records)
        finally:
            sender.close()
    return len(records)
