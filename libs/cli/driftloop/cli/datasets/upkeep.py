"""``driftloop datasets maintain``: what would go, and the wish that it goes now."""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from getpass import getuser
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import publish_event
from driftloop.cli.datasets.history import History
from driftloop.cli.datasets.work import history_of
from driftloop.cli.log import read_log
from driftloop.contracts.events import (
    DatasetMaintained,
    DatasetRef,
    MaintenanceRequested,
    TableRef,
)
from driftloop.runtime.data.reading import previewed
from driftloop.runtime.data.vacuum import cutoff_of
from driftloop.runtime.datasets import storage_options

ANSWER_S = 120.0
POLL_S = 0.5


def maintain(installation: Installation, pipeline: str) -> dict[str, Any]:
    """Ask the validator for upkeep; return what it did.

    Raises
    ------
    CommandError
        When the pipeline has no dataset, or the validator does not answer.
    """
    history_of(installation, pipeline)
    event = MaintenanceRequested(pipeline=pipeline, requested_by=getuser())
    asked = publish_event(installation, event)
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        topics = (DatasetMaintained.topic(),)
        entries = read_log(installation.bootstrap, topics, installation.store)
        for entry in entries:
            if entry.meta.causation_id == asked:
                return entry.event.model_dump(mode="json")
        time.sleep(POLL_S)
    raise CommandError(
        "the validator has not answered; it will once it runs and has read what came "
        f"before: driftloop status, driftloop datasets show {pipeline}"
    )


def dry_run(installation: Installation, pipeline: str) -> dict[str, Any]:
    """Return what the validator would do now, in the form of what it tells.

    Raises
    ------
    CommandError
        When the pipeline has no dataset.
    DatasetError
        When its tables cannot be read.
    """
    found = history_of(installation, pipeline)
    options = storage_options(installation.settings)
    dataset = found.latest.event.dataset
    cutoff = _cutoff(found)
    tables = {
        "observations": _previewed(found, dataset.observations, options, cutoff),
        "labels": dataset.labels and _previewed(found, dataset.labels, options, cutoff),
    }
    days = found.spec.data.retention.keep_versions_days
    return {
        "pipeline": pipeline,
        **tables,
        "cutoff": cutoff.isoformat() if cutoff else None,
        "vacuum": "not_wanted" if days is None else "done",
        "requested_by": None,
    }


def _cutoff(found: History) -> datetime | None:
    days = found.spec.data.retention.keep_days
    starts = [
        min(version.event.span.start, version.at)
        for version in found.versions
        if version.event.kind == "observations"
    ]
    return None if days is None or not starts else cutoff_of(max(starts), days)


def _previewed(
    found: History,
    ref: TableRef,
    options: Mapping[str, str] | None,
    cutoff: datetime | None,
) -> dict[str, Any]:
    versions = [
        one.version
        for dataset in found.referred
        for one in _tables(dataset)
        if one.uri == ref.uri
    ]
    days = found.spec.data.retention.keep_versions_days
    age = None if days is None else timedelta(days=days)
    says = previewed(ref, options, versions, age, cutoff)
    return says.model_dump(mode="json")


def _tables(dataset: DatasetRef) -> list[TableRef]:
    return [dataset.observations, *([dataset.labels] if dataset.labels else [])]
