"""Fetches rows from the sources that pipeline files name.

What is fetched goes to the topics that upstream systems write to, with ids derived from
the content, and a position is stored once Kafka has acknowledged. A kill at any moment
therefore sends some messages again, whose rows ingest knows by their ids: none is lost
and none taken twice.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.sources import PullSource, SqlTable
from driftloop.ingest.attaching import has_attachments
from driftloop.ingest.core import MAX_BATCH_BYTES
from driftloop.ingest.discreet import has_rules
from driftloop.ingest.encodings import TooLargeError
from driftloop.ingest.errors import FormatError
from driftloop.ingest.folders import (
    Found,
    Place,
    SourceError,
    content_type_of,
    open_place,
    plain_bytes,
)
from driftloop.ingest.formats import NDJSON_TYPE, BadRow, Parsed, parse, row_json
from driftloop.ingest.metrics import PULL_PROBLEMS, PULLED
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.pull_tables import Held, LeaseLostError, give_back, take
from driftloop.ingest.records import records_of, rewritten
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.sql_tables import new_pages, open_source
from driftloop.ingest.taking import Attach
from driftloop.runtime.envelope import Attributes
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Publisher, PublishError, Record
from fastapi import HTTPException
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

POLL_S = 0.2
MAX_PAUSE_S = 60.0
MESSAGES_AT_A_TIME = 8
"""Sent together, and their position stored after that."""
LOOK_S = 5.0
"""Of one source, before the others have their turn."""
logger = log(__name__)


@dataclass
class State:
    """What is known of a source between two looks.

    Attributes
    ----------
    spec : the pipeline file that it was opened for; another one opens it anew.
    problem : why it does not go on; empty: it does.
    """

    spec: PipelineSpec
    source: PullSource
    place: Place | None = None
    engine: Engine | None = None
    held: Held | None = None
    due: float = 0.0
    failures: int = 0
    problem: str = ""
    is_ours: bool = False


@dataclass
class Puller:
    """One thread that looks at every source in turn."""

    settings: IngestSettings
    engine: Engine
    publisher: Publisher
    pipelines: Mapping[str, PipelineApplied]
    privacy: PrivacyDoor
    stopping: threading.Event
    attach: Attach | None = None
    states: dict[tuple[str, str], State] = field(default_factory=dict)

    def run(self) -> None:
        """Go on until the process stops."""
        try:
            while not self.stopping.wait(POLL_S):
                for state in self.current():
                    if self.stopping.is_set():
                        return
                    if time.monotonic() >= state.due:
                        self.attempt(state)
        finally:
            for state in self.states.values():
                self.let_go(state)

    def current(self) -> list[State]:
        """Return the sources of the applied pipelines; close those that are gone."""
        wanted = {
            (name, source.name): (applied.spec, source)
            for name, applied in self.pipelines.items()
            for source in applied.spec.data.sources
        }
        for key in [*self.states]:
            state = self.states[key]
            if wanted.get(key) != (state.spec, state.source):
                self.let_go(self.states.pop(key))
        for key, (spec, source) in wanted.items():
            self.states.setdefault(key, State(spec, source))
        return [self.states[key] for key in sorted(wanted)]

    def let_go(self, state: State) -> None:
        """Close a source, and let another replica have it."""
        if state.engine is not None:
            state.engine.dispose()
        if state.held is not None:
            try:
                give_back(state.held)
            except DBAPIError as error:
                logger.warning("lease not given back", error=type(error).__name__)
            state.held = None

    def attempt(self, state: State) -> None:
        """Look at a source once; a fault is told and tried again, ever later."""
        name = {"pipeline": state.spec.name, "source": state.source.name}
        pause = state.source.every_seconds
        try:
            is_done = self.look(state)
            state.failures, state.problem = 0, ""
            pause = pause if is_done else 0.0
        except LeaseLostError:
            state.held, state.is_ours = None, False
        except (SourceError, PublishError, DBAPIError, HTTPException) as error:
            state.failures += 1
            state.problem = _told(error)
            pause = min(MAX_PAUSE_S, pause * 2 ** min(state.failures, 10))
            PULL_PROBLEMS.labels(*name.values()).inc()
            logger.warning("source not read", **name, problem=state.problem)
        state.due = time.monotonic() + pause

    def look(self, state: State) -> bool:
        """Fetch what is new; return whether that was all of it."""
        if state.held is None:
            state.held = take(
                self.engine,
                state.spec.name,
                state.source.name,
                self.settings.replica,
                self.settings.pull_lease_seconds,
            )
        state.is_ours = state.held is not None
        if state.held is None:
            return True
        state.held.renew()
        until = time.monotonic() + LOOK_S
        if state.source.sql is not None:
            return self._look_at_table(state, state.held, state.source.sql, until)
        return self._look_at_files(state, state.held, until)

    # ── files ───────────────────────────────────────────────────────────────

    def _look_at_files(self, state: State, held: Held, until: float) -> bool:
        if state.place is None:
            state.place = open_place(
                state.source.folder or "",
                state.source.pattern,
                self.settings.folder_roots,
                self.settings,
            )
        known = held.objects()
        for found in state.place.look():
            row = known.get(found.name)
            if row and row.fingerprint == found.fingerprint and row.is_done:
                continue
            if self.stopping.is_set() or time.monotonic() > until:
                return False
            self._fetch(state, held, found)
        return True

    def _fetch(self, state: State, held: Held, found: Found) -> None:
        """Publish one file, from the message on that Kafka does not have."""
        limit = self.settings.max_pull_bytes
        if found.size > limit:
            self._set_aside(state, held, found, "", f"more than {limit} bytes")
            return
        assert state.place is not None  # noqa: S101 - opened by the caller
        data = state.place.read(found)
        if data is None:
            return  # it is being written, or gone: the next look says
        digest = hashlib.sha256(data).hexdigest()
        row = held.objects().get(found.name)
        start = row.next_message if row and row.digest == digest else 0
        fact = {"fingerprint": found.fingerprint, "digest": digest}
        if row and row.digest == digest and row.is_done:
            held.put_object(found.name, **fact, is_done=True, problem=row.problem)
            return
        try:
            records = self._records_of_file(state, found.name, data, digest)
        except (FormatError, TooLargeError) as error:
            self._set_aside(state, held, found, digest, str(error))
            return
        while start < len(records) and not self.stopping.is_set():
            piece = records[start : start + MESSAGES_AT_A_TIME]
            self._publish(state, held, piece)
            start += len(piece)
            held.put_object(found.name, **fact, next_message=start)
        if start >= len(records):
            held.put_object(found.name, **fact, next_message=start, is_done=True)

    def _set_aside(
        self, state: State, held: Held, found: Found, digest: str, problem: str
    ) -> None:
        if has_rules(state.spec):
            problem = "cannot be read"
        self._leave_out(state, problem, file=found.name)
        held.put_object(
            found.name,
            fingerprint=found.fingerprint,
            digest=digest,
            is_done=True,
            problem=problem,
        )

    def _leave_out(self, state: State, problem: str, **more: str) -> None:
        names = {"pipeline": state.spec.name, "source": state.source.name}
        PULL_PROBLEMS.labels(*names.values()).inc()
        logger.error("left out", **names, **more, problem=problem)

    def _records_of_file(
        self, state: State, name: str, data: bytes, digest: str
    ) -> list[Record]:
        content_type = content_type_of(name) or ""
        data = plain_bytes(name, data, self.settings.max_pull_bytes)
        parsed = parse(data, content_type)
        if not len(parsed.numbers) and not parsed.bad:
            return []
        attributes = Attributes({"id": digest}, content_type, data)
        return self._records(state, attributes, parsed)

    # ── tables ──────────────────────────────────────────────────────────────

    def _look_at_table(
        self, state: State, held: Held, table: SqlTable, until: float
    ) -> bool:
        if state.engine is None:
            state.engine = open_source(table.url_secret)
        mark, ties = held.mark()
        pages = new_pages(state.engine, table, state.spec.data.id, mark, ties)
        for page in pages:
            for lines in _lines(page.rows):
                data = b"\n".join(lines)
                if len(data) > MAX_BATCH_BYTES:
                    self._leave_out(
                        state, f"a row of more than {MAX_BATCH_BYTES} bytes"
                    )
                    continue
                attributes = Attributes({}, NDJSON_TYPE, data)
                records = self._records(state, attributes, parse(data, NDJSON_TYPE))
                self._publish(state, held, records)
            held.put_mark(page.mark, page.ties)
            if self.stopping.is_set() or time.monotonic() > until:
                return False
        return True

    # ── both ────────────────────────────────────────────────────────────────

    def _records(
        self, state: State, attributes: Attributes, parsed: Parsed
    ) -> list[Record]:
        """Return messages of rows; the same rows give the same messages."""
        spec, source = state.spec, state.source
        is_private = has_rules(spec)
        bad = parsed.bad
        if has_attachments(spec) and self.attach and len(parsed.numbers):
            attached = self.attach(parsed, spec)
            parsed = attached.parsed
            if attached.is_changed:
                attributes = rewritten(attributes.values, parsed)
        if is_private:
            parsed = self.privacy.treated(parsed, spec)
            attributes = self.privacy.own_attributes(attributes, parsed)
            bad = ()  # what cannot be read cannot be treated
        is_whole = len(attributes.data or b"") <= MAX_BATCH_BYTES
        records: list[Record] = []
        if is_whole or len(parsed.numbers):
            records = records_of(
                attributes, parsed, spec.name, source.rows, source.name
            )
        if is_private:
            return [self.privacy.sealed(record, spec) for record in records]
        if not is_whole:  # what was cut into messages are the good rows
            records += [self._dead_row(state, attributes, row) for row in bad]
        return records

    def _dead_row(self, state: State, whole: Attributes, row: BadRow) -> Record:
        """Return a message that ingest will put among its dead letters."""
        attributes = Attributes(
            {"id": f"{whole.get('id')}/{row.number}"},
            row.content_type,
            row.content[:MAX_BATCH_BYTES],
        )
        source = state.source
        none = Parsed([], ())
        (record,) = records_of(
            attributes, none, state.spec.name, source.rows, source.name
        )
        return record

    def _publish(self, state: State, held: Held, records: list[Record]) -> None:
        held.renew()
        self.publisher.publish(records, timeout_s=self.settings.pull_lease_seconds / 2)
        PULLED.labels(state.spec.name, state.source.name).inc(len(records))


def _lines(rows: list[dict[str, Any]]) -> Iterator[list[bytes]]:
    """Cut rows into messages that the broker takes."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = row_json(row)
        if lines and size + len(line) > MAX_BATCH_BYTES:
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield lines


def _told(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return f"the database does not answer ({type(error.orig).__name__})"
    if isinstance(error, HTTPException):
        return str(error.detail)
    return str(error)
