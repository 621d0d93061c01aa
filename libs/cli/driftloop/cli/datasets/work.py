"""What the ``datasets`` commands find out; plain JSON values for programs."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.datasets import history
from driftloop.cli.datasets.history import History, Version
from driftloop.cli.log import read_log
from driftloop.cli.payloads import flat, references_of, write_payloads
from driftloop.contracts.events import DatasetRef, TableRef
from driftloop.contracts.scoring import LATEST
from driftloop.runtime.data.comparison import compare
from driftloop.runtime.data.profile import profiles_of
from driftloop.runtime.data.reading import (
    DatasetError,
    read_table,
    read_version,
    size_bytes,
)
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.errors import Retry
from driftloop.runtime.payloads import open_payloads

WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    ".parquet": lambda rows, path: rows.write_parquet(path),
    ".csv": lambda rows, path: flat(rows).write_csv(path),
}


def read_histories(installation: Installation) -> dict[str, History]:
    """Return the dataset of each pipeline, from the log."""
    entries = read_log(installation.bootstrap, history.TOPICS, installation.store)
    return history.histories(entries)


def history_of(installation: Installation, pipeline: str) -> History:
    """Return one pipeline's dataset.

    Raises
    ------
    CommandError
        Names the pipelines that have one.
    """
    found = read_histories(installation)
    if pipeline not in found:
        raise CommandError(
            f"{pipeline!r} has no dataset; there are: {', '.join(found) or 'none'}. "
            "It gets one with its first right row: driftloop publish FILE"
        )
    return found[pipeline]


def listed(installation: Installation) -> list[dict[str, Any]]:
    """Return a line for each pipeline with a dataset."""
    options = storage_options(installation.settings)
    return [
        {
            "pipeline": name,
            "version": found.latest.name,
            "versions": len(found.versions),
            "rows": found.latest.event.observation_count,
            "labelled": found.latest.event.label_count,
            "start": found.span[0].isoformat(),
            "end": found.span[1].isoformat(),
            "size_bytes": size_of(found.latest.event.dataset, options),
            "uri": found.latest.event.dataset.observations.uri,
        }
        for name, found in read_histories(installation).items()
    ]


def size_of(dataset: DatasetRef, options: dict[str, str] | None) -> int | None:
    """Return the bytes of both tables; None where they cannot be reached."""
    try:
        return sum(size_bytes(ref, options) for ref in _tables(dataset))
    except DatasetError:
        return None


def _tables(dataset: DatasetRef) -> list[TableRef]:
    return [dataset.observations, *([dataset.labels] if dataset.labels else [])]


def shown(
    installation: Installation, pipeline: str, name: str = LATEST
) -> dict[str, Any]:
    """Return a version's schema, statistics and the versions that there are."""
    found = history_of(installation, pipeline)
    version = found.find(name)
    rows = rows_of(installation, found, version)
    target = found.spec.data.target
    profiles = profiles_of(rows)
    return {
        **version_json(found, version),
        "rows": rows.height,
        "labelled": rows[target].drop_nulls().len(),
        "target": target,
        "columns": {n: p.model_dump(mode="json") for n, p in profiles.items()},
        "history": [version_json(found, one) for one in found.versions],
        "maintained": [m.model_dump(mode="json") for m in found.maintained],
    }


def version_json(found: History, version: Version) -> dict[str, Any]:
    """Return one version of the history."""
    event = version.event
    return {
        "pipeline": event.pipeline,
        "version": version.name,
        "at": version.at.isoformat(),
        "kind": event.kind,
        "added": event.added_count,
        "observations": event.observation_count,
        "labels": event.label_count,
        "start": event.span.start.isoformat(),
        "end": event.span.end.isoformat(),
        "models": found.models.get(version.name, []),
        "is_kept": found.is_kept(version),
        "event_id": version.event_id,
    }


def rows_of(
    installation: Installation,
    found: History,
    version: Version,
    known_at: datetime | None = None,
) -> pl.DataFrame:
    """Return a version's rows with their labels."""
    return read_version(
        version.event.dataset,
        found.spec.data.target,
        storage_options(installation.settings),
        known_at,
    )


def differing(
    installation: Installation, pipeline: str, old: str, new: str
) -> dict[str, Any]:
    """Return what changed between two versions."""
    found = history_of(installation, pipeline)
    first, second = found.find(old), found.find(new)
    target = found.spec.data.target
    difference = compare(
        rows_of(installation, found, first),
        rows_of(installation, found, second),
        target,
    )
    return {
        "pipeline": pipeline,
        "old": first.name,
        "new": second.name,
        "target": target,
        **asdict(difference),
    }


def export(
    installation: Installation,
    pipeline: str,
    name: str,
    file: Path,
    with_labels: bool,
    known_at: datetime | None,
    payloads: Path | None = None,
) -> dict[str, Any]:
    """Write a version's rows to a file, whole or not at all.

    Parameters
    ----------
    payloads : folder for what the rows refer to; None: it is not written.

    Raises
    ------
    CommandError
        When the file's name has no form that is known, or it cannot be written.
    """
    write = WRITERS.get(file.suffix.lower())
    if write is None:
        raise CommandError(
            f"{file.name}: give it a name that ends in {' or '.join(WRITERS)}"
        )
    if known_at is not None and not with_labels:
        raise CommandError("--known-at is about labels; leave --no-labels out")
    found = history_of(installation, pipeline)
    version = found.find(name)
    if with_labels:
        rows = rows_of(installation, found, version, known_at)
    else:
        observations = version.event.dataset.observations
        rows = read_table(observations, storage_options(installation.settings))
    rows = rows.sort("event_time", "id")
    files = None
    if payloads is not None:
        store = open_payloads(installation.settings)
        files = write_payloads(store, rows, payloads)
    partial = file.with_name(f".{file.name}.partial")
    try:
        write(rows, partial)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CommandError(f"cannot write {file}: {error}") from error
    target = found.spec.data.target
    return {
        "pipeline": pipeline,
        "version": version.name,
        "file": str(file),
        "rows": rows.height,
        "labelled": rows[target].drop_nulls().len() if target in rows.columns else 0,
        "known_at": known_at.isoformat() if known_at else None,
        "payloads": files,
    }


def prune(
    installation: Installation, pipeline: str, older_than: timedelta, dry_run: bool
) -> dict[str, Any]:
    """Delete payloads that no row of the dataset refers to.

    Rows are never taken out of a dataset, so its newest version refers to all that
    any version does.

    Parameters
    ----------
    older_than : since the payload was uploaded last; younger ones may belong to rows
        on their way.
    """
    found = history_of(installation, pipeline)
    observations = found.latest.event.dataset.observations
    rows = read_table(observations, storage_options(installation.settings))
    kept = {reference.sha256 for reference, _ in references_of(rows)}
    store = open_payloads(installation.settings)
    moment = datetime.now(UTC) - older_than
    gone = []
    try:
        for payload in list(store.stored(pipeline)):
            if payload.sha256 not in kept and payload.put_at < moment:
                gone.append(payload)
                if not dry_run:
                    store.delete(pipeline, payload.sha256)
    except Retry as error:
        raise CommandError(str(error)) from error
    return {
        "pipeline": pipeline,
        "deleted": 0 if dry_run else len(gone),
        "unreferenced": len(gone),
        "bytes": sum(payload.size_bytes for payload in gone),
        "referenced": len(kept),
    }
