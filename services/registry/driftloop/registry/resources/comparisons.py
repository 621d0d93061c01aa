"""REST: each candidate against the champion of its day, on the same rows."""

from datetime import datetime

from driftloop.contracts.describe import compared_in_words
from driftloop.contracts.events import Evaluation, GateCheck, ModelTrained, Span
from driftloop.registry.resources.listing import (
    After,
    Listed,
    OfPipeline,
    cut,
    newest,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit, Name, Number
from driftloop.registry.tables import RegistryTrial, RegistryVersion
from driftloop.registry.views import Trial, trial_view
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from pydantic import BaseModel, Field
from sqlmodel import Session, col

CONFIDENCE = 0.95


class Difference(BaseModel):
    """Candidate minus champion per row; below zero the candidate is better."""

    mean: float
    low: float = Field(description=f"of the {CONFIDENCE:.0%} interval")
    high: float
    p_value: float = Field(description="of so good a difference, if there is none")
    row_count: int


class Comparison(BaseModel):
    """A version against the champion of its day, or a no-skill baseline."""

    pipeline: str = Field(examples=["bike-demand"])
    version: int = Field(examples=[3])
    at: datetime
    champion_version: int | None = Field(
        description="null: there was none; the baseline counts", examples=[2]
    )
    metric: str = Field(examples=["mae"])
    candidate: float = Field(examples=[31.2])
    champion: float | None = Field(examples=[58.9])
    baseline: float = Field(examples=[142.0])
    difference: Difference
    holdout_span: Span
    gate: list[GateCheck]
    in_words: str
    candidate_trial: Trial | None
    champion_trial: Trial | None


def comparison_routes(context: Context) -> GuardedRouter:
    """Return the routes about comparisons; they change nothing."""
    router = ApiRouter(tags=["comparisons"], dependencies=[needs("read")])

    @router.get("/comparisons")
    def comparisons(
        who: AskedBy,
        pipeline: OfPipeline = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[Comparison]:
        """List what candidates were compared with, newest first."""
        table, after = RegistryVersion, place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            wanted = [col(table.pipeline).in_(names)]
            found = newest(session, table, "event_id", wanted, after, limit + 1)
            return cut(found, limit, after, lambda row: _view(session, row))

    @router.get("/models/{pipeline}/versions/{version}/comparison")
    def comparison(pipeline: Name, version: Number) -> Comparison:
        """Show what a version was compared with, by how much, on which rows."""
        with context.session() as session:
            return _view(session, context.version(session, pipeline, version))

    return router


def _view(session: Session, row: RegistryVersion) -> Comparison:
    worth: Evaluation = ModelTrained.model_validate(row.trained).evaluation
    low, high = worth.comparison.interval(CONFIDENCE)

    def trial(version: int | None) -> Trial | None:
        key = (row.pipeline, version)
        return trial_view(session.get(RegistryTrial, key) if version else None)

    return Comparison(
        pipeline=row.pipeline,
        version=row.version,
        at=row.fact().at,
        champion_version=worth.champion_version,
        metric=worth.metric,
        candidate=worth.candidate,
        champion=worth.champion,
        baseline=worth.baseline,
        difference=Difference(
            mean=worth.comparison.mean_difference,
            low=low,
            high=high,
            p_value=worth.comparison.p_value,
            row_count=worth.comparison.row_count,
        ),
        holdout_span=worth.holdout_span,
        gate=[GateCheck.model_validate(check) for check in row.gate],
        in_words=compared_in_words(worth),
        candidate_trial=trial(row.version),
        champion_trial=trial(worth.champion_version),
    )
