"""The data door on Kafka: messages of any form become batches, each id once.

A chunk of messages is one transaction: ids remembered, watermarks, batches and
dead letters are stored together, then published. Killed before the commit, nothing
of the chunk happened, and whatever chunk the messages come in next time, none of
their batches has been seen by anyone; killed after it, the outbox publishes the
same batches with the same ids and the messages are skipped by their offsets.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.base import NAME_PATTERN, Event, Meta
from driftloop.contracts.events import (
    MAX_ERASED_TOKENS,
    BatchIngested,
    ErasureProposed,
    ErasureRequested,
    RowKind,
    Span,
    SubjectErased,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import row_keys
from driftloop.ingest import proposals
from driftloop.ingest.attaching import attach, has_attachments, most_rows
from driftloop.ingest.core import (
    batches,
    behind,
    concatenated,
    fresh_rows,
    joined_rows,
    typed_rows,
)
from driftloop.ingest.discreet import has_rules, plain_reason, source_name, told
from driftloop.ingest.errors import FormatError
from driftloop.ingest.formats import BadRow, Parsed, parse
from driftloop.ingest.keys import PrivacyKeys
from driftloop.ingest.metrics import NOTED_ROWS, PRIVATE_ROWS, ROWS
from driftloop.ingest.owners import Owners
from driftloop.ingest.privacy import treat
from driftloop.ingest.tables import (
    advance_time,
    known_ids,
    newest_time,
    remember_ids,
)
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.envelope import Attributes, attributes_of, meta_of
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.handlers import Chunk, DeadLetter, Deps, EventHandler
from driftloop.runtime.payloads import PayloadStore
from driftloop.runtime.transport import Message

DEFAULT_SOURCE = "upstream"
MAX_SOURCE_CHARS = 200

is_name = re.compile(NAME_PATTERN).fullmatch


@dataclass
class Patience:
    """How long messages of a pipeline that is not applied have waited.

    The view of applied pipelines is a moment behind, so the first messages may
    overtake the pipeline's file; for ever they cannot wait, others stand behind.
    """

    grace_s: float
    _since: dict[str, float] = field(default_factory=dict)

    def is_over(self, pipeline: str) -> bool:
        now = time.monotonic()
        return now - self._since.setdefault(pipeline, now) >= self.grace_s

    def forget(self, pipeline: str) -> None:
        self._since.pop(pipeline, None)


@dataclass(frozen=True)
class IngestDeps(Deps):
    """What the handlers use besides their transaction."""

    patience: Patience
    privacy_keys: PrivacyKeys | None = None
    payloads: PayloadStore | None = None

    def told(self, message: Message) -> Message:
        return told(message, self.pipelines, self.privacy_keys)


class Arrival(NamedTuple):
    """A message that could be read."""

    message: Message
    attributes: Attributes
    pipeline: str
    source: str
    parsed: Parsed
    spec: PipelineSpec | None
    """The pipeline's file at the time of reading, which said what may be read."""
    treated: frozenset[str] = frozenset()
    """Columns whose privacy rules were applied before it came, at the HTTP door."""


def _origin(message: Message) -> Meta:
    """Whose chain goes on in the batch that begins with this message."""
    attributes = attributes_of(message)
    try:
        return meta_of(attributes, message)
    except Reject:  # a time that is none; upstream's, and nobody needs it here
        values = attributes.values
        timeless = {name: values[name] for name in values if name != "time"}
        return meta_of(Attributes(timeless, "", None), message)


def on_observation_arrived(
    messages: Sequence[Message], deps: IngestDeps
) -> Iterator[Event | DeadLetter]:
    """Rows of features, with or without their target."""
    yield from _arrived("observations", messages, deps)


def on_label_arrived(
    messages: Sequence[Message], deps: IngestDeps
) -> Iterator[Event | DeadLetter]:
    """Targets of rows known by id."""
    yield from _arrived("labels", messages, deps)


def _arrived(
    kind: RowKind, messages: Sequence[Message], deps: IngestDeps
) -> Iterator[Event | DeadLetter]:
    letters: list[DeadLetter] = []
    groups: dict[tuple[str, str], list[Arrival]] = {}
    for message in messages:
        try:
            arrival = _read(message, deps)
        except Reject as error:
            error.plain = plain_reason(error.reason)
            letters.append(DeadLetter(message, error))
            continue
        groups.setdefault((arrival.pipeline, arrival.source), []).append(arrival)
    unknown = _unknown_pipelines(groups, deps)
    yield from letters
    for (pipeline, source), arrivals in groups.items():
        if pipeline in unknown:
            absent = Reject(
                f"pipeline {pipeline!r} is not applied; run: driftloop apply FILE",
                field="subject",
                plain="the pipeline is not applied; run: driftloop apply FILE",
            )
            yield from (DeadLetter(arrival.message, absent) for arrival in arrivals)
        else:
            yield from _batched(kind, pipeline, source, arrivals, deps)


