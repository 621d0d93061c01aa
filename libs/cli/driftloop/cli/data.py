"""Pipelines and rows: apply, publish, watch."""

import hashlib
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import uuid4

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.describe import STYLES, describe, entry_json
from driftloop.cli.door import DoorPublisher
from driftloop.cli.log import (
    CHAIN_TOPICS,
    DECISION_TOPICS,
    Entry,
    follow_log,
    read_log,
)
from driftloop.cli.publish import (
    Pace,
    Part,
    PublishFileError,
    plan,
    read_file,
    record_of,
    send,
)
from driftloop.cli.publish import Progress as FileProgress
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import PipelineApplied
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
    """Validate a pipeline file and publish it.

    Raises
    ------
    PipelineFileError
        Names each wrong field and the remedy.
    """
    spec = load_pipeline(file)
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
    file: Path,
    pipeline: str,
    source: str,
    batch: timedelta,
    label_delay: timedelta | None,
    pace: Pace,
    console: Console,
) -> dict[str, Any]:
    """Publish a file; a run that was broken off goes on where it was.

    Raises
    ------
    PublishFileError, CommandError
        Say what to change.
    """
    spec = applied(installation, pipeline)
    parts = list(plan(read_file(file), spec, batch, label_delay))
    if not parts:
        raise PublishFileError(f"{file} has no rows")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    state = FileProgress(
        installation.home / "published", f"{digest}/{pipeline}/{batch}/{label_delay}"
    )
    start = state.next_part()
    if start:
        console.print(f"going on after message {start} of {len(parts)}")
    sender: Publisher = (
        DoorPublisher(installation) if spec.data.privacy else publisher(installation)
    )
    rows = 0
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None),
            MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        ) as bar:  # fmt: skip
            task = bar.add_task(file.name, total=len(parts), completed=start)

            def sent(part: Part) -> None:
                nonlocal rows
                rows += part.rows.height
                state.sent(part)
                bar.update(task, advance=1, description=f"{part.due:%Y-%m-%d %H:%M}")

            send(
                parts[start:],
                lambda part: record_of(part, pipeline, source, digest),
                sender,
                pace,
                sent,
            )
    finally:
        sender.close()
    state.done()
    console.print(f"{rows:,} rows and labels in {len(parts) - start} messages")
    return {"messages": len(parts) - start, "rows": rows, "file_sha256": digest}


def watch(
    installation: Installation,
    pipeline: str | None,
    rows: bool,
    from_start: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Print events as they come, until interrupted."""
    started = datetime.now(UTC)

    def show(entry: Entry) -> None:
        if pipeline and entry.event.pipeline != pipeline:
            return
        if not from_start and entry.meta.time < started:
            return
        if as_json:
            sys.stdout.write(json.dumps(entry_json(entry), default=str) + "\n")
            sys.stdout.flush()
            return
        line = Text(f"{entry.meta.time:%H:%M:%S} ", style="dim")
        line.append(f"{entry.event.pipeline} ")
        line.append(f"{entry.topic:<20} ", style=STYLES.get(entry.topic, ""))
        line.append(describe(entry.event))
        line.append(f"  {entry.meta.chain.id[:8]}", style="dim")
        console.print(line, soft_wrap=True)

    topics = CHAIN_TOPICS if rows else DECISION_TOPICS
    follower = follow_log(installation.bootstrap, topics, installation.store, show)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        follower.stop()
