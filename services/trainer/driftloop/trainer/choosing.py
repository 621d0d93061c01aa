"""Which model is served: all recipes, and blends of the best, on the same validation.

Validation is the newest part of the training rows, so each is judged on rows that come
after those it learned from. A blend is judged on each half of it by weights that the
other half has chosen. What is better by chance only is not taken: of those that the
best one does not beat by more than a standard error, the first in the file's order is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import CandidateResult
from driftloop.contracts.pipeline import EnsembleName, PipelineSpec
from driftloop.trainer import blending, fitting, judging, losses
from driftloop.trainer.blending import Shares
from driftloop.trainer.candidates import CandidateRefused, Watch
from driftloop.trainer.checkpoints import FitProgress, FitWatch
from driftloop.trainer.encoding import features_of
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe, recipes_of

MIN_JUDGING_ROWS = 20
"""Fewer rows on validation or hold-out say nothing about a model."""

Progress = Callable[[str, float, str, FitProgress | None], None]
"""Called with a step's name, the done share of the job, a detail, and the fit."""


@dataclass(frozen=True)
class Workshop:
    """Where and how a job fits its models; what is done is not done again.

    Attributes
    ----------
    folder : of the job, for checkpoints.
    """

    spec: PipelineSpec
    threads: int
    folder: Path
    progress: Progress
    allowed_imports: tuple[str, ...] = ()

    def fit(self, recipe: Recipe, stage: str, rows: pa.Table, part: "Part") -> Fitted:
        """Return a recipe's model of this stage, from its checkpoint if it has one."""
        fitted = fitting.saved(self.folder, stage, recipe.name)
        if fitted is None:
            path = self.folder / f"{stage}-{recipe.name}.checkpoint"
            watch = FitWatch(recipe.name, path, part.report)
            fitted = made(
                recipe, rows, self.spec, self.threads, watch, self.allowed_imports
            )
            fitting.save(fitted, self.folder, stage)
            watch.forget()
        return fitted


def made(
    recipe: Recipe,
    rows: pa.Table,
    spec: PipelineSpec,
    threads: int,
    watch: Watch,
    allowed_imports: tuple[str, ...] = (),
) -> Fitted:
    """Fit a recipe on rows in order of time."""
    fitted = fitting.fit(
        recipe.name,
        recipe.rows(rows),
        spec,
        threads,
        watch,
        recipe.weights,
        allowed_imports,
    )
    return replace(fitted, parameters=fitted.parameters | recipe.parameters)


@dataclass(frozen=True)
class Part:
    """A stretch of the job's done share that one fit fills."""

    step: str
    start: float
    end: float
    progress: Progress

    def report(self, fit: FitProgress) -> None:
        done = self.start + (self.end - self.start) * fit.ratio
        self.progress(self.step, done, "", fit)

    def split(self, count: int) -> list["Part"]:
        """Return ``count`` equal parts of it."""
        ends = [
            self.start + (self.end - self.start) * number / count
            for number in range(count + 1)
        ]
        return [
            Part(self.step, start, end, self.progress) for start, end in pairwise(ends)
        ]


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
    """A choice and its (n_rows,) losses on validation."""

    choice: Choice
    members: list[Fitted]
    losses: Floats


