"""What the log says that a scoring job has to know, and what follows from it.

Pure: events of one pipeline in, a choice or a refusal out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ServedModel,
)
from driftloop.contracts.scoring import (
    LATEST,
    NO_LABELS,
    DatasetScored,
    ScoringCancelled,
    ScoringFailed,
    ScoringPlan,
    ScoringStarted,
    is_named,
    name_of,
)

EndState = Literal["done", "failed", "cancelled"]
ENDS: dict[type[Event], EndState] = {
    DatasetScored: "done",
    ScoringFailed: "failed",
    ScoringCancelled: "cancelled",
}
EVENTS: tuple[type[Event], ...] = (
    DatasetVersioned,
    ModelRegistered,
    ModelRejected,
    ModelDeployed,
    ModelRolledBack,
    ScoringStarted,
    *ENDS,
)


class Abandoned(Exception):  # noqa: N818 - says what happened
    """The job is somebody else's by now, or the process is to stop."""


class CannotScore(Exception):  # noqa: N818 - says what happened
    """A job has to end without answers; says why, and what would be right."""

    def __init__(self, error: str, remedy: str) -> None:
        super().__init__(error)
        self.remedy = remedy


@dataclass
class Facts:
    """What the log says of one pipeline; take its events in any order of topics.

    Of the versions of its dataset, of which there may be very many, only what a
    request asks for is kept.

    Attributes
    ----------
    wanted : name of the dataset version that is asked for.
    """

    pipeline: str
    wanted: str = LATEST
    _first: DatasetRef | None = None
    _last: DatasetRef | None = None
    _found: DatasetRef | None = None
    _models: dict[int, ServedModel] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)
    _standing: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    _plans: dict[str, ScoringPlan] = field(default_factory=dict)
    _ends: dict[str, EndState] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take note of an event; others than :data:`EVENTS` say nothing here."""
        if isinstance(event, DatasetVersioned):
            self._take_dataset(event.dataset)
        elif isinstance(event, ModelRegistered):
            model = ServedModel(version=event.version, package=event.package)
            self._models[event.version] = model
        elif isinstance(event, ModelRejected):
            self._refused[event.version] = "; ".join(event.reasons)
        elif isinstance(event, ModelDeployed):
            self._stands(event.version, event.generation, "")
        elif isinstance(event, ModelRolledBack):
            why = event.reason or "no reason was given"
            self._stands(event.version, event.generation, why)
            if event.restored is not None:
                self._stands(event.restored.version, event.generation, "")
        elif isinstance(event, ScoringStarted):
            self._plans.setdefault(event.job_id, event.plan)
        elif isinstance(event, DatasetScored | ScoringFailed | ScoringCancelled):
            self._ends.setdefault(event.job_id, ENDS[type(event)])

    def _take_dataset(self, dataset: DatasetRef) -> None:
        if self._first is None or _order(dataset) < _order(self._first):
            self._first = dataset
        if self._last is None or _order(dataset) > _order(self._last):
            self._last = dataset
        if self.wanted != LATEST and is_named(dataset, self.wanted):
            before = self._found
            if before is None or _order(dataset) > _order(before):
                self._found = dataset

    def _stands(self, version: int, generation: int, taken_back: str) -> None:
        """Two topics have no common order; the generation gives it.

        The event that takes a version back bears the generation before it, and so
        comes after a deployment of the same one.
        """
        order = generation, bool(taken_back)
        said = (*order, taken_back)
        if version not in self._standing or order >= self._standing[version][:2]:
            self._standing[version] = said

    def plan_of(self, job_id: str) -> ScoringPlan | None:
        """Return what was fixed for a job already."""
        return self._plans.get(job_id)

    @property
    def ends(self) -> Mapping[str, EndState]:
        """How jobs ended, as far as the log has their end."""
        return self._ends

    def dataset(self) -> DatasetRef:
        """Return the dataset version that is wanted.

        Raises
        ------
        CannotScore
            When there is none of this name.
        """
        pipeline = self.pipeline
        if self._first is None or self._last is None:
            raise CannotScore(
                f"{pipeline} has no dataset",
                "it gets one with its first right row: driftloop publish FILE",
            )
        found = self._last if self.wanted == LATEST else self._found
        if found is None:
            raise CannotScore(
                f"{pipeline} has no dataset version {self.wanted!r}; it goes from "
                f"{name_of(self._first)} to {name_of(self._last)}",
                f"take one of: driftloop datasets show {pipeline} --all",
            )
        return found

    def model(self, version: int | None, champion: ServedModel | None) -> ServedModel:
        """Return the version that a request asks for.

        Parameters
        ----------
        version : None: the champion.
        champion : that is in service.

        Raises
        ------
        CannotScore
            When there is none, it was refused, or it was taken back.
        """
        pipeline = self.pipeline
        others = f"take another one of: driftloop models {pipeline}"
        if version is None:
            if champion is None:
                raise CannotScore(
                    f"no version of {pipeline} is in service",
                    f"name one with --version, of: driftloop models {pipeline}",
                )
            return champion
        if champion is not None and champion.version == version:
            return champion
        model = self._models.get(version)
        if model is None:
            raise CannotScore(f"{pipeline} has no version {version}", others)
        if version in self._refused:
            why = self._refused[version]
            raise CannotScore(f"version {version} was refused: {why}", others)
        taken_back = self._standing.get(version, (0, 0, ""))[2]
        if taken_back:
            raise CannotScore(f"version {version} was taken back: {taken_back}", others)
        return model

    def choose(
        self, version: int | None, champion: ServedModel | None
    ) -> tuple[DatasetRef, ServedModel]:
        """Return what is to be scored, and with which version; see :meth:`model`.

        Raises
        ------
        CannotScore
            Says what of it is not there.
        """
        model = self.model(version, champion)
        return self.dataset(), model


def _order(dataset: DatasetRef) -> tuple[int, int]:
    labels = dataset.labels.version if dataset.labels else NO_LABELS
    return dataset.observations.version, labels
