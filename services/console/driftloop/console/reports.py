"""Reports of a dataset version or a batch, made when somebody asks."""

import json
from collections.abc import Callable, Mapping

from driftloop.console.datasets import name_of, order_of
from driftloop.console.story import Pipeline
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.runtime.data.reading import DatasetError, read_version, size_bytes
from driftloop.runtime.data.report import Report, batch_report, dataset_report, to_html
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.settings import Settings

LATEST = "latest"
MAX_ROWS = 2_000_000
"""More are for the command line: they would fill this process's memory."""

ReadAt = Callable[[str, int, int], Event | None]
"""Reads the event at a topic, partition and offset; None when it is gone."""


class NoReportError(Exception):
    """There is nothing to report on, or too much; the text says what to do."""


def version_report(
    found: Pipeline | None, settings: Settings, name: str, version: str = LATEST
) -> Report:
    """Return the report of a dataset version; reads the tables that the log names.

    Raises
    ------
    NoReportError
        When there is no such version, or it is very large.
    DatasetError
        When the tables cannot be read.
    """
    newest = found.datasets.newest if found else None
    if found is None or newest is None or found.applied is None:
        raise NoReportError(f"{name} has no dataset yet; publish rows")
    chosen = newest if version == LATEST else found.datasets.find(version)
    if chosen is None:
        last = name_of(order_of(newest.dataset))
        raise NoReportError(
            f"{name} has no version {version!r} here; the newest is {last}, and "
            f"driftloop datasets show {name} --all lists them"
        )
    if chosen.observation_count > MAX_ROWS:
        raise NoReportError(
            f"{chosen.observation_count:,} rows are too many for this page; run: "
            f"driftloop datasets report {name} --version {version}"
        )
    target = found.applied.spec.data.target
    rows = read_version(chosen.dataset, target, storage_options(settings))
    order = name_of(order_of(chosen.dataset))
    return dataset_report(name, order, rows, target)


def report_of_batch(
    found: Pipeline | None, name: str, batch: str, read_at: ReadAt
) -> Report:
    """Return the report of a batch that the page shows; reads its events again.

    Raises
    ------
    NoReportError
        When the page does not know it, or the log has dropped its rows.
    """
    kept = found.quality.batch(batch) if found else None
    remedy = f"driftloop datasets report {name} --batch {batch}"
    if kept is None:
        raise NoReportError(
            f"{batch!r} is none of the batches of {name} that the page shows; run: "
            f"{remedy}"
        )
    events = [read_at(*place) for place in kept.places.values()]
    validated = next((x for x in events if isinstance(x, e.BatchValidated)), None)
    rejected = next((x for x in events if isinstance(x, e.BatchRejected)), None)
    if validated is None and rejected is None:
        raise NoReportError("the rows of this batch are no longer in the log")
    return batch_report(validated, rejected)


def sizes(
    found: Pipeline | None, settings: Settings, known: Mapping[str, int]
) -> dict[str, int]:
    """Return the bytes of the versions that the page shows.

    A version that cannot be read is left out.

    Parameters
    ----------
    known : sizes of before; a version keeps its size.
    """
    if found is None:
        return {}
    options = storage_options(settings)
    answer: dict[str, int] = {}
    for order in found.datasets.shown(found.events()):
        name = name_of(order)
        version = found.datasets.find(name)
        size = known.get(name)
        if size is None and version is not None:
            size = _size(version.dataset, options)
        if size is not None:
            answer[name] = size
    return answer


def _size(dataset: e.DatasetRef, options: Mapping[str, str] | None) -> int | None:
    tables = [dataset.observations, *([dataset.labels] if dataset.labels else [])]
    try:
        return sum(size_bytes(table, options) for table in tables)
    except DatasetError:
        return None


def rendered(report: Report, form: str) -> tuple[str, str]:
    """Return a report's text and its media type."""
    if form == "json":
        return json.dumps(report, indent=2), "application/json"
    return to_html(report), "text/html"
