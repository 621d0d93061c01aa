"""The monitor's HTTP interface: what it sees, read only."""

from collections.abc import Callable
from typing import Annotated

from driftloop.contracts.base import PipelineName
from driftloop.monitor.views import Window, WindowViews
from driftloop.runtime.identity.routing import GuardedRouter, needs
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel

MAX_WINDOWS = 1000


class Windows(BaseModel):
    """Counts by window of event time. After a crash some may be too high."""

    pipeline: str
    windows: list[Window]


def router(views: WindowViews, is_known: Callable[[str], bool]) -> GuardedRouter:
    """Return the routes, which read."""
    routes = GuardedRouter(prefix="/v1", dependencies=[needs("read")], tags=["views"])

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
