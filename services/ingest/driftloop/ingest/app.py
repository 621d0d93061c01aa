"""Ingest: rows of any form and door become batches, each row once."""

from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.ingest.api import Door, router
from driftloop.ingest.edge_api import router as edge_router
from driftloop.ingest.handlers import HANDLERS, IngestDeps, Patience
from driftloop.ingest.keys import open_keys
from driftloop.ingest.payload_door import PayloadDoor
from driftloop.ingest.payloads_api import router as payloads_router
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.pulling import Puller
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.sources_api import router as sources_router
from driftloop.ingest.subjects import router as subjects_router
from driftloop.ingest.tables import TABLES
from driftloop.runtime.payloads import open_payloads
from driftloop.runtime.service import Parts, Runtime, Service


@contextmanager
def build(runtime: Runtime[IngestSettings]) -> Iterator[Parts[IngestDeps]]:
    """Connect the handlers and the HTTP door to this process."""
    keys = open_keys(runtime.settings)
    store = open_payloads(runtime.settings)
    deps = IngestDeps(
        session=runtime.session,
        pipelines=runtime.pipelines,
        patience=Patience(runtime.settings.unknown_pipeline_grace_seconds),
        privacy_keys=keys,
        payloads=store,
    )
    payloads = PayloadDoor(store, runtime.engine, keys)
    privacy = PrivacyDoor(runtime.engine, keys)
    door = Door(
        runtime.settings,
        runtime.publisher,
        runtime.pipelines,
        privacy,
        payloads.attached,
    )
    people = subjects_router(
        runtime.settings, runtime.publisher, runtime.store, runtime.pipelines, privacy
    )
    puller = Puller(
        runtime.settings,
        runtime.engine,
        runtime.publisher,
        runtime.pipelines,
        privacy,
        runtime.stopping,
        payloads.attached,
    )
    routers = [
        router(door),
        payloads_router(door, store),
        sources_router(puller),
        edge_router(door, runtime.store),
        people,
    ]
    yield Parts(deps, routers=routers, background=[puller.run])


SERVICE = Service(
    name="ingest",
    settings=IngestSettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
)
