"""The registry: versions, gate, approvals, and the REST interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from driftloop.registry.api import api_router
from driftloop.registry.handlers import HANDLERS, Deps
from driftloop.registry.inspection import Inspection
from driftloop.registry.recorded import RecordedVerdicts, read_recorded
from driftloop.registry.requests import Requests
from driftloop.registry.rest import Context
from driftloop.registry.settings import RegistrySettings
from driftloop.registry.tables import TABLES
from driftloop.runtime.service import Parts, Runtime, Service


@contextmanager
def build(runtime: Runtime[RegistrySettings]) -> Iterator[Parts[Deps]]:
    settings = runtime.settings
    inspection = Inspection(runtime.store, settings.trusted_keys_folder)
    inspection.start()
    recorded = RecordedVerdicts()
    context = Context(
        runtime.engine,
        settings,
        Requests(runtime.publisher, runtime.store, runtime.tracer),
        runtime.pipelines,
        inspection.file,
    )
    read = partial(
        read_recorded,
        recorded,
        settings.broker,
        settings.kafka_config,
        runtime.store,
        runtime.stopping,
    )
    try:
        yield Parts(
            Deps(runtime.session, runtime.pipelines, inspection, recorded),
            routers=[api_router(context)],
            background=[read],
            ready={"recorded_verdicts": recorded.complete.is_set},
        )
    finally:
        inspection.close()


SERVICE = Service(
    name="registry",
    settings=RegistrySettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
)