def _unknown_pipelines(
    groups: Mapping[tuple[str, str], Sequence[Arrival]], deps: IngestDeps
) -> set[str]:
    """Return pipelines that are not applied and have been waited for.

    Raises
    ------
    Retry
        While one may still be on its way.
    """
    unknown = {
        name
        for (name, _), arrivals in groups.items()
        if any(arrival.spec is None for arrival in arrivals)
    }
    waiting = [name for name in sorted(unknown) if not deps.patience.is_over(name)]
    if waiting:
        is_open = not any(has_rules(each.spec) for each in deps.pipelines.values())
        names = ", ".join(waiting) if is_open else f"({len(waiting)})"
        raise Retry(f"pipeline {names} is not applied; run: driftloop apply FILE")
    return unknown


def _read(message: Message, deps: IngestDeps) -> Arrival:
    """Tell a message's pipeline and source and read its rows.

    Raises
    ------
    Reject
        Names what is wrong with the whole message.
    """
    attributes = attributes_of(message)
    if not attributes.data:
        raise Reject("the record has no value")
    try:
        parsed = parse(attributes.data, attributes.content_type)
    except FormatError as error:
        raise Reject(str(error)) from error
    try:
        key = (message.key or b"").decode()
    except UnicodeDecodeError as error:
        raise Reject("not UTF-8 text", field="key") from error
    of_key, _, rest = key.partition("/")
    pipeline = attributes.get("subject") or of_key
    if not is_name(pipeline):
        raise Reject(
            f"{pipeline[:80]!r} names no pipeline; set the CloudEvents subject or "
            "the record's key to its name",
            field="subject",
        )
    applied = deps.pipelines.get(pipeline)
    spec = None if applied is None else applied.spec
    if spec is not None and has_rules(spec):
        source = source_name(parsed.source or attributes.get("source"))
        treated = _treated(message, attributes, pipeline, deps)
        return Arrival(message, attributes, pipeline, source, parsed, spec, treated)
    given = parsed.source or attributes.get("source") or rest
    if not given.isprintable():
        raise Reject("has characters that cannot be printed", field="source")
    source = given.rstrip("/").rpartition("/")[2][:MAX_SOURCE_CHARS]
    source = source or DEFAULT_SOURCE
    return Arrival(message, attributes, pipeline, source, parsed, spec)


def _treated(
    message: Message, attributes: Attributes, pipeline: str, deps: IngestDeps
) -> frozenset[str]:
    """Return the columns whose rules the HTTP door has applied, if it proves so."""
    columns = frozenset((attributes.get("privacycolumns") or "").split("\x1f"))
    seal = attributes.get("privacyseal")
    if seal is None or deps.privacy_keys is None or attributes.data is None:
        return frozenset()
    is_real = deps.privacy_keys.is_seal(
        seal, message.topic, pipeline, columns, attributes.data
    )
    return columns if is_real else frozenset()


def _allowed(
    parsed: Parsed, arrival: Arrival, spec: PipelineSpec, deps: IngestDeps
) -> Parsed:
    """Return rows with the pipeline's privacy rules applied.

    Raises
    ------
    Retry
        When this process has no privacy key.
    """
    if not has_rules(spec):
        return parsed
    if deps.privacy_keys is None:
        raise Retry("there is no privacy key; set DRIFTLOOP_PRIVACY_KEY")
    where = "door" if arrival.treated else "topic"
    PRIVATE_ROWS.labels(spec.name, where).inc(len(parsed.numbers))
    vault = DatabaseVault(deps.session, deps.privacy_keys)
    return treat(parsed, spec, deps.privacy_keys, vault, arrival.treated)


def _attached(
    parsed: Parsed, spec: PipelineSpec, is_done: bool, deps: IngestDeps
) -> Parsed:
    """Return rows with references in place of payloads, which are stored.

    Parameters
    ----------
    is_done : whether the HTTP door has noted whose payloads they are.

    Raises
    ------
    Retry
        When the store is away, or this process has no privacy key.
    """
    if not has_attachments(spec):
        return parsed
    if deps.payloads is None or deps.privacy_keys is None:
        raise Retry("there is no store of payloads, or no privacy key")
    owners = None if is_done else Owners(deps.session, deps.privacy_keys)
    return attach(parsed, spec, deps.payloads, owners).parsed


