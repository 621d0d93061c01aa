"""Which model is served: all recipes, and blends of the best, on the same validation.

Validation is the newest part of the training rows, so each is judged on rows that come
after those it learned from; with several folds, the mean of their losses decides. Where
blends are tried, the older half of the newest fold chooses their weights and only the
newer half judges, the singles too. Blends are of that fold alone: the best of them is
taken where it does better there than the best single.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import EnsembleName, PipelineSpec
from driftloop.trainer import blending, judging
from driftloop.trainer.blending import Shares
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.encoding import features_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.folds import Fold, comparable
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe, recipes_of
from driftloop.trainer.trials import (
    Choice,
    Trial,
    best_of_each,
    judged,
    outcome,
    refused,
    result_of,
    tried,
)
from driftloop.trainer.tuning import tune
from driftloop.trainer.workshop import Part, Workshop

MIN_JUDGING_ROWS = 20
"""Fewer rows on validation or hold-out say nothing about a model."""


@dataclass(frozen=True)
class Chosen:
    """What validation said.

    Attributes
    ----------
    model : of the choice, fitted without the validation rows.
    """

    choice: Choice
    model: Fitted
    tried: list[CandidateResult]


def choose(
    folds: Sequence[Fold],
    since: datetime | None,
    shop: Workshop,
    part: Part,
) -> Chosen | list[CandidateResult]:
    """Fit every recipe of the file, blend the best, and return the best of all.

    Parameters
    ----------
    folds : oldest first.

    Returns
    -------
    Chosen or list of CandidateResult
        The latter when none could be used.
    """
    spec = shop.spec
    wanted = spec.train.ensembles
    fit_rows, validation = folds[-1].fitting, folds[-1].validation
    half = validation.num_rows // 2
    is_long_enough = half >= MIN_JUDGING_ROWS
    weighing = validation.slice(0, half)
    judging_rows = validation.slice(half) if wanted and is_long_enough else validation
    recipes = list(recipes_of(spec.train, since, fit_rows))
    usable = [recipe for recipe, why in recipes if why is None]
    stretches = [*comparable(folds, usable)[:-1], Fold(fit_rows, judging_rows)]
    usual, searched = _shared(part, len(recipes), shop)
    trials, results = _singles(recipes, stretches, shop, usual)
    if not trials:
        return results
    for found, better in tune(trials, stretches, shop, searched):
        results += found
        trials += [better] if better else []
    blends: list[Trial] = []
    for kind in wanted:
        try:
            if not is_long_enough:
                raise CandidateRefused(
                    f"validation has {validation.num_rows} rows, half of which would "
                    "choose the weights: too few"
                )
            choice, members = _blend(kind, trials, weighing, spec)
            blend = judged(choice, members, fit_rows, judging_rows, spec)
            blends.append(blend)
            results.append(result_of(kind, blend, _members_text(choice)))
        except CandidateRefused as error:
            results.append(refused(kind, str(error)))
    single = min(trials, key=lambda trial: trial.loss)  # the first of equals
    best = min([single, *blends], key=lambda trial: trial.newest_loss)
    return Chosen(best.choice, best.choice.of(best.members, fit_rows), results)


def _singles(
    recipes: Sequence[tuple[Recipe, str | None]],
    folds: Sequence[Fold],
    shop: Workshop,
    part: Part,
) -> tuple[list[Trial], list[CandidateResult]]:
    """Return the trials of the recipes that could be used, and what is told of all."""
    trials: list[Trial] = []
    results: list[CandidateResult] = []
    for number, here in enumerate(part.split(len(recipes))):
        recipe, why = recipes[number]
        try:
            if why is not None:
                raise CandidateRefused(why)
            trial = tried(recipe, f"try{number}", folds, shop, here)
            trials.append(trial)
            results.append(result_of(recipe.name, trial, recipe.detail))
        except CandidateRefused as error:
            results.append(refused(recipe.name, str(error)))
        shop.progress("fit", here.end, f"{recipe.name}: {outcome(results[-1])}", None)
    return trials, results


def _shared(part: Part, recipe_count: int, shop: Workshop) -> tuple[Part, Part]:
    """Return the parts of what the file names and of the search, by their trials."""
    train = shop.spec.train
    searched = train.search.trials * len(set(train.candidates))
    middle = part.start + (part.end - part.start) * recipe_count / (
        recipe_count + searched
    )
    return replace(part, end=middle), replace(part, step="search", start=middle)


def final(choice: Choice, rows: pa.Table, shop: Workshop, part: Part) -> Fitted:
    """Fit the choice on all training rows."""
    parts = part.split(len(choice.recipes))
    return choice.of(
        [
            shop.fit(recipe, f"final{number}", rows, parts[number])
            for number, recipe in enumerate(choice.recipes)
        ],
        rows,
    )


def _blend(
    kind: EnsembleName, singles: list[Trial], rows: pa.Table, spec: PipelineSpec
) -> tuple[Choice, list[Fitted]]:
    """Return a blend of each candidate's best recipe, weighed on these rows."""
    best = best_of_each(singles)
    first = next(iter(best.values())).members[0]
    used = [t for t in best.values() if t.members[0].classes == first.classes]
    if len(used) < 2:
        raise CandidateRefused(
            "takes two candidates at least that can be used; name more under "
            "train.candidates"
        )
    members = [trial.members[0] for trial in used]
    said = [blending.answers(member, rows) for member in members]

    def loss(answer: Floats) -> Floats:
        predicted = blending.as_predictions(answer, first.classes)
        return judging.row_losses(spec, rows, predicted, first.classes)

    shares: Shares | None
    if kind == "average":
        shares = blending.equal_shares(len(members))
    elif kind == "stacking":
        shares = blending.selected_shares(said, loss)
    else:
        columns = [
            n for n, f in features_of(rows, spec).items() if f.type == "category"
        ]
        shares = blending.expert_shares(rows, columns, [loss(one) for one in said])
        if shares is None:
            raise CandidateRefused(
                "takes a category feature of which a value has "
                f"{blending.MIN_SLICE_ROWS} rows in the older half of validation"
            )
    return Choice(tuple(t.choice.recipes[0] for t in used), kind, shares), members


def _members_text(choice: Choice) -> str:
    assert choice.shares is not None  # noqa: S101 - it is a blend
    if choice.kind == "experts":
        return f"by {choice.shares.column}"
    pairs = zip(choice.recipes, choice.shares.weights[0], strict=True)
    return ", ".join(f"{recipe.name} {share:.0%}" for recipe, share in pairs if share)


def refused_text(tried: list[CandidateResult]) -> Iterator[str]:
    """Yield why each could not be used."""
    yield from (f"{result.name}: {result.detail}" for result in tried)
