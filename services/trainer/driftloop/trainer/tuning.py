"""Parameters of each candidate, searched for on the rows that did best without."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from driftloop.contracts.events import CandidateResult
from driftloop.trainer import losses
from driftloop.trainer.candidates import space_of
from driftloop.trainer.folds import Fold
from driftloop.trainer.recipes import Recipe, names_of
from driftloop.trainer.search import Attempt, Budget, Parameters, Search
from driftloop.trainer.trials import Trial, best_of_each, fits_of, tried
from driftloop.trainer.workshop import Part, Workshop


def tune(
    trials: Sequence[Trial], folds: Sequence[Fold], shop: Workshop, part: Part
) -> Iterator[tuple[list[CandidateResult], Trial | None]]:
    """Yield for each candidate what was tried, and the best if it beats the usual.

    Parameters
    ----------
    trials : of the usual parameters, that could be used.
    folds : that they were judged on, oldest first.
    """
    task = shop.spec.task
    best = best_of_each(trials)
    named = [n for n in dict.fromkeys(names_of(shop.spec.train)) if n in best]
    spaces = {name: space for name in named if (space := space_of(name, task))}
    budget = Budget(shop.spec.train.search, list(spaces), shop.searched)
    parts = part.split(len(spaces)) if spaces else []
    for (name, space), here in zip(spaces.items(), parts, strict=True):
        usual = best[name]
        seed, known = shop.spec.train.seed, usual.fold_losses
        search = Search(name, space, seed, known, shop.folder)
        yield _Tuning(usual, search, budget, folds, shop, here).run()


class _Tuning:
    """One candidate's search; only its best model so far stays in the folder."""

    def __init__(
        self,
        usual: Trial,
        search: Search,
        budget: Budget,
        folds: Sequence[Fold],
        shop: Workshop,
        part: Part,
    ) -> None:
        self._usual, self._search, self._budget = usual, search, budget
        self._folds, self._shop = folds, shop
        self._parts = part.split(max(1, budget.trials))
        self._best: Attempt | None = None

    def run(self) -> tuple[list[CandidateResult], Trial | None]:
        results = []
        for attempt in self._search.attempts(self._budget, self._judge):
            self._compare(attempt)
            results.append(self._result(attempt))
            self._say(attempt)
        if self._best is None:
            return results, None
        number, recipe = self._best.number, self._recipe(self._best.parameters)
        here = self._parts[number - 1]
        # its models are in the folder still
        return results, tried(recipe, _stage(number), self._folds, self._shop, here)

    def _recipe(self, parameters: Parameters) -> Recipe:
        return replace(self._usual.choice.recipes[0], parameters=parameters)

    def _judge(self, number: int, parameters: Parameters) -> Iterator[float]:
        recipe, here = self._recipe(parameters), self._parts[number - 1]
        metric = self._shop.spec.metric
        for found, _ in fits_of(recipe, _stage(number), self._folds, self._shop, here):
            yield losses.metric_value(metric, found)

    def _least(self) -> float:
        found = None if self._best is None else self._best.loss
        return self._usual.loss if found is None else found

    def _compare(self, attempt: Attempt) -> None:
        """Keep the models of the best trial so far, and no other's."""
        lost: Attempt | None = attempt
        if attempt.loss is not None and attempt.loss < self._least():
            lost, self._best = self._best, attempt
        if lost is not None:
            self._shop.forget(self._search.name, _stage(lost.number))

    def _result(self, attempt: Attempt) -> CandidateResult:
        recipe = self._usual.choice.recipes[0]
        parts = [f"trial {attempt.number}", recipe.detail, attempt.detail]
        return CandidateResult(
            name=recipe.name,
            validation_loss=attempt.loss,
            fit_seconds=attempt.seconds,
            detail=", ".join(part for part in parts if part),
            fold_losses=attempt.losses if len(self._folds) > 1 else None,
            trial=attempt.number,
            parameters=attempt.parameters,
        )

    def _say(self, attempt: Attempt) -> None:
        number, count = attempt.number, self._budget.trials
        text = f"trial {number} of {count}, best loss {self._least():.4g}"
        part = self._parts[number - 1]
        name = self._search.name
        self._shop.progress(part.step, part.end, f"{name}: {text}", None)


def _stage(number: int) -> str:
    return f"trial{number}"
