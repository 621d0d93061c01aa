"""Reports of dataset versions and batches, printed or written to a file."""

import json
from pathlib import Path
from typing import TypeVar

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.datasets.work import history_of, rows_of
from driftloop.cli.log import read_log
from driftloop.contracts.base import Event
from driftloop.contracts.events import BatchRejected, BatchValidated
from driftloop.runtime.data.report import (
    Report,
    batch_report,
    dataset_report,
    to_html,
)

E = TypeVar("E", bound=Event)
NEWEST = "newest"
FORMS = (".html", ".json")


def of_version(
    installation: Installation, pipeline: str, name: str, against: str | None
) -> Report:
    """Return the report of a dataset version."""
    found = history_of(installation, pipeline)
    version = found.find(name)
    older = None
    if against is not None:
        before = found.find(against)
        older = (before.name, rows_of(installation, found, before))
    rows = rows_of(installation, found, version)
    return dataset_report(pipeline, version.name, rows, found.spec.data.target, older)


def of_batch(installation: Installation, pipeline: str, batch: str) -> Report:
    """Return the report of a batch.

    Parameters
    ----------
    batch : event id of its ``batch-ingested``, ``batch-validated`` or
        ``batch-rejected``, or ``newest``.

    Raises
    ------
    CommandError
        When the log does not hold it (any more).
    """
    topics = (BatchValidated.topic(), BatchRejected.topic())
    entries = read_log(installation.bootstrap, topics, installation.store)
    mine = [e for e in entries if e.event.pipeline == pipeline]
    chosen = (
        mine[-1:]
        if batch == NEWEST
        else [e for e in mine if batch in (e.meta.id, e.meta.causation_id)]
    )
    if not chosen:
        raise CommandError(
            f"no batch {batch!r} of {pipeline} is in the log, which keeps rows for "
            "some days; driftloop watch --rows shows ids"
        )
    cause = chosen[-1].meta.causation_id
    halves = [e.event for e in mine if e.meta.causation_id == cause]
    return batch_report(_of(BatchValidated, halves), _of(BatchRejected, halves))


def _of(kind: type[E], events: list[Event]) -> E | None:
    return next((event for event in events if isinstance(event, kind)), None)


def write(report: Report, file: Path) -> None:
    """Write a report as HTML or JSON, by the file's name.

    Raises
    ------
    CommandError
        When the name has neither form, or the file cannot be written.
    """
    if file.suffix not in FORMS:
        raise CommandError(
            f"{file.name}: give it a name that ends in {' or '.join(FORMS)}"
        )
    text = to_html(report) if file.suffix == ".html" else json.dumps(report, indent=2)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error}") from error
