"""What the log says that a scoring job has to know, and what follows from it.

Pure: events of one pipeline in, a choice or a refusal out.
"""

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
    DatasetScored,
    ScoringCancelled,
    ScoringFailed,
    ScoringPlan,
    ScoringRequested,
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
    """What the log says of one pipeline; take its events in any order of topics."""

    pipeline: str
    _datasets: dict[tuple[int, int], DatasetRef] = field(default_factory=dict)
    _models: dict[int, ServedModel] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)
    _standing: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    _plans: dict[str, ScoringPlan] = field(default_factory=dict)
    _ends: dict[str, EndState] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take note of an event; others than :data:`EVENTS` say nothing here."""
        if isinstance(event, DatasetVersioned):
            dataset = event.dataset
            labels = dataset.labels.version if dataset.labels else 0
            self._datasets[dataset.observations.version, labels] = dataset
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

    def end_of(self, job_id: str) -> EndState | None:
        """Return how a job ended, if the log has its end."""
        return self._ends.get(job_id)

    def dataset(self, name: str) -> DatasetRef:
        """Return the dataset version that a request names.

        Raises
        ------
        CannotScore
            When there is none of this name.
        """
        pipeline = self.pipeline
        known = [dataset for _, dataset in sorted(self._datasets.items())]
        if not known:
            raise CannotScore(
                f"{pipeline} has no dataset",
                "it gets one with its first right row: driftloop publish FILE",
            )
        found = [x for x in known if name == LATEST or is_named(x, name)]
        if not found:
            raise CannotScore(
                f"{pipeline} has no dataset version {name!r}; it goes from "
                f"{name_of(known[0])} to {name_of(known[-1])}",
                f"take one of: driftloop datasets show {pipeline} --all",
            )
        return found[-1]

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
        self, request: ScoringRequested, champion: ServedModel | None
    ) -> tuple[DatasetRef, ServedModel]:
        """Return what a request asks for.

        Raises
        ------
        CannotScore
            Says what of it is not there.
        """
        model = self.model(request.version, champion)
        return self.dataset(request.dataset), model