def choose(
    fit_rows: pa.Table,
    validation: pa.Table,
    since: datetime | None,
    shop: Workshop,
    part: Part,
) -> Chosen | list[CandidateResult]:
    """Fit every recipe of the file, blend the best, and return the best of all.

    Returns
    -------
    Chosen or list of CandidateResult
        The latter when none could be used.
    """
    spec = shop.spec
    recipes = list(recipes_of(spec.train, since, fit_rows))
    parts = part.split(len(recipes))
    tried: list[CandidateResult] = []
    singles: list[_Trial] = []
    for number, (recipe, obstacle) in enumerate(recipes):
        try:
            if obstacle is not None:
                raise CandidateRefused(obstacle)
            model = shop.fit(recipe, f"try{number}", fit_rows, parts[number])
            found = _losses(model, validation, spec)
            singles.append(_Trial(Choice((recipe,)), [model], found))
            tried.append(_result(singles[-1], recipe.detail, spec))
        except CandidateRefused as error:
            tried.append(_refused(recipe.name, str(error)))
        told = f"{recipe.name}: {outcome(tried[-1])}"
        shop.progress("fit", parts[number].end, told, None)
    if not singles:
        return tried
    trials = list(singles)
    for kind in spec.train.ensembles:
        try:
            trials.append(_blended(kind, singles, validation, spec))
            detail = _members_text(trials[-1].choice)
            tried.append(_result(trials[-1], detail, spec))
        except CandidateRefused as error:
            tried.append(_refused(kind, str(error)))
    best = trials[first_of_the_best([trial.losses for trial in trials])]
    return Chosen(best.choice, best.choice.of(best.members, fit_rows), tried)


def first_of_the_best(found: Sequence[Floats]) -> int:
    """Return the first that the best one beats by a standard error at most.

    Parameters
    ----------
    found : (n_rows,) losses of each on the same rows, in order of time.

    Source: the one-standard-error rule, Breiman, Friedman, Olshen and Stone (1984),
    Classification and Regression Trees, section 3.4.3; here of the paired difference.
    """
    best = int(np.argmin([float(np.mean(one)) for one in found]))
    for number, one in enumerate(found):
        compared = losses.paired_comparison(one, found[best])
        if compared.mean_difference <= compared.standard_error:
            return number
    return best


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


def _losses(model: Fitted, rows: pa.Table, spec: PipelineSpec) -> Floats:
    predicted = model.loaded().predict(rows)
    if predicted.non_finite_count():
        raise CandidateRefused("its answers on validation are not all finite")
    return judging.row_losses(spec, rows, predicted, model.classes)


def _blended(
    kind: EnsembleName, singles: list[_Trial], rows: pa.Table, spec: PipelineSpec
) -> _Trial:
    """Return a blend of each candidate's best recipe, weighed on these rows."""
    half = rows.num_rows // 2
    if half < MIN_JUDGING_ROWS:
        raise CandidateRefused(
            f"validation has {rows.num_rows} rows, each half of which would choose "
            "the weights for the other one: too few"
        )
    best: dict[str, _Trial] = {}
    for trial in sorted(singles, key=lambda trial: float(np.mean(trial.losses))):
        best.setdefault(trial.choice.name, trial)
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
            _mixed(shares, members, judged), first.classes
        )
        found.append(judging.row_losses(spec, judged, predicted, first.classes))
    shares = _shares(kind, members, rows, spec)
    choice = Choice(tuple(t.choice.recipes[0] for t in used), kind, shares)
    return _Trial(choice, members, np.concatenate(found))


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


def _mixed(shares: Shares, members: list[Fitted], rows: pa.Table) -> Floats:
    """Return (n_rows, n_outputs) answers of a blend."""
    weights = shares.of(rows)
    terms = [
        blending.answers(member, rows) * weights[:, [number]]
        for number, member in enumerate(members)
    ]
    return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


def _members_text(choice: Choice) -> str:
    assert choice.shares is not None  # noqa: S101 - it is a blend
    if choice.kind == "experts":
        return f"by {choice.shares.column}"
    pairs = zip(choice.recipes, choice.shares.weights[0], strict=True)
    return ", ".join(f"{recipe.name} {share:.0%}" for recipe, share in pairs if share)


def _result(trial: _Trial, detail: str, spec: PipelineSpec) -> CandidateResult:
    return CandidateResult(
        name=trial.choice.name,
        validation_loss=losses.metric_value(spec.metric, trial.losses),
        fit_seconds=sum(member.fit_seconds for member in trial.members),
        detail=detail,
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
