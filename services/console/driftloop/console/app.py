"""The console: one page that shows the chain live; it only reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from driftloop.console.access import Access, SecurityHeaders
from driftloop.console.api import STATIC, page_router
from driftloop.console.handlers import HANDLERS
from driftloop.console.metrics import LogCollector
from driftloop.console.reading import Reader
from driftloop.console.settings import ConsoleSettings
from driftloop.runtime.handlers import Deps
from driftloop.runtime.metrics import REGISTRY
from driftloop.runtime.service import Parts, Runtime, Service
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles


def mount(app: FastAPI) -> None:
    """Add the page's files and its headers."""
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(SecurityHeaders)


@contextmanager
def build(runtime: Runtime[ConsoleSettings]) -> Iterator[Parts[Deps]]:
    settings = runtime.settings
    reader = Reader(settings.broker, settings.kafka_config, runtime.store)
    router = page_router(Access(settings), reader, settings, runtime.stopping)
    collector = LogCollector(reader.tell, lambda: reader.is_complete)
    REGISTRY.register(collector)
    yield Parts(
        Deps(session=runtime.session, pipelines=runtime.pipelines),
        routers=[router],
        background=[partial(reader.run, runtime.stopping)],
        ready={"log_read": lambda: reader.is_complete},
        mount=mount,
    )
    REGISTRY.unregister(collector)


SERVICE = Service(
    name="console",
    settings=ConsoleSettings,
    handlers=HANDLERS,
    build=build,
)
