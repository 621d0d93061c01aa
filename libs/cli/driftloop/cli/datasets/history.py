"""Versions of datasets as the log tells them, and which models refer to them.

People name a version ``730.365``: the observations at their version 730 with the
labels at 365 (0: without any). ``730`` alone takes the last labels that came before
the observations went on, and ``latest`` is the newest of all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from driftloop.cli.context import CommandError
from driftloop.cli.log import Entry
from driftloop.contracts.events import (
    DatasetMaintained,
    DatasetRef,
    DatasetVersioned,
    ModelRegistered,
    ModelTrained,
    PipelineApplied,
    TableMaintained,
    TrainingFailed,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.scoring import LATEST, NO_LABELS, is_named, name_of

TOPICS = (
    "pipeline-applied",
    "dataset-versioned",
    "dataset-maintained",
    "training-started",
    "training-failed",
    "model-trained",
    "model-registered",
)


def _labels(dataset: DatasetRef) -> int:
    return dataset.labels.version if dataset.labels else NO_LABELS


@dataclass(frozen=True, slots=True)
class Version:
    """One version and what it added."""

    event: DatasetVersioned
    at: datetime
    event_id: str

    @property
    def name(self) -> str:
        return name_of(self.event.dataset)


@dataclass(frozen=True, slots=True)
class History:
    """The versions of one pipeline's dataset, oldest first; at least one.

    Attributes
    ----------
    models : model versions by the dataset version that they were trained on.
    trained : the version of each training that has not failed.
    maintained : what upkeep did, oldest first.
    """

    spec: PipelineSpec
    versions: Sequence[Version]
    models: dict[str, list[int]]
    trained: Sequence[DatasetRef] = ()
    maintained: Sequence[DatasetMaintained] = ()

    @property
    def referred(self) -> list[DatasetRef]:
        """Versions that are kept: those of trainings, and the newest."""
        return [*self.trained, self.latest.event.dataset]

    def is_kept(self, version: Version) -> bool:
        """Whether no vacuum has taken files of a version, as far as the log tells."""
        dataset = version.event.dataset
        vacuums = [m for m in self.maintained if m.vacuum == "done"]
        labels = [m.labels for m in vacuums if m.labels and dataset.labels]
        return _is_kept(
            dataset.observations.version, [m.observations for m in vacuums]
        ) and _is_kept(_labels(dataset), labels)

    @property
    def latest(self) -> Version:
        return self.versions[-1]

    @property
    def span(self) -> tuple[datetime, datetime]:
        """First and last event time of any row."""
        spans = [version.event.span for version in self.versions]
        return min(s.start for s in spans), max(s.end for s in spans)

    def find(self, name: str) -> Version:
        """Return the version that a person named.

        Raises
        ------
        CommandError
            Names the versions that there are.
        """
        if name == LATEST:
            return self.latest
        found = [v for v in self.versions if is_named(v.event.dataset, name)]
        if not found:
            raise CommandError(
                f"{self.spec.name} has no dataset version {name!r}; it goes from "
                f"{self.versions[0].name} to {self.latest.name}: "
                f"driftloop datasets show {self.spec.name} --all"
            )
        return found[-1]


def _is_kept(version: int, tables: Iterable[TableMaintained]) -> bool:
    return all(
        version >= table.kept_from or version in table.kept
        for table in tables
        if table.vacuumed_count
    )


def histories(entries: Iterable[Entry]) -> dict[str, History]:
    """Return the dataset of each pipeline that has one, by name."""
    specs: dict[str, PipelineSpec] = {}
    versions: dict[str, list[Version]] = {}
    trained: dict[str, tuple[str, DatasetRef]] = {}
    failed: dict[str, bool] = {}
    maintained: dict[str, list[DatasetMaintained]] = {}
    registered: dict[str, dict[int, str]] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, PipelineApplied):
            specs[event.pipeline] = event.spec
        elif isinstance(event, DatasetVersioned):
            version = Version(event, entry.meta.time, entry.meta.id)
            versions.setdefault(event.pipeline, []).append(version)
        elif isinstance(event, TrainingStarted | ModelTrained):
            trained[event.job_id] = event.pipeline, event.dataset
            if isinstance(event, ModelTrained):
                failed[event.job_id] = False
        elif isinstance(event, TrainingFailed):
            failed.setdefault(event.job_id, True)
        elif isinstance(event, DatasetMaintained):
            maintained.setdefault(event.pipeline, []).append(event)
        elif isinstance(event, ModelRegistered):
            jobs = registered.setdefault(event.pipeline, {})
            jobs[event.version] = event.job_id
    return {
        name: History(
            specs[name],
            sorted({v.event_id: v for v in found}.values(), key=_order),
            _models(registered.get(name, {}), trained),
            [
                dataset
                for job, (pipeline, dataset) in trained.items()
                if pipeline == name and not failed.get(job)
            ],
            maintained.get(name, []),
        )
        for name, found in sorted(versions.items())
        if name in specs
    }


def _order(version: Version) -> tuple[int, int, datetime]:
    dataset = version.event.dataset
    return dataset.observations.version, _labels(dataset), version.at


def _models(
    jobs: dict[int, str], trained: dict[str, tuple[str, DatasetRef]]
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for model, job in sorted(jobs.items()):
        if job in trained:
            found.setdefault(name_of(trained[job][1]), []).append(model)
    return found
