"""Where an erasure stands: a function of what was traced, registered and decided.

Which trainings are affected is fixed by ``erasure-traced``. Each of them gives a model
or none; a model that was refused is out of use, of every other one a person says
whether it may stay (waive) or gives way to one that is trained now (retrain). Facts may
come in any order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from driftloop.contracts.base import derived_id
from driftloop.contracts.events import RetrainRequested, SettledModel

State = Literal["waiting_for_decision", "waiting_for_training", "settled"]


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of an affected training, and whether it was refused."""

    version: int
    is_rejected: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said about some versions; a later one replaces an earlier one."""

    event_id: str
    versions: tuple[int, ...]
    decision: Literal["retrain", "waive"]
    by: str
    reason: str

    @property
    def request_id(self) -> str:
        """Id of the retrain-requested that the decision led to."""
        return derived_id(self.event_id, RetrainRequested.topic(), 0)


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """Where one affected model is."""

    version: int
    state: State
    decision: Decision | None = None
    settled: SettledModel | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an erasure is.

    Attributes
    ----------
    open_jobs : affected trainings that have not ended.
    """

    models: tuple[ModelStanding, ...]
    open_jobs: tuple[str, ...]

    @property
    def is_settled(self) -> bool:
        return not self.open_jobs and all(m.settled for m in self.models)

    def asked(self) -> list[int]:
        """Return the versions of which nobody has said anything."""
        return [m.version for m in self.models if m.state == "waiting_for_decision"]


def standing_of(
    jobs: Iterable[str],
    registered: Mapping[str, Registered],
    ended: frozenset[str],
    decisions: Sequence[Decision],
    trained: Mapping[str, int],
) -> Standing:
    """Return where an erasure stands.

    Parameters
    ----------
    jobs : affected trainings.
    registered : versions by training.
    ended : trainings that gave no model.
    decisions : in the order of their topic.
    trained : version by the id of what triggered its training.
    """
    models = []
    open_jobs = []
    for job in jobs:
        found = registered.get(job)
        if found is not None:
            models.append(_model(found, decisions, trained))
        elif job not in ended:
            open_jobs.append(job)
    models.sort(key=lambda model: model.version)
    return Standing(tuple(models), tuple(open_jobs))


def _model(
    found: Registered, decisions: Sequence[Decision], trained: Mapping[str, int]
) -> ModelStanding:
    version = found.version
    if found.is_rejected:
        settled = SettledModel(version=version, settlement="not_in_use")
        return ModelStanding(version, "settled", None, settled)
    about = [d for d in decisions if version in d.versions]
    if not about:
        return ModelStanding(version, "waiting_for_decision")
    last = about[-1]
    if last.decision == "waive":
        settled = SettledModel(
            version=version, settlement="waived", by=last.by, reason=last.reason
        )
        return ModelStanding(version, "settled", last, settled)
    replaced_by = trained.get(last.request_id)
    if replaced_by is None:
        return ModelStanding(version, "waiting_for_training", last)
    settled = SettledModel(
        version=version,
        settlement="retrained",
        by=last.by,
        reason=last.reason,
        replaced_by=replaced_by,
    )
    return ModelStanding(version, "settled", last, settled)


def objection(standing: Standing, versions: Iterable[int]) -> str | None:
    """Return why a decision about these versions is not wanted; None: it is."""
    affected = {model.version: model for model in standing.models}
    for version in versions:
        model = affected.get(version)
        if model is None:
            names = ", ".join(map(str, affected)) or "none"
            return f"version {version} is not affected; affected are: {names}"
        if model.settled is not None:
            how = model.settled.settlement.replace("_", " ")
            return f"version {version} is settled already: {how}"
    return None
