"""Where a job fits its models, and how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import fitting
from driftloop.trainer.candidates import Watch
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.checkpoints import FitProgress, FitWatch
from driftloop.trainer.continuing import Heritage
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.recipes import Recipe

Progress = Callable[[str, float, str, FitProgress | None], None]
"""Called with a step's name, the done share of the job, a detail, and the fit."""


@dataclass(frozen=True)
class Workshop:
    """Where and how a job fits its models; what is done is not done again.

    Attributes
    ----------
    folder : of the job, for checkpoints.
    allowed_imports : modules that a candidate of the file may be imported from.
    searched : trials of each candidate's search that are made again; None: as the
        pipeline file says.
    heritage : of the champion, to go on from; None: nothing is.
    """

    spec: PipelineSpec
    machine: Machine | int
    folder: Path
    progress: Progress
    allowed_imports: tuple[str, ...] = ()
    searched: Mapping[str, int] | None = None
    heritage: Heritage | None = None

    def fit(self, recipe: Recipe, stage: str, rows: pa.Table, part: "Part") -> Fitted:
        """Return a recipe's model of this stage, from its checkpoint if it has one."""
        fitted = fitting.saved(self.folder, stage, recipe.name)
        if fitted is None:
            path = self.folder / f"{stage}-{recipe.name}.checkpoint"
            watch = FitWatch(recipe.name, path, part.report)
            fitted = made(
                recipe, rows, self.spec, self.machine, watch, self.allowed_imports
            )
            fitting.save(fitted, self.folder, stage)
            watch.forget()
        return fitted

    def forget(self, name: str, stage: str) -> None:
        """Remove the models of a stage, of all its folds."""
        for pattern in (f"{stage}-{name}.*", f"{stage}fold*-{name}.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)


def made(
    recipe: Recipe,
    rows: pa.Table,
    spec: PipelineSpec,
    machine: Machine | int,
    watch: Watch,
    allowed_imports: tuple[str, ...] = (),
) -> Fitted:
    """Fit a recipe on rows in order of time."""
    fitted = fitting.fit(
        recipe.name, recipe.rows(rows), spec, machine, watch, recipe.weights,
        allowed_imports, recipe.parameters, recipe.heritage,
    )  # fmt: skip
    return replace(fitted, parameters=fitted.parameters | recipe.facts)


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
