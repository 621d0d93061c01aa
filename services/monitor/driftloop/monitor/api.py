"""The monitor's HTTP interface: what it sees, read only."""

from collections.abc import Callable
from typing import Annotated

from driftloop.contracts.base import PipelineName
from driftloop.monitor.settings import MonitorSettings
from driftloop.monitor.views import Window, WindowViews
from driftloop.runtime.http import require_token
from fastapi import APIRouter, Depends, HTTPException, Path, Query
from pydantic import BaseModel

MAX_WINDOWS = 1000


class Windows(BaseModel):
    """Counts by window of event time. After a crash some may be too high."""

    pipeline: str
    windows: list[Window]


def router(
    settings: MonitorSettings, views: WindowViews, is_known: Callable[[str], bool]
) -> APIRouter:
    """Return the routes; all need the token."""
    routes = APIRouter(
        prefix="/v1", dependencies=[Depends(require_token(settings))], tags=["views"]
    )

    @routes.get("/pipelines/{name}/windows")
    def windows(
        name: Annotated[PipelineName, Path()],
        newest: Annotated[int, Query(ge=1, le=MAX_WINDOWS)] = 100,
    ) -> Windows:
        """Rows validated, quarantined, labelled and scored, the newest windows."""
        if not is_known(name):
            raise HTTPException(
                404, f"there is no pipeline {name!r}; driftloop apply FILE makes one"
            )
        return Windows(pipeline=name, windows=views.windows(name)[-newest:])

    return routes
