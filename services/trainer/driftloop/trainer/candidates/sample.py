"""What a candidate learns from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.contracts.networks import NetworksSection
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.graph import Floats, Matrix


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit was, and all that it needs to go on as if nothing had happened.

    Attributes
    ----------
    iteration : that was done last.
    state : in the candidate's own form; no code.
    """

    iteration: int
    state: bytes


class Watch:
    """What a candidate that fits in steps tells; this one lets it fit undisturbed.

    A fit that goes on from :meth:`saved` must end in the same model, to the byte, as
    one that was never interrupted.
    """

    def saved(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, if there is one."""
        return None

    def after(
        self,
        iteration: int,
        count: int,
        loss: Callable[[], float] | None = None,
        state: Callable[[], bytes] | None = None,
    ) -> None:
        """Say that ``iteration`` of ``count`` is done; called often, so cheap.

        Parameters
        ----------
        loss, state : asked only now and then, when somebody wants to know.
        """


UNWATCHED = Watch()


@dataclass(frozen=True)
class Start:
    """What the champion's training of this candidate knew, to go on from.

    Attributes
    ----------
    state : the bytes of its :class:`graph.State`.
    first : number of the first row that it had not learned; rows before it are those
        that it had.
    """

    state: bytes
    first: int


@dataclass(frozen=True)
class Sample:
    """Training rows in order of event time.

    Attributes
    ----------
    matrix : (n_rows, width) float32, NaN where a value is missing.
    target : (n_rows,) float64 for regression, else int64 numbers of classes.
    classes : labels by number; empty for regression.
    threads : that a library may use.
    watch : told how far a fit is.
    groups : (first, end) columns of which at most one is 1: one a category.
    channels : columns of each sequence, oldest first; all of a length.
    metric : that decides in the end, and that a fit should lower where it can.
    weights : (n_rows,) float64 with a mean of 1; None: all rows count alike.
    parameters : instead of the candidate's usual ones, where they are named.
    start : to go on from; None: learn from scratch.
    keeps_state : whether a later training may want to go on from this one.
    machine : what may be used besides threads.
    networks : how networks are fitted, as the pipeline file says.
    """

    matrix: Matrix
    target: npt.NDArray[Any]
    classes: tuple[str, ...]
    seed: int
    threads: int = 1
    watch: Watch = UNWATCHED
    groups: tuple[tuple[int, int], ...] = ()
    channels: tuple[tuple[int, ...], ...] = ()
    metric: str = "rmse"
    weights: Floats | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    networks: NetworksSection = field(default_factory=NetworksSection)
    start: Start | None = None
    keeps_state: bool = False

    def predictor(self, model: Any) -> Callable[[Matrix], Floats]:
        """Return a scikit-learn model's answer in the form that ``Core`` wants."""
        if self.classes:
            return lambda matrix: np.asarray(model.predict_proba(matrix))
        return lambda matrix: np.asarray(model.predict(matrix), dtype=np.float64)


class CandidateRefused(Exception):  # noqa: N818 - says what happened
    """A candidate cannot be used, and why; the training goes on with the others."""


def cannot_go_on(why: object) -> CandidateRefused:
    """Return the refusal of a start that a candidate cannot learn on from."""
    return CandidateRefused(f"cannot go on from the champion's state: {why}")


def target_unit(target: npt.NDArray[Any]) -> float:
    """Return the standard deviation; 1 where all are the same but for rounding.

    >>> target_unit(np.array([0.1] * 3)), target_unit(np.array([1.0, 3.0]))
    (1.0, 1.0)
    """
    found = float(np.std(target))
    noise = float(np.finfo(np.float32).eps) * float(np.max(np.abs(target)))
    return found if found > noise else 1.0


def refuse_weights(name: str, sample: Sample) -> None:
    """Refuse rows that count less with their age, for a candidate that forgets."""
    if sample.weights is not None:
        raise CandidateRefused(
            f"{name} forgets by itself and does not weigh rows by their age; "
            "leave it to train.recency_half_life_days: [null]"
        )
