"""Pipelines and rows: apply, publish, watch."""

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import uuid4

from driftloop.cli.context import CommandError, Installation, is_personal
from driftloop.cli.describe import STYLES, describe, entry_json
from driftloop.cli.door import DoorPublisher
from driftloop.cli.log import (
    CHAIN_TOPICS,
    DECISION_TOPICS,
    Entry,
    follow_log,
    read_log,
)
from driftloop.cli.payloads import Uploads
from driftloop.cli.publish import (
    Pace,
    Part,
    PublishFileError,
    files_of,
    plan,
    read_file,
    record_of,
    send,
)
from driftloop.cli.publish import Progress as FileProgress
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import PipelineApplied, ScorerReported
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.runtime.drivers.confluent import ConfluentPublisher
from driftloop.runtime.envelope import encode
from driftloop.runtime.transport import Publisher
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@dataclass(frozen=True)
class How:
    """How rows are published.

    Attributes
    ----------
    batch : event time in one message.
    label_delay : how long after its row a label is sent; None: with the row.
    payloads : folder of the files that rows name; None: that of the rows' file.
    """

    source: str
    batch: timedelta
    label_delay: timedelta | None
    pace: Pace
    payloads: Path | None = None

    @property
    def key(self) -> str:
        """What decides which messages a file becomes."""
        return f"{self.batch}/{self.label_delay}"


def publisher(installation: Installation) -> ConfluentPublisher:
    """Return a publisher of the command line's own."""
    return ConfluentPublisher(
        installation.bootstrap,
        client_id="driftloop-cli",
        client_config=installation.settings.kafka_config,
    )


def publish_event(installation: Installation, event: Event) -> str:
    """Publish one event of a person's; return its id once Kafka has it."""
    event_id = str(uuid4())
    meta = Meta(event_id, datetime.now(UTC), "/driftloop/people", Chain(event_id))
    sender = publisher(installation)
    try:
        sender.publish([encode(event, meta, installation.store)])
    finally:
        sender.close()
    return event_id


def apply(installation: Installation, file: Path) -> PipelineSpec:
    """Validate a pipeline file and put it into force.

    With a credential of one's own by the registry, which asks for the right to it; with
    the installation's own token, whose holder has the log at hand, by the topic.

    Raises
    ------
    PipelineFileError
        Names each wrong field and the remedy.
    CommandError
        With the registry's own explanation.
    """
    spec = load_pipeline(file)
    if is_personal(installation.token):
        text = file.read_text(encoding="utf-8")
        installation.request("POST", "/pipelines", json={"file": text})
        return spec
    event = PipelineApplied(pipeline=spec.name, spec=spec, applied_by=getuser())
    publish_event(installation, event)
    return spec


def applied(installation: Installation, name: str) -> PipelineSpec:
    """Return the pipeline file in force.

    Raises
    ------
    CommandError
        When no such pipeline was applied.
    """
    entries = read_log(installation.bootstrap, ["pipeline-applied"], installation.store)
    specs = {
        entry.event.pipeline: entry.event.spec
        for entry in entries
        if isinstance(entry.event, PipelineApplied)
    }
    if name not in specs:
        raise CommandError(
            f"no pipeline {name!r}; applied: {', '.join(specs) or 'none'}. "
            "Run: driftloop apply FILE"
        )
    return specs[name]


def publish(
    installation: Installation,
    path: Path,
    pipeline: str,
    how: How,
    console: Console,
) -> dict[str, Any]:
    """Publish a file, or the files of a folder; a broken run goes on where it was.

    Raises
    ------
    PublishFileError, CommandError
        Say what to change.
    """
    spec = applied(installation, pipeline)
    files = files_of(path)
    folder = installation.home / "published"
    reports, states = [], []
    sender: Publisher = (
        DoorPublisher(installation) if spec.data.privacy else publisher(installation)
    )
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None),
            MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        ) as bar:  # fmt: skip
            for file in files:
                digest = file_digest(file)
                state = FileProgress(folder, f"{digest}/{pipeline}/{how.key}")
                states.append(state)
                if state.is_complete():
                    console.print(f"{file.name} is already published")
                    continue
                run = _FileRun(file, digest, state, sender, bar, installation)
                reports.append(_publish_file(run, spec, how))
                if len(files) > 1:
                    state.complete()
    finally:
        sender.close()
    for state in states:
        state.done()
    rows = sum(report["rows"] for report in reports)
    messages = sum(report["messages"] for report in reports)
    console.print(f"{rows:,} rows and labels in {messages} messages")
    return {"messages": messages, "rows": rows, "files": reports}


