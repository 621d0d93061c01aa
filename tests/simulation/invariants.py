"""What is true of every history, whatever was killed, repeated, delayed or reordered.

Pure: a history goes in, one line for each violation comes out. The checks know the
events of the topic table and no handler; where a rule of the product is repeated here
(the moves of a version), that is on purpose, so that a change of it is seen.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.audit import Anchor, breaks_in
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    ApprovalGiven,
    ApprovalRequested,
    BatchIngested,
    BatchRejected,
    BatchScored,
    BatchValidated,
    DatasetVersioned,
    DriftDetected,
    DriftEnded,
    ModelApproved,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ModelTrained,
    PipelineApplied,
    RetrainRequested,
    RolloutAdvanced,
    ServingDesired,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingCancelRequested,
    TrainingFailed,
    TrainingSkipped,
    TrainingStarted,
    VerdictOverruled,
)
from driftloop.contracts.identity import AuditAnchored, AuditNoted
from driftloop.contracts.topics import TOPICS
from driftloop.models.package import PackageRefused, read_package
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.transport import Message
from driftloop.trainer.faults import Faults

from tests.simulation.history import History

Check = Callable[[History], Iterator[str]]
MOVES = {
    (None, "registered"),
    ("registered", "rejected"),
    ("registered", "awaiting_approval"),
    ("registered", "approved"),
    ("awaiting_approval", "approved"),
    ("awaiting_approval", "rejected"),
    ("awaiting_approval", "expired"),
    ("expired", "awaiting_approval"),
    ("approved", "deployed"),
    ("approved", "rolled_back"),
    ("approved", "superseded"),
    ("deployed", "superseded"),
    ("deployed", "rolled_back"),
    ("superseded", "deployed"),
    ("rolled_back", "deployed"),
}
RECORD_ID = re.compile(r"([a-z-]+)/(\d+)/(?:\d+-)?(\d+)")
"""Of a record that has no id, or of a chunk of records: topic, partition, offset."""
TOLD_ANEW = frozenset({"ce_time", "traceparent"})
"""What a service that was built anew from the log says otherwise than the first time:
when it said it."""
ROLLED_BACK = "failed"


@dataclass(frozen=True)
class Violation:
    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


# ── 0 ───────────────────────────────────────────────────────────────────────


def comes_to_rest(history: History) -> Iterator[str]:
    if not history.is_quiet:
        yield "it never comes to rest"
    yield from history.bugs


# ── 1 ───────────────────────────────────────────────────────────────────────


def every_input_has_an_outcome(history: History) -> Iterator[str]:
    real = history.services.keys()
    if "trainer" in real:
        yield from _triggers_are_answered(history)
    if {"trainer", "registry"} <= real:
        registered = {e.job_id for e in history.of(ModelRegistered)}
        for trained in history.of(ModelTrained):
            if trained.job_id not in registered:
                yield f"the model of job {trained.job_id} is no version"
    if "registry" in real:
        yield from _versions_are_decided(history)
    if "deployer" in real:
        yield from _approved_versions_end(history)
    if "validator" in real:
        yield from _batches_are_judged(history)
    yield from _rows_are_judged(history)
    yield from _effects_are_there(history)


def _rows_are_judged(history: History) -> Iterator[str]:
    for kind, sent in history.sent.items():
        for name in sorted(sent - set(_row_ids(history, kind, *BOTH))):
            yield f"row {name} of {kind} has no verdict"
    for kind, stored in history.stored.items():
        good = set(_row_ids(history, kind, BatchValidated))
        for name in sorted(good ^ set(stored)):
            yield f"row {name} of {kind} is in the log or the dataset alone"


def _effects_are_there(history: History) -> Iterator[str]:
    told = (e for events in history.events.values() for e in events)
    caused = {event.meta.causation_id for event in told}
    for service, noted in history.effects.items():
        for topic in history.services[service]:
            for event in _once(history.events[topic]):
                if (event.meta.id in noted) == _is_skipped(event):
                    yield f"{service} has not the effect of {topic} {event.meta.id}"
        for name in sorted(set(noted) - caused):
            yield f"{service} has an effect of {name}, and told nobody"


def _once(events: Iterable[Event]) -> Iterable[Event]:
    return {event.meta.id: event for event in events}.values()


def _is_skipped(event: Event) -> bool:
    return isinstance(event, RetrainRequested) and event.reason == "skip"


def _triggers_are_answered(history: History) -> Iterator[str]:
    answered = {
        e.trigger.event_id
        for kind in (TrainingStarted, TrainingSkipped)
        for e in history.of(kind)
    }
    for kind in (DriftDetected, RetrainRequested):
        for event in history.of(kind):
            if event.meta.id not in answered:
                yield f"{event.topic()} {event.meta.id} has no answer"
    ended = {
        e.job_id
        for kind in (ModelTrained, TrainingFailed, TrainingCancelled)
        for e in history.of(kind)
    }
    for started in history.of(TrainingStarted):
        if started.job_id not in ended:
            yield f"job {started.job_id} has no end"
    told = {e.job_id for e in history.of(TrainingCancelled)}
    told |= {e.job_id for e in history.of(TrainingCancelRefused)}
    for asked in history.of(TrainingCancelRequested):
        if asked.job_id not in told:
            yield f"nobody answers that job {asked.job_id} be cancelled"


def _versions_are_decided(history: History) -> Iterator[str]:
    decided = {e.version for e in history.of(ModelApproved)}
    decided |= {e.version for e in history.of(ModelRejected)}
    ledger = history.ledger
    assert ledger is not None
    for registered in history.of(ModelRegistered):
        version = registered.version
        standing = ledger.standings.get(version)
        if standing is None:
            yield f"version {version} is not in the registry"
        elif version not in decided and standing.state != "awaiting_approval":
            yield f"version {version} is {standing.state}, and nobody was told"


def _approved_versions_end(history: History) -> Iterator[str]:
    ended: set[int | None] = {e.version for e in history.of(ModelDeployed)}
    ended |= {e.version for e in history.of(ModelRolledBack)}
    ended |= {
        e.version
        for e in history.of(RolloutAdvanced)
        if (e.step, e.verdict) == ("waiting", ROLLED_BACK)
    }
    wish = _last_wish(history)
    if wish is not None:
        ended |= {m.version for m in (wish.champion, wish.candidate) if m}
    for approved in history.of(ModelApproved):
        if approved.version not in ended:
            yield f"the rollout of version {approved.version} never ended"


def _batches_are_judged(history: History) -> Iterator[str]:
    judged = {
        e.meta.causation_id
        for kind in (BatchValidated, BatchRejected)
        for e in history.of(kind)
    }
    for batch in history.of(BatchIngested):
        if batch.meta.id not in judged:
            yield f"batch {batch.meta.id} has no verdict"


BOTH = (BatchValidated, BatchRejected)


def _row_ids(
    history: History, kind: str, *verdicts: type[BatchValidated | BatchRejected]
) -> Iterator[str]:
    """Return the ids in verdicts about rows of a kind, as often as they are."""
    for verdict in verdicts:
        for event in history.of(verdict):
            if event.kind == kind:
                yield from event.rows.column("id").to_pylist()


# ── 2 ───────────────────────────────────────────────────────────────────────


def no_effect_twice(history: History) -> Iterator[str]:
    """Count facts, each event id once: a repeat of the same event is no fact."""
    of = history.of
    for service, noted in history.effects.items():
        for name, count in Counter(noted).items():
            if count > 1:
                yield f"{service} has {count} effects of {name}"
    for kind, stored in history.stored.items():
        for name, count in Counter(stored).items():
            if count > 1:
                yield f"row {name} of {kind} is stored {count} times"
    for kind in history.sent:  # one that was rejected may be sent again, mended
        for name, count in Counter(_row_ids(history, kind, BatchValidated)).items():
            if count > 1:
                yield f"row {name} of {kind} is in the dataset {count} times"
    yield from _twice("a job begins", of(TrainingStarted), lambda e: e.job_id)
    yield from _twice(
        "a trigger starts a training", of(TrainingStarted), lambda e: e.trigger.event_id
    )
    yield from _twice(
        "a trigger is put off", of(TrainingSkipped), lambda e: e.trigger.event_id
    )
    ends = (*of(ModelTrained), *of(TrainingFailed), *of(TrainingCancelled))
    yield from _twice("a job ends", ends, lambda e: e.job_id)
    yield from _twice("a job is a version", of(ModelRegistered), lambda e: e.job_id)
    yield from _twice("a number is given", of(ModelRegistered), lambda e: e.version)
    yield from _twice(
        "people are asked", of(ApprovalRequested), lambda e: (e.version, e.request)
    )
    decisions = (
        *of(ModelApproved),
        *(e for e in of(ModelRejected) if e.rejected_by != "expiry"),
    )
    yield from _twice("a version is decided", decisions, lambda e: e.version)
    yield from _twice(
        "a step begins",
        (e for e in of(RolloutAdvanced) if e.verdict == "started"),
        lambda e: (e.environment, e.rollout_id, e.step),
    )
    yield from _twice("a version goes live", of(ModelDeployed), lambda e: e.rollout_id)
    yield from _twice(
        "a version is taken back",
        of(ModelRolledBack),
        lambda e: (e.rollout_id, e.version, e.generation),
    )
    yield from _twice(
        "a generation is wished",
        of(ServingDesired),
        lambda e: (e.environment, e.generation),
    )
    yield from _twice(  # what two people ask for in vain is said to each
        "people are alerted",
        of(AlertRaised),
        lambda e: (e.condition, e.meta.causation_id),
    )
    for kind in (BatchValidated, BatchRejected, DatasetVersioned):
        if "validator" in history.services:
            yield from _twice(
                f"a batch makes a {kind.topic()}",
                of(kind),
                lambda e: e.meta.causation_id,
            )
    if "scorer" in history.services:
        yield from _twice(
            "a batch is scored", of(BatchScored), lambda e: e.meta.causation_id
        )


def _twice(
    what: str, events: Iterable[Any], key: Callable[[Any], Hashable]
) -> Iterator[str]:
    found = defaultdict(list)
    for event in events:
        found[key(event)].append(event.meta.id)
    for name, ids in found.items():
        if len(ids) > 1:
            yield f"{what} {len(ids)} times: {name} by {', '.join(ids)}"


# ── 3 ───────────────────────────────────────────────────────────────────────


def same_id_same_bytes(history: History) -> Iterator[str]:
    said: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    known: set[str] = set()
    caused: list[tuple[str, str]] = []
    for topic in TOPICS:
        for message in history.records.get(topic.name, ()):
            if (topic.name, message.partition, message.offset) in history.poison:
                continue
            headers = _headers(message)
            event_id, source = headers.get("ce_id"), headers.get("ce_source", "")
            if event_id is None:
                continue  # a record as upstream writes it
            known.add(event_id)
            cause = headers.get("ce_causationid")
            if cause is not None:
                caused.append((event_id, cause))
            service = source.removeprefix("/driftloop/")
            if service in history.wiped:
                headers = {n: v for n, v in headers.items() if n not in TOLD_ANEW}
            form = (message.key, message.value, headers)
            before = said.setdefault((topic.name, source, event_id), form)
            if before != form:
                yield f"{topic.name} {event_id} was said in two ways"
    for event_id, cause in caused:
        if cause not in known and not _is_record(cause, history):
            yield f"{event_id} names the cause {cause}, which is not in the log"


def _headers(message: Message) -> dict[str, str]:
    return {name: value.decode("latin-1") for name, value in message.headers}


def _is_record(name: str, history: History) -> bool:
    found = RECORD_ID.fullmatch(name)
    if found is None:
        return False
    topic, partition, last = found.groups()
    return any(
        (m.partition, m.offset) == (int(partition), int(last))
        for m in history.records.get(topic, ())
    )


# ── 4 ───────────────────────────────────────────────────────────────────────


def versions_move_as_allowed(history: History) -> Iterator[str]:
    ledger = history.ledger
    if ledger is None:
        return
    for entry in ledger.history:
        move = (entry.before, entry.after)
        if entry.subject == "state" and move not in MOVES:
            yield f"version {entry.version} moved from {move[0]} to {move[1]}"
    passed = {
        e.version
        for e in history.of(ModelRegistered)
        if all(check.passed or check.severity == "warn" for check in e.gate)
    }
    approved = {e.version for e in history.of(ModelApproved)}
    for version in sorted(approved - passed):
        yield f"version {version} was approved and did not pass the gate"
    if _spec(history).automation != "full":
        for event in history.of(ModelApproved):
            yield from _was_allowed(event, history)
    for version in sorted(_rolled_out(history) - approved):
        yield f"version {version} was rolled out and nobody approved it"


def _spec(history: History) -> Any:
    return history.of(PipelineApplied)[-1].spec


def _was_allowed(event: ModelApproved, history: History) -> Iterator[str]:
    """As many said yes as were asked: in time, to this package, and not its author."""
    asked = [e for e in history.of(ApprovalRequested) if e.version == event.version]
    if not asked:
        yield f"version {event.version} was approved and nobody was asked"
        return
    for request in asked:
        yes = {
            given.by
            for given in history.of(ApprovalGiven)
            if (given.version, given.request) == (event.version, request.request)
            and given.decision == "approve"
            and given.package_digest == event.package.digest
            and given.by != event.author
            and (request.expires_at is None or given.meta.time < request.expires_at)
        }
        if len(yes) >= request.people:
            return
    yield f"version {event.version} was approved by too few: {event.approved_by}"


def _rolled_out(history: History) -> set[int]:
    found = {e.version for e in history.of(ModelDeployed)}
    found |= {e.version for e in history.of(RolloutAdvanced)}
    for wish in history.of(ServingDesired):
        found |= {m.version for m in (wish.champion, wish.candidate) if m}
    return found


# ── 5 ───────────────────────────────────────────────────────────────────────


def artifacts_are_whole(history: History) -> Iterator[str]:
    for event in history.of(ModelRegistered):
        try:
            package = read_package(event.package, history.store, history.trusted)
        except (PackageRefused, Reject, Retry) as error:
            yield f"the package of version {event.version} cannot be fetched: {error}"
            continue
        for name, entry in package.manifest.files.items():
            if len(package.files[name]) != entry.size_bytes:
                yield f"{name} of version {event.version} has another size"


# ── 6 ───────────────────────────────────────────────────────────────────────


def serves_what_is_desired(history: History) -> Iterator[str]:
    for service, lag in history.lag.items():
        if lag:
            yield f"{service} has {lag} messages to read"
    for service, count in history.unsent.items():
        if count:
            yield f"{service} has stored {count} events that are not in the log"
    is_known = history.faults is None or history.has_waited_out
    if not is_known and history.faults != _faults_in(history):
        yield "the trainer knows other faults than the log tells"
    wish = _last_wish(history)
    if wish is None:
        return
    wanted = wish.champion.version if wish.champion else None
    for replica, version in history.serves.items():
        if version != wanted and not _cannot_be_served(history, wanted):
            yield f"replica {replica} serves {version}, {wanted} is desired"
    ledger = history.ledger
    if ledger is not None and "deployer" in history.services:
        champion = ledger.aliases.get("champion")
        if champion != wanted and not _is_on_its_way(history, wanted):
            yield f"the registry's champion is {champion}, {wanted} is desired"


def _faults_in(history: History) -> Faults:
    """Return what follows from the log alone, each topic read to its end in turn."""
    found = Faults()
    for verdict in history.of(DriftDetected):
        found = found.with_verdict(verdict, verdict.meta.id)
    for said in history.of(VerdictOverruled):
        found = found.with_ruling(said)
    for end in history.of(DriftEnded):
        found = found.with_end(end)
    return found


def _last_wish(history: History) -> ServingDesired | None:
    """Return the record that a compacted topic keeps: the last one written."""
    wishes = history.events.get(ServingDesired.topic(), ())
    return wishes[-1] if wishes else None  # type: ignore[return-value]  # its topic


def _is_on_its_way(history: History, version: int | None) -> bool:
    """Whether a version is in front that no scorer has said to serve yet."""
    return version not in {e.version for e in history.of(ModelDeployed)} and any(
        e.version == version and e.verdict == "started"
        for e in history.of(RolloutAdvanced)
    )


def _cannot_be_served(history: History, version: int | None) -> bool:
    reports = history.events.get("scorer-reported", ())
    return any(
        said.version == version and said.state == "failed"
        for report in reports
        for said in report.versions  # type: ignore[attr-defined]  # its topic
    )


# ── 7 ───────────────────────────────────────────────────────────────────────


def trail_verifies(history: History) -> Iterator[str]:
    if history.trail is None:
        return
    notes: dict[str, Mapping[str, Any]] = {}
    for note in history.events.get(AuditNoted.topic(), ()):
        assert isinstance(note, AuditNoted)
        notes.setdefault(note.meta.id, note.as_entry())
    anchors = [Anchor(e.position, e.hash, e.meta.id) for e in history.of(AuditAnchored)]
    for found in breaks_in(history.trail, anchors, list(notes.values())):
        yield f"{found.kind} at {found.position}: {found.detail}"


# ── 8 ───────────────────────────────────────────────────────────────────────


def letters_are_the_bad_records(history: History) -> Iterator[str]:
    for service, topics in history.services.items():
        expected = {place for place in history.poison if place[0] in topics}
        found: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        for letter in history.letters(service):
            said = _headers(letter)
            place = (
                said["dead-letter-topic"],
                int(said["dead-letter-partition"]),
                int(said["dead-letter-offset"]),
            )
            found[place].add(said["dead-letter-id"])
            yield from _is_raw(letter, place, history)
            if place not in expected and not (
                history.has_waited_out and said["dead-letter-error"] in PASSING
            ):
                why = said.get("dead-letter-reason")
                yield f"{service} put a good record aside: {place}, {why}"
        for place in sorted(expected - found.keys()):
            yield f"{service} dropped a bad record: {place}"
        for place, ids in found.items():
            if len(ids) > 1:
                yield f"{service} put {place} aside {len(ids)} times"


PASSING = frozenset({"Retry", "AbsentError", "OperationalError"})
"""Errors of a record that is put aside because it had to wait for too long."""


def _is_raw(
    letter: Message, place: tuple[str, int, int], history: History
) -> Iterator[str]:
    topic, partition, offset = place
    original = next(
        (
            m
            for m in history.records[topic]
            if (m.partition, m.offset) == (partition, offset)
        ),
        None,
    )
    if original is None:
        yield f"a dead letter names {place}, where nothing is"
    elif (letter.key, letter.value) != (original.key, original.value):
        yield f"the dead letter of {place} holds other bytes"
    elif not set(original.headers) <= set(letter.headers):
        yield f"the dead letter of {place} lacks headers"


CHECKS: dict[str, Check] = {
    "0 rest": comes_to_rest,
    "1 outcome": every_input_has_an_outcome,
    "2 once": no_effect_twice,
    "3 identity": same_id_same_bytes,
    "4 moves": versions_move_as_allowed,
    "5 artifacts": artifacts_are_whole,
    "6 serving": serves_what_is_desired,
    "7 trail": trail_verifies,
    "8 letters": letters_are_the_bad_records,
}


def violations(history: History) -> list[Violation]:
    """Return everything that is wrong with a history."""
    return [
        Violation(name, detail)
        for name, check in CHECKS.items()
        for detail in check(history)
    ]


__all__ = ["CHECKS", "Violation", "violations"]