def _batched(
    kind: RowKind,
    pipeline: str,
    source: str,
    arrivals: Sequence[Arrival],
    deps: IngestDeps,
) -> Iterator[Event | DeadLetter]:
    """Return batches of one source, and dead letters of its bad rows."""
    spec = arrivals[-1].spec
    assert spec is not None  # noqa: S101 - the caller has looked
    deps.patience.forget(pipeline)
    for arrival in arrivals:
        yield from (_row_letter(arrival, row) for row in arrival.parsed.bad)
    tables: list[pa.Table] = []
    contents: list[bytes] = []
    for _, group in groupby(arrivals, key=lambda arrival: arrival.treated):
        run = list(group)
        for raw, owners in joined_rows([arrival.parsed for arrival in run]):
            attached = _attached(raw, spec, bool(run[0].treated), deps)
            parsed = _allowed(attached, run[0], spec, deps)
            typed = typed_rows(parsed, spec, kind, source)
            tables.append(typed.table)
            contents += typed.contents
            for position, row in typed.bad:
                yield _row_letter(run[owners[position]], row)
    if not contents:
        return
    table = concatenated(tables)
    keys = row_keys(f"{pipeline}/{kind}", table["id"].to_pylist())
    fresh = fresh_rows(keys, contents, known_ids(deps.session, keys))
    remember_ids(deps.session, fresh.added, fresh.changed)
    duplicates = len(keys) - len(fresh.positions)
    ROWS.labels(pipeline, kind, "new").inc(len(fresh.positions))
    ROWS.labels(pipeline, kind, "duplicate").inc(duplicates)
    revised = sum(revision > 0 for revision in fresh.revisions)
    NOTED_ROWS.labels(pipeline, kind, "revised").inc(revised)
    table = table.take(pa.array(fresh.positions, pa.int64()))
    if kind == "labels":
        revisions = pa.array(fresh.revisions, pa.int64())
        table = table.append_column("revision", revisions)
    origin = _origin(deps.told(arrivals[0].message))
    watermark = newest_time(deps.session, pipeline, kind, source)
    for rows in batches(table, most_rows(spec)):
        span = _span(rows)
        late, out_of_order = behind(rows["event_time"], watermark, spec)
        watermark = max(watermark or span.end, span.end)
        event = BatchIngested(
            pipeline=pipeline,
            shard=source,
            kind=kind,
            row_count=rows.num_rows,
            span=span,
            duplicate_count=duplicates,
            late_count=late,
            out_of_order_count=out_of_order,
            revised_count=revised,
            watermark=watermark,
        )
        duplicates = revised = 0  # counted once, in the first batch
        NOTED_ROWS.labels(pipeline, kind, "late").inc(late)
        NOTED_ROWS.labels(pipeline, kind, "out_of_order").inc(out_of_order)
        yield event.with_rows(rows).following(origin)
    if watermark is not None:
        advance_time(deps.session, pipeline, kind, source, watermark)


def _span(rows: pa.RecordBatch) -> Span:
    ends = pc.min_max(rows["event_time"])
    return Span(start=ends["min"].as_py(), end=ends["max"].as_py())


def _row_letter(arrival: Arrival, row: BadRow) -> DeadLetter:
    """Return a dead letter that holds one row alone, fit to be sent again."""
    attributes = {f"ce_{n}": v for n, v in arrival.attributes.values.items()}
    attributes.pop("ce_datacontenttype", None)
    attributes |= {
        "ce_subject": arrival.pipeline,
        "ce_source": arrival.attributes.get("source") or arrival.source,
        "content-type": row.content_type,
    }
    if "ce_traceparent" in attributes:
        attributes["traceparent"] = attributes.pop("ce_traceparent")
    whole = arrival.message
    message = Message(
        topic=whole.topic,
        partition=whole.partition,
        offset=whole.offset,
        key=whole.key,
        value=row.content,
        headers=tuple((name, text.encode()) for name, text in attributes.items()),
        timestamp_ms=whole.timestamp_ms,
    )
    plain = plain_reason(row.reason)
    error = Reject(row.reason, field=row.field, plain=plain)
    return DeadLetter(message, error, row.number)


def on_erasure_proposed(event: ErasureProposed, deps: IngestDeps) -> Iterator[Event]:
    """Keep a proposal until another person confirms it; nothing is destroyed."""
    proposals.note(deps.session, event)
    yield from ()


def on_erasure_requested(
    event: ErasureRequested, deps: IngestDeps
) -> Iterator[SubjectErased]:
    """Make what is known of a person unreadable, wherever it lies."""
    proposals.note_confirmed(deps.session, event)
    if deps.privacy_keys is None:
        raise Retry("there is no privacy key; set DRIFTLOOP_PRIVACY_KEY")
    vault = DatabaseVault(deps.session, deps.privacy_keys)
    key_count, tokens = vault.erase(event.pipeline, event.subject)
    owners = Owners(deps.session, deps.privacy_keys)
    released = owners.release(event.pipeline, event.subject)
    for sha256 in released:
        if deps.payloads is None:
            raise Retry("there is no store of payloads")
        deps.payloads.delete(event.pipeline, sha256)
    yield SubjectErased(
        pipeline=event.pipeline,
        subject=event.subject,
        key_count=key_count,
        token_count=len(tokens),
        payload_count=len(released),
        requested_by=event.requested_by,
        tokens=tokens[:MAX_ERASED_TOKENS],
    )


HANDLERS: list[Chunk | EventHandler] = [
    Chunk("observation-arrived", on_observation_arrived),
    Chunk("label-arrived", on_label_arrived),
    on_erasure_proposed,
    on_erasure_requested,
]
