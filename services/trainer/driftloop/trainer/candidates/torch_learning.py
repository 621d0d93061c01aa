"""The fit of a network on its device: alone, or as one process of several."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from driftloop.trainer.candidates import torch_place
from driftloop.trainer.candidates.networks import Network
from driftloop.trainer.candidates.place import Place
from driftloop.trainer.candidates.sample import Watch
from driftloop.trainer.candidates.torch_fit import TorchFit
from driftloop.trainer.graph import Matrix

ANSWERED_ROWS = 4096
"""At once, so that what lies between the layers stays small."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a fit learns, in plain arrays.

    Attributes
    ----------
    rows : (n_rows, width) float32, as :meth:`Inputs.scaled` gives them.
    target : (n_rows,) int64 numbers of classes, or (n_rows, 1) float32.
    weights : (n_rows,) float32.
    kept : rows that are learned; the newest, after them, are watched.
    batch_rows : None: by the number of rows.
    """

    rows: Matrix
    target: npt.NDArray[Any]
    weights: Matrix
    kept: int
    seed: int
    learning_rate: float
    weight_decay: float
    batch_rows: int | None = None

    @property
    def is_watched(self) -> bool:
        return self.kept < len(self.rows)


class Team:
    """Processes that fit together; this one is alone."""

    def wrapped(self, network: Network) -> Callable[[Any], Any]:
        """Return what answers rows, and gives gradients that all agree on."""
        return network

    def share(self, batch: Any) -> tuple[Any, int, float]:
        """Return a batch's rows that are ours, the first of them, and how they count.

        The mean of what all processes return for a batch's gradient is that of one
        process, when each sums the losses of its rows times what it counts.
        """
        return batch, 0, 1 / len(batch)

    def agreed(self, value: Callable[[], float]) -> float:
        """Return a value that is the same for all."""
        return value()


ALONE = Team()


class Learner:
    """A network, its loss on the rows of a lesson, and where it is fitted."""

    def __init__(
        self, network: Network, lesson: Lesson, place: Place, device: Any, team: Team
    ) -> None:
        self._network, self._lesson, self._place = network, lesson, place
        self._device, self._team = device, team
        network.to(device)
        self._rows = torch_place.rows_on(lesson.rows, device)
        self._target = torch.from_numpy(lesson.target).to(device)
        self._weights = torch.from_numpy(lesson.weights).to(device)
        is_classes = lesson.target.dtype.kind == "i"
        kind = torch.nn.CrossEntropyLoss if is_classes else torch.nn.MSELoss
        self._of_each: Any = kind(reduction="none")

    def fit(self) -> TorchFit:
        """Return the fit at its start."""
        lesson = self._lesson
        optimiser = torch.optim.AdamW(
            self._network.module.parameters(),
            lr=lesson.learning_rate,
            weight_decay=lesson.weight_decay,
        )
        return TorchFit(
            self._network.module, optimiser, lesson.kept, lesson.seed,
            self._watched_loss if lesson.is_watched else None,
            lesson.batch_rows, self._place.words,
        )  # fmt: skip

    def learn(self, fit: TorchFit, watch: Watch) -> None:
        """Go on from the watch's checkpoint to the end.

        Raises
        ------
        LimitHit
            When a GPU has too little memory.
        """
        forward = self._team.wrapped(self._network)
        try:
            for batch in fit.batches(fit.resume(watch.saved())):
                fit.optimiser.zero_grad()
                found = self._loss_of(forward, batch)
                found.backward()
                fit.optimiser.step()
                fit.learned()
                watch.after(fit.done, fit.count, found.item, fit.state)
        except torch.OutOfMemoryError as error:
            raise torch_place.out_of_memory(error) from error

    def _loss_of(self, forward: Callable[[Any], Any], batch: Any) -> Any:
        ours, first, count = self._team.share(batch)
        self._network.share(first, len(batch))
        with torch_place.autocast(self._place):
            answers = forward(self._some(ours))
        return self._losses(answers, ours).sum() * count

    def _losses(self, answers: Any, some: Any) -> Any:
        if not isinstance(some, slice):
            some = some.to(self._device)
        lost = self._of_each(answers.float(), self._target[some]).reshape(-1)
        return lost * self._weights[some]

    def _some(self, batch: Any) -> Any:
        return self._rows[batch.to(self._rows.device)].to(self._device)

    def _watched_loss(self) -> float:
        """Return the mean on the newest rows, in float32: what will be served."""
        newest = slice(self._lesson.kept, None)

        def loss() -> float:
            found = answers(self._network, self._rows[newest], self._device)
            return float(self._losses(found, newest).mean())

        return self._team.agreed(loss)


def answers(network: Network, scaled: Any, device: Any) -> Any:
    """Return the raw answers to rows, without dropout."""
    network.module.eval()
    with torch.no_grad():
        parts = [network(part.to(device)) for part in scaled.split(ANSWERED_ROWS)]
    network.module.train()
    return torch.cat(parts)


def learn(
    network: Network,
    lesson: Lesson,
    place: Place,
    device: Any,
    watch: Watch,
    team: Team = ALONE,
) -> TorchFit:
    """Fit a network, in place, and return how it went.

    The network holds the weights of the last step; :meth:`TorchFit.finish` puts the
    best there.
    """
    learner = Learner(network, lesson, place, device, team)
    fit = learner.fit()
    learner.learn(fit, watch)
    return fit


def is_lost(fit: TorchFit, lesson: Lesson) -> bool:
    """Whether no epoch had a finite loss."""
    return lesson.is_watched and not math.isfinite(fit.best_loss)


def target_as(sample_target: npt.NDArray[Any], centre: float, spread: float) -> Matrix:
    """Return numbers to predict as a network sees them: (n_rows, 1), normalised."""
    normalised = (sample_target - centre) / spread
    return np.asarray(normalised, dtype=np.float32).reshape(-1, 1)
