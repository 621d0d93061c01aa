"""Versions of datasets as the log tells them, and which models refer to them.

People name a version ``730.365``: the observations at their version 730 with the
labels at 365 (0: without any). ``730`` alone takes the last labels that came before
the observations went on, and ``latest`` is the newest of all.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from driftloop.cli.context import CommandError
from driftloop.cli.log import Entry
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ModelRegistered,
    ModelTrained,
    PipelineApplied,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineSpec

TOPICS = (
    "pipeline-applied",
    "dataset-versioned",
    "training-started",
    "model-trained",
    "model-registered",
)
LATEST = "latest"
NO_LABELS = 0
"""A table of labels begins empty at this version."""

_is_version = re.compile(r"(\d+)(?:\.(\d+))?").fullmatch


def name_of(dataset: DatasetRef) -> str:
    """Return a version as people write it."""
    return f"{dataset.observations.version}.{_labels(dataset)}"


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
    """

    spec: PipelineSpec
    versions: Sequence[Version]
    models: dict[str, list[int]]

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
        match = _is_version(name)
        found = [v for v in self.versions if match and _is_named(v, *match.groups())]
        if not found:
            raise CommandError(
                f"{self.spec.name} has no dataset version {name!r}; it goes from "
                f"{self.versions[0].name} to {self.latest.name}: "
                f"driftloop datasets show {self.spec.name} --all"
            )
        return found[-1]


def _is_named(version: Version, observations: str, labels: str | None) -> bool:
    dataset = version.event.dataset
    if dataset.observations.version != int(observations):
        return False
    return labels is None or _labels(dataset) == int(labels)


def histories(entries: Iterable[Entry]) -> dict[str, History]:
    """Return the dataset of each pipeline that has one, by name."""
    specs: dict[str, PipelineSpec] = {}
    versions: dict[str, list[Version]] = {}
    trained: dict[str, DatasetRef] = {}
    registered: dict[str, dict[int, str]] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, PipelineApplied):
            specs[event.pipeline] = event.spec
        elif isinstance(event, DatasetVersioned):
            version = Version(event, entry.meta.time, entry.meta.id)
            versions.setdefault(event.pipeline, []).append(version)
        elif isinstance(event, TrainingStarted | ModelTrained):
            trained[event.job_id] = event.dataset
        elif isinstance(event, ModelRegistered):
            jobs = registered.setdefault(event.pipeline, {})
            jobs[event.version] = event.job_id
    return {
        name: History(
            specs[name],
            sorted({v.event_id: v for v in found}.values(), key=_order),
            _models(registered.get(name, {}), trained),
        )
        for name, found in sorted(versions.items())
        if name in specs
    }


def _order(version: Version) -> tuple[int, int, datetime]:
    dataset = version.event.dataset
    return dataset.observations.version, _labels(dataset), version.at


def _models(
    jobs: dict[int, str], trained: dict[str, DatasetRef]
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for model, job in sorted(jobs.items()):
        if job in trained:
            found.setdefault(name_of(trained[job]), []).append(model)
    return found
