"""``driftloop gc``: objects of the artifact store that nothing refers to.

And tables of answers that need not be kept: see ``scores/leftovers.py``.

An object is referred to when its digest stands anywhere in the log (in any record of
any topic, dead letters included) or in a package that is referred to. So no list of
events has to be kept in step here: what a later version writes is found as well.

Why nothing that is needed goes: whoever publishes a reference has put the object just
before, or has the reference from an event that the log still holds. The store is listed
before the log is read to its end, an object that was put since is left alone, and so
is what is younger than the grace time or than the oldest training that has not ended.
"""

import base64
import binascii
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.scores.leftovers import Leftover, find, remove
from driftloop.contracts.events import (
    ModelTrained,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingFailed,
    TrainingStarted,
)
from driftloop.contracts.topics import all_topics
from driftloop.models.package import MAX_ENVELOPE_BYTES
from driftloop.runtime.artifacts import ArtifactStore, Stored, open_store, uri_of
from driftloop.runtime.envelope import attributes_of, decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message
from rich.console import Group, RenderableType
from rich.text import Text

GRACE_HOURS = 48.0
MIN_GRACE_HOURS = 1.0
"""Between putting an object and publishing what refers to it lie seconds; and hours
where the broker is away."""
LOG_TIMEOUT_S = 600.0
ROOMS = ("", "mlflow")
"""Of the store. Payloads are the datasets' own: rows refer to them, not the log."""
SHOWN = 20
ENDS = (TrainingFailed, TrainingCancelled, TrainingCancelRefused, ModelTrained)
"""Of a training; a cancellation is refused where there is none that runs."""
TRAINING_TOPICS = frozenset(event.topic() for event in (TrainingStarted, *ENDS))
_digests = re.compile(rb"(?<![0-9a-fA-F])[0-9a-f]{64}(?![0-9a-fA-F])").findall


