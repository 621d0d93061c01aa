"""One way to learn, or a blend of several, and how it does on validation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import EnsembleName, PipelineSpec
from driftloop.trainer import blending, fitting, judging, losses
from driftloop.trainer.blending import Shares
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.candidates.place import facts_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.folds import Fold
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe
from driftloop.trainer.workshop import Part, Workshop


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
        told = [
            {"name": recipe.name} | recipe.facts | facts_of(member.parameters)
            for recipe, member in zip(self.recipes, members, strict=True)
        ]
        blend = blending.blended(self.kind, members, self.shares, told)
        tail = rows.slice(max(0, rows.num_rows - fitting.PARITY_ROWS))
        expected = mixed(self.shares, members, tail)
        answer = expected if blend.classes else expected[:, 0]
        unit = np.zeros(1) if blend.classes else expected[:, 0]
        found = fitting.check_parity(blend, tail, answer, unit)
        return replace(blend, parity=max(found, blend.parity or 0.0))


@dataclass(frozen=True)
class Trial:
    """What a choice lost, on each fold that it was judged on (oldest first).

    Attributes
    ----------
    members : of the newest fold.
    losses : (n_rows,) of each fold.
    older_seconds : that fitting for the other folds took.
    """

    choice: Choice
    members: list[Fitted]
    losses: tuple[Floats, ...]
    metric: str
    older_seconds: float = 0.0

    @property
    def fold_losses(self) -> list[float]:
        """The metric on each fold."""
        return [losses.metric_value(self.metric, one) for one in self.losses]

    @property
    def loss(self) -> float:
        return fmean(self.fold_losses)

    def newest(self, count: int) -> Floats:
        """Return the losses of the rows of so many folds, in order of time."""
        return np.concatenate(self.losses[-count:])


def tried(
    recipe: Recipe, stage: str, folds: Sequence[Fold], shop: Workshop, part: Part
) -> Trial:
    """Return how a recipe does on each fold."""
    found = list(fits_of(recipe, stage, folds, shop, part))
    model = found[-1][1]
    older_seconds = sum(fitted.fit_seconds for _, fitted in found[:-1])
    lost = tuple(one for one, _ in found)
    return Trial(Choice((recipe,)), [model], lost, shop.spec.metric, older_seconds)


def fits_of(
    recipe: Recipe, stage: str, folds: Sequence[Fold], shop: Workshop, part: Part
) -> Iterator[tuple[Floats, Fitted]]:
    """Yield a recipe's row losses and model of each fold, fitted when asked for.

    Raises
    ------
    CandidateRefused
        When a model cannot be had, or does not answer all rows with numbers.
    """
    for left, (fold, here) in enumerate(
        zip(folds, part.split(len(folds)), strict=True), start=1 - len(folds)
    ):
        name = f"{stage}fold{-left}" if left else stage
        model = shop.fit(recipe, name, fold.fitting, here)
        yield _losses(model, fold.validation, shop.spec), model


def _losses(model: Fitted, rows: pa.Table, spec: PipelineSpec) -> Floats:
    predicted = model.loaded().predict(rows)
    if predicted.non_finite_count():
        raise CandidateRefused("its answers on validation are not all finite")
    return judging.row_losses(spec, rows, predicted, model.classes)


def best_of_each(trials: Iterable[Trial]) -> dict[str, Trial]:
    """Return the trial of the least loss by candidate, the best candidate first."""
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=_mean_loss):
        best.setdefault(trial.choice.name, trial)
    return best


def _mean_loss(trial: Trial) -> float:
    return float(np.mean(trial.newest(len(trial.losses))))


def mixed(shares: Shares, members: list[Fitted], rows: pa.Table) -> Floats:
    """Return (n_rows, n_outputs) answers of a blend."""
    weights = shares.of(rows)
    terms = [
        blending.answers(member, rows) * weights[:, [number]]
        for number, member in enumerate(members)
    ]
    return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


def result_of(name: str, trial: Trial, detail: str) -> CandidateResult:
    """Return a trial as events tell it."""
    seconds = sum((m.fit_seconds for m in trial.members), trial.older_seconds)
    return CandidateResult(
        name=name,
        validation_loss=trial.loss,
        fit_seconds=seconds,
        detail=detail,
        fold_losses=trial.fold_losses if len(trial.losses) > 1 else None,
    )


def refused(name: str, why: str) -> CandidateResult:
    """Return what events tell of a trial that gave nothing."""
    return CandidateResult(name=name, validation_loss=None, fit_seconds=0.0, detail=why)


def outcome(result: CandidateResult) -> str:
    """Return how a trial went, for people."""
    if result.validation_loss is None:
        return f"not used: {result.detail}"
    return f"validation loss {result.validation_loss:.4g}"
