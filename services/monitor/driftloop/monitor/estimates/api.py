"""Performance over HTTP: windows as estimated and settled, where labels stand."""

from datetime import datetime, timedelta
from typing import Annotated

from driftloop.contracts.base import PipelineName
from driftloop.contracts.estimates import LabelsAwaited
from driftloop.contracts.events import PipelineApplied
from driftloop.monitor.estimates import awaiting, windows
from driftloop.monitor.estimates.combining import Past, scored
from driftloop.monitor.estimates.windows import Window
from driftloop.monitor.labelling import queue
from driftloop.monitor.state import Watch
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.state import StateView
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlmodel import Session


class MetricView(BaseModel):
    """One metric of a window; what is not known is null."""

    metric: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = Field(default=None, description="of the estimate, at 95 %")
    measured: float | None = None


class WindowView(BaseModel):
    """A window of scored rows."""

    window: int
    version: int
    start: datetime
    end: datetime
    row_count: int
    labelled_count: int = Field(description="of the rows that are kept of it")
    kept_count: int
    is_settled: bool = Field(description="its labels have landed")
    verdict: str = Field(description="ok, degrading or cannot_tell, before labels")
    reason: str
    metrics: list[MetricView]


class ScoreView(BaseModel):
    """How good estimates of the newest version's windows have been."""

    version: int
    metric: str
    window_count: int
    mean_absolute_error: float | None
    level_error: float | None
    coverage: float | None


class PerformanceView(BaseModel):
    """How good a pipeline's model is, oldest window first."""

    pipeline: str
    labels: LabelsAwaited
    score: ScoreView | None = None
    windows: list[WindowView]


def performance_router(
    engine: Engine, pipelines: StateView[PipelineApplied]
) -> GuardedRouter:
    """Return the routes, which read."""
    routes = GuardedRouter(prefix="/v1", dependencies=[needs("read")], tags=["views"])

    @routes.get("/pipelines/{name}/performance")
    def performance(
        name: Annotated[PipelineName, Path()],
        newest: Annotated[int, Query(ge=1, le=windows.MAX_SETTLED)] = 100,
    ) -> PerformanceView:
        """Tell performance by window: estimated before labels land, measured after."""
        applied = pipelines.get(name)
        if applied is None:
            raise HTTPException(
                404, f"there is no pipeline {name!r}; driftloop apply FILE makes one"
            )
        horizon = timedelta(days=applied.spec.data.label_horizon_days)
        with Session(engine) as session:
            return performance_view(session, name, applied.spec.metric, horizon, newest)

    return routes


def performance_view(
    session: Session, name: str, metric: str, horizon: timedelta, newest: int
) -> PerformanceView:
    """Return a pipeline's newest windows."""
    state = queue.state_of(session, name)
    watch = Watch.model_validate_json(state) if state else Watch(pipeline=name)
    seen, scored_until = watch.seen_until, watch.windows.scored_until
    watermark = min(seen, scored_until) if seen and scored_until else None
    found = windows.newest(session, name, newest)
    return PerformanceView(
        pipeline=name,
        labels=awaiting.awaited(watch.windows, watermark, horizon),
        score=_score(session, name, found[-1].version, metric) if found else None,
        windows=[_view(window) for window in found],
    )


def _view(window: Window) -> WindowView:
    note = window.note
    said = {one.metric: one for one in note.estimates}
    names = list(dict.fromkeys([*said, *note.realised]))
    return WindowView(
        window=window.number,
        version=window.version,
        start=window.start,
        end=window.end,
        row_count=window.row_count,
        labelled_count=note.labelled_count,
        kept_count=window.kept_count,
        is_settled=window.is_settled,
        verdict=note.verdict,
        reason=note.reason,
        metrics=[
            MetricView(
                metric=name,
                estimate=said[name].value if name in said else None,
                low=said[name].low if name in said else None,
                high=said[name].high if name in said else None,
                measured=note.realised[name].value if name in note.realised else None,
            )
            for name in names
        ],
    )


def _score(session: Session, name: str, version: int, metric: str) -> ScoreView:
    past = [
        Past(one, window.note.realised[metric].value)
        for window in windows.settled(session, name, version, windows.MAX_SETTLED)
        for one in window.note.estimates
        if one.metric == metric and metric in window.note.realised
    ]
    found = scored(past)
    return ScoreView(
        version=version,
        metric=metric,
        window_count=found.window_count,
        mean_absolute_error=found.mean_absolute_error,
        level_error=found.level_error,
        coverage=found.coverage,
    )