@dataclass(frozen=True, slots=True)
class Unused:
    """An object that nothing refers to."""

    room: str
    object: Stored

    def as_json(self) -> dict[str, Any]:
        return {"room": self.room, **self.object._asdict()}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and what became of it.

    Attributes
    ----------
    kept_from : what was put later than this stays.
    kept_count, kept_bytes : referred to, or young.
    came_back : put again, or referred to, while this ran; they stay.
    answers : tables of answers that nobody is promised.
    """

    kept_from: datetime
    kept_count: int
    kept_bytes: int
    unused: Sequence[Unused]
    deleted: bool
    came_back: Sequence[Unused] = ()
    answers: Sequence[Leftover] = ()

    @property
    def unused_bytes(self) -> int:
        return sum(one.object.size_bytes for one in self.unused)

    def as_json(self) -> dict[str, Any]:
        return {
            "deleted": self.deleted,
            "kept_from": self.kept_from.isoformat(),
            "kept_count": self.kept_count,
            "kept_bytes": self.kept_bytes,
            "unused_count": len(self.unused),
            "unused_bytes": self.unused_bytes,
            "unused": [one.as_json() for one in self.unused],
            "came_back": [one.as_json() for one in self.came_back],
            "answers": [one.as_json() for one in self.answers],
        }


@dataclass
class References:
    """Digests that the log names, and trainings that have not ended."""

    store: ArtifactStore
    digests: set[str] = field(default_factory=set)
    _started: dict[str, datetime] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    problem: str | None = None

    def take(self, message: Message) -> None:
        """Read a record; one that cannot be read for sure ends it all."""
        for part in _parts(message):
            self.digests.update(found.decode() for found in _digests(part))
        if message.topic in TRAINING_TOPICS:
            self._note_training(message)

    def _note_training(self, message: Message) -> None:
        try:
            event = decode(message, self.store)
        except Reject:
            return  # no event of ours
        except Retry as error:
            self.problem = str(error)
            return
        if isinstance(event, TrainingStarted):
            self._started.setdefault(event.job_id, event.meta.time)
        elif isinstance(event, ENDS):
            self._ended.add(event.job_id)

    def oldest_open_training(self) -> datetime | None:
        """Return when the oldest training began that has not ended."""
        started = list(self._started.items())  # at once: the reader goes on
        times = [moment for job, moment in started if job not in self._ended]
        return min(times, default=None)


def collect(installation: Installation, grace_hours: float, *, delete: bool) -> Report:
    """Find objects that nothing refers to, and delete them if that is wanted.

    Raises
    ------
    CommandError
        When the log or the store cannot be read to its end: then nothing is deleted.
    """
    now = datetime.now(UTC)
    stores = {room: open_store(installation.settings, room) for room in ROOMS}
    try:
        listed = [Unused(r, one) for r, s in stores.items() for one in s.stored()]
        with reading(installation, stores[""]) as references:
            cutoff = now - timedelta(hours=grace_hours)
            cutoff = min(cutoff, references.oldest_open_training() or cutoff)
            used = closure(stores[""], listed, references.digests)
            unused = [
                one
                for one in listed
                if one.object.sha256 not in used and one.object.put_at < cutoff
            ]
            back: list[Unused] = []
            answers = find(installation, timedelta(hours=grace_hours), now)
            if delete:
                back = _delete(stores, unused, cutoff, references)
                remove(installation, answers)
    except Retry as error:
        raise CommandError(f"{error}; nothing more is deleted") from error
    gone = [one for one in unused if one not in back]
    kept = [one.object.size_bytes for one in listed if one not in gone]
    return Report(cutoff, len(kept), sum(kept), gone, delete, back, answers)


def _delete(
    stores: dict[str, ArtifactStore],
    unused: Iterable[Unused],
    cutoff: datetime,
    references: References,
) -> list[Unused]:
    """Delete objects; return those that somebody wants again."""
    back = []
    for one in unused:
        digest = one.object.sha256
        if digest in references.digests or not stores[one.room].discard(digest, cutoff):
            back.append(one)
    return back


def closure(
    store: ArtifactStore, listed: Iterable[Unused], digests: Iterable[str]
) -> set[str]:
    """Return what is referred to, by the log or by what it refers to."""
    there = {one.object.sha256: one for one in listed if not one.room}
    used = set(digests)
    todo = [digest for digest in used if digest in there]
    while todo:
        found = references_in(store, there[todo.pop()].object) - used
        used |= found
        todo += [digest for digest in found if digest in there]
    return used


def references_in(store: ArtifactStore, found: Stored) -> set[str]:
    """Return the digests that an object names, as a package's envelope does.

    Raises
    ------
    Retry
        When the store is away.
    """
    if found.size_bytes > MAX_ENVELOPE_BYTES:
        return set()
    content = b""
    with closing(store.parts(uri_of(found.sha256), found.sha256)) as parts:  # type: ignore[type-var]  # generators
        for part in parts:
            content += part
            if not content.startswith(b"{"):
                return set()
    names = set(_digests(content))
    try:
        payload = json.loads(content).get("payload")
        if isinstance(payload, str):
            names.update(_digests(base64.b64decode(payload)))
    except (ValueError, binascii.Error, RecursionError):
        pass  # a file of a package that is none of JSON
    return {name.decode() for name in names}


def _parts(message: Message) -> Iterator[bytes]:
    yield message.key or b""
    yield message.value or b""
    for _, value in message.headers:
        yield value or b""
    try:  # a structured event may hold its data as base64
        yield attributes_of(message).data or b""
    except Reject:
        return


@contextmanager
def reading(installation: Installation, store: ArtifactStore) -> Iterator[References]:
    """Read the whole log, and go on reading what comes.

    Raises
    ------
    CommandError
        When it cannot be read to its end.
    """
    references = References(store)
    topics = [name for name, *_ in all_topics()]
    follower = LogFollower(
        installation.bootstrap,
        topics,
        references.take,
        installation.settings.kafka_config,
    )
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    try:
        complete = follower.caught_up.wait(LOG_TIMEOUT_S)
        if not complete or references.problem:
            raise CommandError(
                f"the log at {installation.bootstrap} was not read to its end "
                f"({references.problem or f'not within {LOG_TIMEOUT_S:g} s'}); nothing "
                "is deleted. It takes a user who may read every topic"
            )
        yield references
    finally:
        follower.stop()
        thread.join()


def report_view(report: Report) -> RenderableType:
    """Return a report for people."""
    verb = "deleted" if report.deleted else "could be deleted: --delete"
    head = (
        f"{len(report.unused):,} objects ({report.unused_bytes:,} bytes) that nothing "
        f"refers to {verb}"
    )
    lines = [Text(head, style="bold")]
    shown = sorted(report.unused, key=lambda one: -one.object.size_bytes)[:SHOWN]
    for one in shown:
        room = f"{one.room}/" if one.room else ""
        found = one.object
        lines.append(
            Text(
                f"  {room}{found.sha256}  {found.size_bytes:>12,} bytes  "
                f"{found.put_at:%Y-%m-%d %H:%M}"
            )
        )
    if len(report.unused) > len(shown):
        rest = len(report.unused) - len(shown)
        lines.append(Text(f"  and {rest:,} smaller ones (--json lists all)"))
    if report.answers:
        size = sum(one.table.size_bytes for one in report.answers)
        number = len(report.answers)
        noun = "table" if number == 1 else "tables"
        text = f"{number:,} {noun} of answers ({size:,} bytes) {verb}"
        lines.append(Text(text, style="bold"))
        lines += [Text(f"  {one.table.uri}  {one.why}") for one in report.answers]
    lines.append(
        Text(
            f"{report.kept_count:,} objects ({report.kept_bytes:,} bytes) stay: "
            f"referred to, or put after {report.kept_from:%Y-%m-%d %H:%M} UTC"
        )
    )
    if report.came_back:
        number = len(report.came_back)
        lines.append(Text(f"{number:,} came into use meanwhile and stay"))
    return Group(*lines)
