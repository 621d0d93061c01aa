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
from statistics import fmean

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import EnsembleName, PipelineSpec
from driftloop.trainer import blending, fitting, judging, losses
from driftloop.trainer.blending import Shares
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.encoding import features_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.folds import Fold, comparable
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe, recipes_of
from driftloop.trainer.workshop import Part, Workshop

MIN_JUDGING_ROWS = 20
"""Fewer rows on validation or hold-out say nothing about a model."""


@dataclass(frozen=True)
class Choice:
    """How the chosen model is made, from these rows or from others.

    Attributes
    ----------
    recipes : one, or the members of a blend.
    shares : how much each member counts.
    """

    recipes: tuple[Recipe, ...]
    kind: EnsembleName | None = None
    shares: Shares | None = None

    @property
    def name(self) -> str:
        return self.kind or self.recipes[0].name

    def rows(self, rows: pa.Table) -> pa.Table:
        """Return the stretch of rows that is learned from, the longest of a blend."""
        return max((r.rows(rows) for r in self.recipes), key=lambda t: t.num_rows)

    def of(self, members: list[Fitted], rows: pa.Table) -> Fitted:
        """Return the model of fitted members.

        Raises
        ------
        CandidateRefused
            When a blend's graph does not answer as its members do.
        """
        if self.kind is None or self.shares is None:
            return members[0]
        told = [{"name": r.name} | r.parameters for r in self.recipes]
        blend = blending.blended(self.kind, members, self.shares, told)
        tail = rows.slice(max(0, rows.num_rows - fitting.PARITY_ROWS))
        expected = _mixed(self.shares, members, tail)
        answer = expected if blend.classes else expected[:, 0]
        unit = np.zeros(1) if blend.classes else expected[:, 0]
        found = fitting.check_parity(blend, tail, answer, unit)
        return replace(blend, parity=max(found, blend.parity or 0.0))


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


@dataclass(frozen=True)
class _Trial:
    """What a choice lost, on each fold that it was judged on (oldest first).

    Attributes
    ----------
    members : of the newest fold.
    older_seconds : that fitting for the other folds took.
    """

    choice: Choice
    members: list[Fitted]
    losses: tuple[float, ...]
    older_seconds: float = 0.0

    @property
    def loss(self) -> float:
        return fmean(self.losses)

    @property
    def newest_loss(self) -> float:
        return self.losses[-1]


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
    tried: list[CandidateResult] = []
    trials: list[_Trial] = []
    blends: list[_Trial] = []
    for number, (recipe, why) in enumerate(recipes):
        here = part.split(len(recipes))[number]
        try:
            if why is not None:
                raise CandidateRefused(why)
            trial = _tried(recipe, f"try{number}", stretches, shop, here)
            trials.append(trial)
            tried.append(_result(recipe.name, trial, recipe.detail))
        except CandidateRefused as error:
            tried.append(_refused(recipe.name, str(error)))
        shop.progress("fit", here.end, f"{recipe.name}: {outcome(tried[-1])}", None)
    if not trials:
        return tried
    for kind in wanted:
        try:
            if not is_long_enough:
                raise CandidateRefused(
                    f"validation has {validation.num_rows} rows, half of which would "
                    "choose the weights: too few"
                )
            choice, members = _blend(kind, trials, weighing, spec)
            blend = _judged(choice, members, fit_rows, judging_rows, spec)
            blends.append(blend)
            tried.append(_result(kind, blend, _members_text(choice)))
        except CandidateRefused as error:
            tried.append(_refused(kind, str(error)))
    single = min(trials, key=lambda trial: trial.loss)  # the first of equals
    best = min([single, *blends], key=lambda trial: trial.newest_loss)
    return Chosen(best.choice, best.choice.of(best.members, fit_rows), tried)


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
    kind: EnsembleName, singles: list[_Trial], rows: pa.Table, spec: PipelineSpec
) -> tuple[Choice, list[Fitted]]:
    """Return a blend of each candidate's best recipe, weighed on these rows."""
    best: dict[str, _Trial] = {}
    for trial in sorted(singles, key=lambda trial: trial.loss):
        best.setdefault(trial.choice.name, trial)
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


def _mixed(shares: Shares, members: list[Fitted], rows: pa.Table) -> Floats:
    """Return (n_rows, n_outputs) answers of a blend."""
    weights = shares.of(rows)
    terms = [
        blending.answers(member, rows) * weights[:, [number]]
        for number, member in enumerate(members)
    ]
    return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


def _judged(
    choice: Choice,
    members: list[Fitted],
    fit_rows: pa.Table,
    rows: pa.Table,
    spec: PipelineSpec,
) -> _Trial:
    model = choice.of(members, fit_rows)
    predicted = model.loaded().predict(rows)
    if predicted.non_finite_count():
        raise CandidateRefused("its answers on validation are not all finite")
    found = judging.row_losses(spec, rows, predicted, model.classes)
    return _Trial(choice, members, (losses.metric_value(spec.metric, found),))


def _tried(
    recipe: Recipe, stage: str, folds: Sequence[Fold], shop: Workshop, part: Part
) -> _Trial:
    """Return how a recipe does on each fold."""
    choice, found, seconds = Choice((recipe,)), [], 0.0
    for left, (fold, here) in enumerate(
        zip(folds, part.split(len(folds)), strict=True), start=1 - len(folds)
    ):
        name = f"{stage}fold{-left}" if left else stage
        model = shop.fit(recipe, name, fold.fitting, here)
        rows = fold.validation
        found.append(_judged(choice, [model], fold.fitting, rows, shop.spec).loss)
        seconds += model.fit_seconds
    return _Trial(choice, [model], tuple(found), seconds - model.fit_seconds)


def _members_text(choice: Choice) -> str:
    assert choice.shares is not None  # noqa: S101 - it is a blend
    if choice.kind == "experts":
        return f"by {choice.shares.column}"
    pairs = zip(choice.recipes, choice.shares.weights[0], strict=True)
    return ", ".join(f"{recipe.name} {share:.0%}" for recipe, share in pairs if share)


def _result(name: str, trial: _Trial, detail: str) -> CandidateResult:
    seconds = sum((m.fit_seconds for m in trial.members), trial.older_seconds)
    return CandidateResult(
        name=name,
        validation_loss=trial.loss,
        fit_seconds=seconds,
        detail=detail,
        fold_losses=list(trial.losses) if len(trial.losses) > 1 else None,
    )


def _refused(name: str, why: str) -> CandidateResult:
    return CandidateResult(name=name, validation_loss=None, fit_seconds=0.0, detail=why)


def outcome(result: CandidateResult) -> str:
    """Return how a trial went, for people."""
    if result.validation_loss is None:
        return f"not used: {result.detail}"
    return f"validation loss {result.validation_loss:.4g}"


def refused_text(tried: list[CandidateResult]) -> Iterator[str]:
    """Yield why each could not be used."""
    yield from (f"{result.name}: {result.detail}" for result in tried)
