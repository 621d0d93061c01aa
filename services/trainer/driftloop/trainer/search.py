"""A search for better parameters: Optuna proposes, validation judges.

Each trial is proposed by a study that is built anew from the trials before it, as they
were kept, with dice that depend on the seed, the candidate and the trial's number only.
So a search that was interrupted proposes what an unbroken one does. Optuna is an extra
and imported when a search begins.

Source: Bergstra et al. (2011), Algorithms for Hyper-Parameter Optimization, NeurIPS 24
(the tree-structured Parzen estimator).
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from driftloop.contracts.validation import SearchSection
from driftloop.trainer.candidates import CandidateRefused, Space
from driftloop.trainer.candidates.space import Setting, Value

MISSING = (
    "train.search needs optuna, which is not installed; "
    "install driftloop-trainer[search]"
)
Parameters = dict[str, Value]
Judge = Callable[[int, Parameters], Iterator[float]]
"""Yields a trial's loss on each fold, oldest first; it may not be asked for all."""


def is_available() -> bool:
    """Whether optuna is installed."""
    return find_spec("optuna") is not None


@dataclass(frozen=True)
class Attempt:
    """One trial, as it is kept in the job's folder.

    Attributes
    ----------
    number : from 1 on; 0 is the candidate's usual parameters.
    losses : of the folds it was judged on, oldest first.
    state : ``pruned``: given up after a fold, as worse than half of the others.
    seconds : wall clock.
    """

    number: int
    parameters: Parameters
    losses: list[float]
    state: Literal["complete", "pruned", "refused"] = "complete"
    detail: str = ""
    seconds: float = 0.0

    @property
    def loss(self) -> float | None:
        return fmean(self.losses) if self.state == "complete" else None


class Budget:
    """How many trials each candidate gets.

    The minutes are shared: the first of three candidates begins trials during the first
    third of them, and what it leaves is the others'. They are counted in the seconds of
    trials as they were kept, so a search that goes on ends where it would have.

    Parameters
    ----------
    names : of the candidates, in order.
    recorded : trials of each that another training had; None: time decides.
    """

    def __init__(
        self,
        section: SearchSection,
        names: Sequence[str],
        recorded: Mapping[str, int] | None = None,
    ) -> None:
        self.trials, self._recorded = section.trials, recorded
        self._until: dict[str, float] = {}
        if section.minutes is not None and recorded is None:
            share_s = 60 * section.minutes / max(1, len(names))
            self._until = {n: share_s * i for i, n in enumerate(names, start=1)}
        self._spent_s = 0.0

    def allows(self, name: str, number: int) -> bool:
        """Whether a candidate's trial of this number may begin."""
        if self._recorded is not None:
            return number <= min(self.trials, self._recorded.get(name, 0))
        if name in self._until and self._spent_s >= self._until[name]:
            return False
        return number <= self.trials

    def spend(self, attempt: Attempt) -> None:
        self._spent_s += attempt.seconds


@dataclass(frozen=True)
class Search:
    """One candidate's search.

    Attributes
    ----------
    usual : losses of the usual parameters, on each fold; the first that Optuna knows.
    folder : of the job.
    """

    name: str
    space: Space
    seed: int
    usual: Sequence[float]
    folder: Path
    clock: Callable[[], float] = time.monotonic

    def attempts(self, budget: Budget, judge: Judge) -> Iterator[Attempt]:
        """Yield each trial, the kept ones first, until the budget ends."""
        defaults = {setting.name: setting.default for setting in self.space}
        done = [Attempt(0, defaults, list(self.usual))]
        while budget.allows(self.name, len(done)):
            attempt = self._kept(len(done))
            if attempt is None:
                attempt = self._made(done, judge)
                self._keep(attempt)
            budget.spend(attempt)
            done.append(attempt)
            yield attempt

    def _made(self, done: Sequence[Attempt], judge: Judge) -> Attempt:
        trial = self._proposed(done)
        parameters, losses = dict(trial.params), list[float]()
        state: Literal["complete", "pruned", "refused"] = "complete"
        detail, started = "", self.clock()
        try:
            for loss in judge(len(done), parameters):
                losses.append(loss)
                trial.report(fmean(losses), len(losses) - 1)
                if len(losses) < len(self.usual) and trial.should_prune():
                    state = "pruned"
                    detail = f"given up after fold {len(losses)} of {len(self.usual)}"
                    break
        except CandidateRefused as error:
            state, detail = "refused", str(error)
        seconds = self.clock() - started
        return Attempt(len(done), parameters, losses, state, detail, seconds)

    def _proposed(self, done: Sequence[Attempt]) -> Any:
        """Return Optuna's next trial after these."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=self._dice(len(done))),
            pruner=optuna.pruners.MedianPruner(),
        )
        ranges = {setting.name: _range(setting) for setting in self.space}
        states = optuna.trial.TrialState
        known = {
            "complete": states.COMPLETE,
            "pruned": states.PRUNED,
            "refused": states.FAIL,
        }
        for attempt in done:
            means = [fmean(attempt.losses[: n + 1]) for n in range(len(attempt.losses))]
            trial = optuna.trial.create_trial(
                state=known[attempt.state],
                value=attempt.loss,
                params=attempt.parameters,
                distributions=ranges,
                intermediate_values=dict(enumerate(means)),
            )
            study.add_trial(trial)
        return study.ask(ranges)

    def _dice(self, number: int) -> int:
        text = f"{self.seed}/{self.name}/{number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    def _path(self, number: int) -> Path:
        return self.folder / f"attempt{number}-{self.name}.json"

    def _kept(self, number: int) -> Attempt | None:
        try:
            return Attempt(**json.loads(self._path(number).read_bytes()))
        except FileNotFoundError:
            return None

    def _keep(self, attempt: Attempt) -> None:
        path = self._path(attempt.number)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(attempt)))
        draft.replace(path)


def _range(setting: Setting) -> Any:
    """Return a setting as Optuna has it."""
    from optuna import distributions

    if setting.choices:
        return distributions.CategoricalDistribution(setting.choices)
    if isinstance(setting.default, int):
        low, high = int(setting.low), int(setting.high)
        return distributions.IntDistribution(low, high, log=setting.is_log)
    return distributions.FloatDistribution(
        setting.low, setting.high, log=setting.is_log
    )
