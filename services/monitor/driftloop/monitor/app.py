"""The monitor: quality, drift and performance; says why before it says train."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from driftloop.monitor.api import router
from driftloop.monitor.estimates.api import performance_router
from driftloop.monitor.handlers import HANDLERS
from driftloop.monitor.labelling.api import labels_router
from driftloop.monitor.packages import package_opener
from driftloop.monitor.settings import MonitorSettings
from driftloop.monitor.tables import TABLES
from driftloop.monitor.turn import MonitorDeps
from driftloop.monitor.views import WindowViews
from driftloop.runtime.service import Parts, Runtime, Service


@contextmanager
def build(runtime: Runtime[MonitorSettings]) -> Iterator[Parts[MonitorDeps]]:
    settings, pipelines = runtime.settings, runtime.pipelines
    views = WindowViews(
        runtime.store,
        timedelta(minutes=settings.view_window_minutes),
        settings.view_windows,
    )
    yield Parts(
        MonitorDeps(
            session=runtime.session,
            pipelines=pipelines,
            open_package=package_opener(runtime.store, settings),
        ),
        routers=[
            router(views, lambda name: name in pipelines),
            labels_router(runtime.engine, pipelines),
            performance_router(runtime.engine, pipelines),
        ],
        configure_faust=views.configure,
    )


SERVICE = Service(
    name="monitor",
    settings=MonitorSettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
    driver="faust",
)
"""On Faust for its windowed tables; see docs/adr for what it is and is not used for."""