def file_digest(file: Path) -> str:
    """Return a file's sha256.

    Raises
    ------
    PublishFileError
        When it cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise PublishFileError(f"cannot read {file}: {error.strerror}") from error


@dataclass(frozen=True)
class _FileRun:
    """One file on its way."""

    file: Path
    digest: str
    state: FileProgress
    sender: Publisher
    bar: Progress
    installation: Installation


def _publish_file(run: _FileRun, spec: PipelineSpec, how: How) -> dict[str, Any]:
    parts = list(plan(read_file(run.file), spec, how.batch, how.label_delay))
    if not parts:
        raise PublishFileError(f"{run.file} has no rows")
    start = run.state.next_part()
    if start:
        run.bar.console.print(
            f"{run.file.name}: going on after message {start} of {len(parts)}"
        )
    rows = 0
    to_send = _uploads(run, spec, how, parts[start:])
    task = run.bar.add_task(run.file.name, total=len(parts), completed=start)

    def sent(part: Part) -> None:
        nonlocal rows
        rows += part.rows.height
        run.state.sent(part)
        due = f"{run.file.name} {part.due:%Y-%m-%d %H:%M}"
        run.bar.update(task, advance=1, description=due)

    send(
        parts[start:],
        lambda part: record_of(to_send(part), spec.name, how.source, run.digest),
        run.sender,
        how.pace,
        sent,
    )
    return {
        "file": str(run.file),
        "file_sha256": run.digest,
        "messages": len(parts) - start,
        "rows": rows,
    }


def _uploads(
    run: _FileRun, spec: PipelineSpec, how: How, parts: list[Part]
) -> Callable[[Part], Part]:
    """Return what uploads a part's payloads just before the part itself is sent."""
    if not spec.data.attachments:
        return lambda part: part
    folder = how.payloads or run.file.parent
    bar = run.bar
    task = bar.add_task("payloads", total=None, visible=False)
    uploads = Uploads(
        run.installation, spec, folder, lambda: bar.update(task, advance=1)
    )
    count = sum(map(len, uploads.names(parts).values()))
    bar.update(task, total=count, visible=count > 0)
    return uploads.sent


class Alive:
    """What each scorer last said of itself."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], str] = {}

    def is_nothing_new(self, event: Event) -> bool:
        """Whether a scorer only says that it still lives."""
        if not isinstance(event, ScorerReported) or event.lease_seconds is None:
            return False
        key, state = (event.pipeline, event.replica), describe(event)
        before, self._said[key] = self._said.get(key), state
        return before == state


def watch(
    installation: Installation,
    pipeline: str | None,
    rows: bool,
    from_start: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Print events as they come, until interrupted.

    Raises
    ------
    CommandError
        When there is no such pipeline.
    """
    started = datetime.now(UTC)
    alive = Alive()

    def show(entry: Entry) -> None:
        if pipeline and entry.event.pipeline != pipeline:
            return
        if not from_start and entry.meta.time < started:
            return
        if as_json:
            sys.stdout.write(json.dumps(entry_json(entry), default=str) + "\n")
            sys.stdout.flush()
            return
        if alive.is_nothing_new(entry.event):
            return
        line = Text(f"{entry.meta.time:%H:%M:%S} ", style="dim")
        line.append(f"{entry.event.pipeline} ")
        line.append(f"{entry.topic:<20} ", style=STYLES.get(entry.topic, ""))
        line.append(describe(entry.event))
        line.append(f"  {entry.meta.chain.id[:8]}", style="dim")
        console.print(line, soft_wrap=True)

    if pipeline:
        applied(installation, pipeline)
    topics = CHAIN_TOPICS if rows else DECISION_TOPICS
    if not as_json and console.is_terminal:
        console.print(
            "waiting for events; Ctrl-C ends it"
            + ("" if from_start else " (--from-start shows what has happened)"),
            style="dim",
        )
    follower = follow_log(installation.bootstrap, topics, installation.store, show)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        follower.stop()
