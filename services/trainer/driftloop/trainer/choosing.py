"""Which model is served: all recipes, and blends of the best, on the same validation.

Validation is the newest part of the training rows, so each is judged on rows that come
after those it learned from; with several folds, on the rows of all. A blend is of the
newest fold alone, and judged on each half of it by weights that the other half has
chosen. What is better by chance only is not taken: of those that the best one does not
beat by more than a standard error, the first is: a weighted mean, those that the file
names, in its order, then what a search found, then the other blends. The weighted mean
is first because it need not choose: which member is best changes from one stretch of
time to the next, and its weights hold each member alone as a case.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import EnsembleName, PipelineSpec
from driftloop.trainer import blending, judging, losses
from driftloop.trainer.blending import Shares
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.encoding import features_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.folds import Fold, comparable
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe, names_of, recipes_of
from driftloop.trainer.trials import (
    Choice,
    Trial,
    best_of_each,
    mixed,
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
    spec, newest = shop.spec, folds[-1]
    recipes = list(recipes_of(spec.train, since, newest.fitting, shop.heritage))
    usable = [recipe for recipe, why in recipes if why is None]
    stretches = comparable(folds, usable)
    usual, searched = _shared(part, len(recipes), shop)
    singles, results = _singles(recipes, stretches, shop, usual)
    if not singles:
        return results
    for found, better in tune(singles, stretches, shop, searched):
        results += found
        singles += [better] if better else []
    blends: list[Trial] = []
    for kind in spec.train.ensembles:
        try:
            blend = _blended(kind, singles, newest.validation, spec)
            blends.append(blend)
            results.append(result_of(kind, blend, _members_text(blend.choice)))
        except CandidateRefused as error:
            results.append(refused(kind, str(error)))
    best = first_of_the_best(singles, blends)
    return Chosen(best.choice, best.choice.of(best.members, newest.fitting), results)


def first_of_the_best(singles: Sequence[Trial], blends: Sequence[Trial]) -> Trial:
    """Return the first that the best one beats by a standard error at most.

    Two are compared on the rows that both were judged on: of all folds, or with a blend
    of the newest. So where there are older folds, each has to hold against the best
    single of all folds, too.

    Source: the one-standard-error rule, Breiman, Friedman, Olshen and Stone (1984),
    Classification and Regression Trees, section 3.4.3; here of the paired difference.
    The weighted mean before its members: van der Laan, Polley and Hubbard (2007), Super
    Learner, doi 10.2202/1544-6115.1309.
    """
    single = min(singles, key=lambda trial: _mean_loss(trial, len(trial.losses)))
    best = min([single, *blends], key=lambda trial: _mean_loss(trial, 1))
    rivals = [best, single] if len(single.losses) > 1 else [best]
    trials = sorted([*singles, *blends], key=lambda t: t.choice.kind != "stacking")
    held = (t for t in trials if not any(_is_beaten(t, by) for by in rivals))
    return next(held, best)


def _is_beaten(trial: Trial, by: Trial) -> bool:
    count = min(len(trial.losses), len(by.losses))
    compared = losses.paired_comparison(trial.newest(count), by.newest(count))
    return not compared.mean_difference <= compared.standard_error


def _mean_loss(trial: Trial, fold_count: int) -> float:
    return float(np.mean(trial.newest(fold_count)))


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
            told = [recipe.detail, trial.members[0].note]
            results.append(result_of(recipe.name, trial, ", ".join(filter(None, told))))
        except CandidateRefused as error:
            results.append(refused(recipe.name, str(error)))
        shop.progress("fit", here.end, f"{recipe.name}: {outcome(results[-1])}", None)
    return trials, results


def _shared(part: Part, recipe_count: int, shop: Workshop) -> tuple[Part, Part]:
    """Return the parts of what the file names and of the search, by their trials."""
    train = shop.spec.train
    searched = train.search.trials * len(set(names_of(train)))
    middle = part.start + (part.end - part.start) * recipe_count / (
        recipe_count + searched
    )
    return replace(part, end=middle), replace(part, step="search", start=middle)


def final(
    choice: Choice, rows: pa.Table, shop: Workshop, part: Part, stage: str = "final"
) -> Fitted:
    """Fit the choice on all of these rows."""
    parts = part.split(len(choice.recipes))
    return choice.of(
        [
            shop.fit(recipe, f"{stage}{number}", rows, parts[number])
            for number, recipe in enumerate(choice.recipes)
        ],
        rows,
    )


def _blended(
    kind: EnsembleName, singles: list[Trial], rows: pa.Table, spec: PipelineSpec
) -> Trial:
    """Return a blend of each candidate's best recipe, weighed on these rows."""
    half = rows.num_rows // 2
    if half < MIN_JUDGING_ROWS:
        raise CandidateRefused(
            f"validation has {rows.num_rows} rows, each half of which would choose "
            "the weights for the other one: too few"
        )
    best = best_of_each(singles)
    first = next(iter(best.values())).members[0]
    used = [t for t in best.values() if t.members[0].classes == first.classes]
    if len(used) < 2:
        raise CandidateRefused(
            "takes two candidates at least that can be used; name more under "
            "train.candidates"
        )
    members = [trial.members[0] for trial in used]
    older, newer = rows.slice(0, half), rows.slice(half)
    found = []
    for weighing, judged in ((newer, older), (older, newer)):
        shares = _shares(kind, members, weighing, spec)
        predicted = blending.as_predictions(
            mixed(shares, members, judged), first.classes
        )
        found.append(judging.row_losses(spec, judged, predicted, first.classes))
    shares = _shares(kind, members, rows, spec)
    choice = Choice(tuple(t.choice.recipes[0] for t in used), kind, shares)
    return Trial(choice, members, (np.concatenate(found),), spec.metric)


def _shares(
    kind: EnsembleName, members: list[Fitted], rows: pa.Table, spec: PipelineSpec
) -> Shares:
    """Choose the weights of a blend on these rows."""
    if kind == "average":
        return blending.equal_shares(len(members))
    classes = members[0].classes
    said = [blending.answers(member, rows) for member in members]

    def loss(answer: Floats) -> Floats:
        predicted = blending.as_predictions(answer, classes)
        return judging.row_losses(spec, rows, predicted, classes)

    if kind == "stacking":
        return blending.selected_shares(said, loss)
    features = features_of(rows, spec).items()
    columns = [name for name, feature in features if feature.type == "category"]
    shares = blending.expert_shares(rows, columns, [loss(one) for one in said])
    if shares is None:
        raise CandidateRefused(
            "takes a category feature of which a value has "
            f"{blending.MIN_SLICE_ROWS} rows in each half of validation"
        )
    return shares


def _members_text(choice: Choice) -> str:
    assert choice.shares is not None  # noqa: S101 - it is a blend
    if choice.kind == "experts":
        return f"by {choice.shares.column}"
    pairs = zip(choice.recipes, choice.shares.weights[0], strict=True)
    return ", ".join(f"{recipe.name} {share:.0%}" for recipe, share in pairs if share)
