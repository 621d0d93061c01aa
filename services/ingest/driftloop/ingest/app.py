"""Ingest: rows of any form and door become batches, each row once."""

from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.ingest.api import Door, router
from driftloop.ingest.handlers import HANDLERS, IngestDeps, Patience
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.tables import TABLES
from driftloop.runtime.service import Parts, Runtime, Service


@contextmanager
def build(runtime: Runtime[IngestSettings]) -> Iterator[Parts[IngestDeps]]:
    """Connect the handlers and the HTTP door to this process."""
    deps = IngestDeps(
        session=runtime.session,
        pipelines=runtime.pipelines,
        patience=Patience(runtime.settings.unknown_pipeline_grace_seconds),
    )
    door = Door(runtime.settings, runtime.publisher, runtime.pipelines)
    yield Parts(deps, routers=[router(door)])


SERVICE = Service(
    name="ingest",
    settings=IngestSettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
)
