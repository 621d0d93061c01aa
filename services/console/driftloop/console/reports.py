"""The report of a pipeline's newest dataset version, made when somebody asks."""

from driftloop.console.core import Pipeline
from driftloop.runtime.data.reading import read_version
from driftloop.runtime.data.report import dataset_report, to_html
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.settings import Settings

MAX_ROWS = 2_000_000
"""More are for the command line: they would fill this process's memory."""


class NoReportError(Exception):
    """There is nothing to report on, or too much; the text says what to do."""


def report_page(found: Pipeline | None, settings: Settings, name: str) -> str:
    """Return a report as an HTML page; reads the tables that the log names.

    Raises
    ------
    NoReportError
        When the pipeline has no dataset yet, or a very large one.
    DatasetError
        When the tables cannot be read.
    """
    if found is None or found.dataset is None or found.applied is None:
        raise NoReportError(f"{name} has no dataset yet; publish rows")
    newest = found.dataset
    if newest.observation_count > MAX_ROWS:
        raise NoReportError(
            f"{newest.observation_count:,} rows are too many for this page; run: "
            f"driftloop datasets report {name}"
        )
    dataset, target = newest.dataset, found.applied.spec.data.target
    rows = read_version(dataset, target, storage_options(settings))
    labels = dataset.labels.version if dataset.labels else 0
    version = f"{dataset.observations.version}.{labels}"
    return to_html(dataset_report(name, version, rows, target))
