"""A service from its parts: settings, database, driver, HTTP, a clean end."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import uvicorn
import uvloop
from driftloop.contracts.base import Event
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.identity import TokenChanged
from driftloop.contracts.topics import WITH_DOOR, consumed_by
from driftloop.runtime import metrics
from driftloop.runtime.alone import alone_on
from driftloop.runtime.artifacts import ArtifactStore, check_store, open_store
from driftloop.runtime.collecting import keep_what_is_built
from driftloop.runtime.database import open_database
from driftloop.runtime.drivers.confluent import ConfluentDriver, ConfluentPublisher
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.handlers import Chunk, Deps, EventHandler, handler_table
from driftloop.runtime.http import http_app
from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.identity.routing import GuardedRouter, check_router
from driftloop.runtime.identity.trail import Trail
from driftloop.runtime.outbox import OutboxRelay, Stopping, source_of
from driftloop.runtime.production import refuse_unsafe
from driftloop.runtime.recorded import Log, Recorded, read_recorded
from driftloop.runtime.runner import Runner
from driftloop.runtime.settings import Settings, load_settings
from driftloop.runtime.state import StateView
from driftloop.runtime.telemetry import log, start_logging, start_tracing
from driftloop.runtime.transport import Driver, Message, Publisher
from fastapi import FastAPI
from opentelemetry.trace import Tracer
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, SQLModel

S = TypeVar("S", bound=Settings)
D = TypeVar("D", bound=Deps)

EXIT_BUG = 1
STOP_TIMEOUT_S = 20
SHARED_POLL_S = 0.1
POSITION_INTERVAL_S = 1.0
logger = log(__name__)


@dataclass(frozen=True)
class Runtime(Generic[S]):
    """What a service builds its dependencies and background work from."""

    settings: S
    engine: Engine
    store: ArtifactStore
    outbox: OutboxRelay
    publisher: Publisher
    tracer: Tracer
    pipelines: StateView[PipelineApplied]
    states: dict[type[Event], StateView[Any]]
    session: Session
    stopping: threading.Event
    recorded: Recorded = field(default_factory=Recorded)

    def state(self, event: type[Event]) -> StateView[Any]:
        """Return the view of a topic that the service follows from its beginning."""
        return self.states[event]


Background = Callable[[], None]
"""Runs in its own thread until ``runtime.stopping`` is set; an exception ends
the process."""


OpenServer = Callable[[Guard], AbstractAsyncContextManager[str]]
"""Opens a server that lets pass whom the guard knows; its value is the address."""


@dataclass(frozen=True)
class Parts(Generic[D]):
    """What a service's ``build`` returns.

    Attributes
    ----------
    deps : given to each handler.
    routers : added to the process's HTTP interface; each route declares what it does,
        or the process does not start.
    background : loops beside the consumer.
    ready : names of further conditions of readiness, with their tests.
    mount : last touch on the application (static files, middleware).
    configure_faust : adds tables to the Faust app of a service on that driver, and
        returns what feeds them; see ``drivers.faust.Configure``.
    servers : by protocol, those beside HTTP in the process's event loop.
    shared : a listening socket that HTTP is answered on as well, once it is ready.
    """

    deps: D
    routers: Sequence[GuardedRouter] = ()
    background: Sequence[Background] = ()
    ready: dict[str, Callable[[], bool]] = field(default_factory=dict)
    mount: Callable[[FastAPI], None] | None = None
    configure_faust: Callable[[Any], Callable[[Message], None] | None] | None = None
    servers: Mapping[str, OpenServer] = field(default_factory=dict)
    shared: socket.socket | None = None


@dataclass(frozen=True)
class Service(Generic[S, D]):
    """A service's table of contents; see each ``app.py``.

    Attributes
    ----------
    recorded : what it reads back with a new database; see :class:`Recorded`.
    """

    name: str
    settings: type[S]
    handlers: Sequence[EventHandler | Chunk]
    build: Callable[[Runtime[S]], AbstractContextManager[Parts[D]]]
    tables: Sequence[type[SQLModel]] = ()
    states: Sequence[type[Event]] = ()
    recorded: Sequence[type[Event]] = ()
    driver: Literal["confluent", "faust"] = "confluent"


def run_service(service: Service[S, D]) -> None:
    """Run until SIGTERM or SIGINT; exit 1 on a bug, 3 by the watchdog."""
    settings = load_settings(service.settings, service.name)
    refuse_unsafe(settings)
    start_logging(service.name, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_Process(service, settings).run())
    logger.info("stopped", exit_code=code)
    sys.stdout.flush()
    os._exit(code)  # no thread of a client library may hold the process back


class _Process(Generic[S, D]):
    """One run of a service."""

    def __init__(self, service: Service[S, D], settings: S) -> None:
        self._service = service
        self._settings = settings
        self._stopping = threading.Event()
        self._failed = threading.Event()
        self._was_ready = False
        self._driver: Driver | None = None
        self._runner: Runner[D] | None = None
        self._views: dict[type[Event], StateView[Any]] = {}
        self._ready: dict[str, Callable[[], bool]] = {}
        self._recorded = Recorded()

    @property
    def _name(self) -> str:
        """Of the service, or of the part of it that this replica belongs to."""
        name, part = self._service.name, self._settings.part
        return f"{name}-{part}" if part else name

    async def run(self) -> int:
        with ExitStack() as stack:
            app, threads, servers, shared = self._start(stack)
            sock = _listen(self._settings)
            host, port = sock.getsockname()[:2]
            server = _server(app, self._settings)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, server)
            async with AsyncExitStack() as opened:
                others = {
                    protocol: await opened.enter_async_context(one)
                    for protocol, one in servers.items()
                }
                scheme = "https" if self._settings.http_tls_key else "http"
                logger.info("started", http=f"{scheme}://{host}:{port}", **others)
                watcher = asyncio.create_task(self._end_with_failure(server))
                others_too = asyncio.create_task(self._serve_shared(app, shared))
                await server.serve(sockets=[sock])
                watcher.cancel()
                self._stop(server)
                await others_too
            for thread in threads:
                await asyncio.to_thread(thread.join, STOP_TIMEOUT_S)
        return EXIT_BUG if self._failed.is_set() else 0

    async def _serve_shared(self, app: FastAPI, shared: socket.socket | None) -> None:
        """Answer at a door that others answer at, too, once this one can."""
        if shared is None:
            return
        while not self.health()["ready"]:
            if self._stopping.is_set():
                return
            await asyncio.sleep(SHARED_POLL_S)
        # The process's own has begun the lifespan.
        server = _server(app, self._settings, lifespan="off")
        serving = asyncio.create_task(server.serve(sockets=[shared]))
        while not self._stopping.is_set():
            if serving.done():
                self._failed.set()  # ends the process, to be started again
                break
            await asyncio.sleep(SHARED_POLL_S)
        server.should_exit = True
        await serving

    def _stop(self, server: "uvicorn.Server") -> None:
        server.should_exit = True
        self._stopping.set()
        if self._runner:
            self._runner.stop()
        if self._driver:
            self._driver.stop()

    async def _end_with_failure(self, server: "uvicorn.Server") -> None:
        while not self._failed.is_set():
            await asyncio.sleep(0.1)
        server.should_exit = True

    def _start(
        self, stack: ExitStack
    ) -> tuple[
        FastAPI,
        list[threading.Thread],
        dict[str, AbstractAsyncContextManager[str]],
        socket.socket | None,
    ]:
        service, settings = self._service, self._settings
        url = settings.database_url_for(self._name)
        stack.enter_context(alone_on(url, STOP_TIMEOUT_S))
        engine = open_database(url, service.tables, service.name, settings.part)
        stack.callback(engine.dispose)
        store = open_store(settings)
        check_store(store)
        provider = start_tracing(service.name, settings)
        stack.callback(provider.shutdown)
        tracer = provider.get_tracer("driftloop")
        publisher = ConfluentPublisher(
            settings.broker,
            client_id=f"{self._name}-{settings.replica}",
            client_config=settings.kafka_config,
        )
        stack.callback(publisher.close)
        self._recorded = Recorded(
            source_of(service.name, settings.part), service.recorded
        )
        outbox = OutboxRelay(
            service.name, engine, publisher, store, tracer, settings.replica,
            self._stopping.is_set, settings.part, self._recorded,
        )  # fmt: skip
        stack.callback(outbox.close)
        followed: list[type[Event]] = [PipelineApplied, *service.states]
        if service.name in WITH_DOOR:
            followed.append(TokenChanged)
        self._views = {event: StateView(event) for event in followed}
        runtime = Runtime(
            settings, engine, store, outbox, publisher, tracer,
            self._views[PipelineApplied], self._views, Session(engine),
            self._stopping, self._recorded,
        )  # fmt: skip
        guard = Guard(
            settings,
            self._views.get(TokenChanged),
            self._views[PipelineApplied],
            Trail(service.name, publisher, store),
        )
        parts = stack.enter_context(service.build(runtime))
        self._ready = dict(parts.ready)
        table = handler_table(service.handlers)
        _check_topics(service.name, table.topics)
        self._runner = Runner(
            service.name, table, parts.deps, engine, outbox, store, tracer,
            settings.retry_limit_seconds,
        )  # fmt: skip
        log_of = Log(settings.broker, settings.kafka_config, store)
        read_back = partial(
            read_recorded, self._recorded, engine, table.topics, log_of, self._stopping
        )
        loops: list[Background] = [
            self._follow_states(store), read_back, *parts.background,
        ]  # fmt: skip
        if table.topics:
            loops.append(self._consume(table.topics, outbox, parts))
        if table.is_known:
            loops.append(self._store_positions)
        app = http_app(service.name, settings, self.health, guard)
        for router in parts.routers:
            check_router(router)
            app.include_router(router)
        if parts.mount:
            parts.mount(app)
        servers = {protocol: open_(guard) for protocol, open_ in parts.servers.items()}
        logger.info("built", kept_objects=keep_what_is_built())
        threads = [self._thread(loop) for loop in loops]
        return app, threads, servers, parts.shared

    def _thread(self, loop: Background) -> threading.Thread:
        def guarded() -> None:
            try:
                loop()
            except Stopping:
                pass
            except BaseException:
                logger.exception("background work failed")
                self._failed.set()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _follow_states(self, store: ArtifactStore) -> Background:
        by_topic = {event.topic(): view for event, view in self._views.items()}

        def follow() -> None:
            follower = LogFollower(
                self._settings.broker,
                list(by_topic),
                lambda message: by_topic[message.topic].apply(message, store),
                self._settings.kafka_config,
            )

            def wait_for_stop() -> None:
                while not self._stopping.wait(0.1):
                    if follower.caught_up.is_set():
                        for view in by_topic.values():
                            view.caught_up.set()
                follower.stop()

            threading.Thread(target=wait_for_stop, daemon=True).start()
            follower.run()

        return follow

    def _consume(
        self, topics: Sequence[str], outbox: OutboxRelay, parts: Parts[D]
    ) -> Background:
        group = f"driftloop-{self._name}"
        options: dict[str, Any] = {
            "instance_id": f"{group}-{self._settings.replica}",
            "client_config": self._settings.kafka_config,
        }
        if self._service.driver == "faust":
            from driftloop.runtime.drivers.faust import FaustDriver

            driver: Driver = FaustDriver(
                self._settings.broker,
                group,
                list(topics),
                configure=parts.configure_faust,
                **options,
            )
        else:
            driver = ConfluentDriver(
                self._settings.broker, group, list(topics), **options
            )
        self._driver = driver
        runner = self._runner
        assert runner is not None  # noqa: S101 - set by the caller

        def consume() -> None:
            from driftloop.runtime.drivers.watchdog import Watchdog

            read = [view.caught_up for view in self._views.values()]
            for each in (*read, self._recorded.complete):
                while not each.wait(0.1):
                    if self._stopping.is_set():
                        return
            outbox.recover()
            watchdog = Watchdog(
                driver.status,
                self._settings.watchdog_seconds,
                beats=lambda: runner.beats,
            )
            watchdog.start()
            try:
                driver.run(runner.process, runner.start_offset)
            finally:
                watchdog.stop()
            outbox.tidy()

        return consume

    def _store_positions(self) -> None:
        assert self._runner is not None  # noqa: S101 - set by the caller
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(POSITION_INTERVAL_S)
            try:
                self._runner.store_positions()
            except DBAPIError as error:
                logger.warning("positions not stored", error=str(error))

    def health(self) -> dict[str, Any]:
        """Live, ready, and why not."""
        checks = {"states": all(v.caught_up.is_set() for v in self._views.values())}
        if self._service.recorded:
            checks["recorded"] = self._recorded.complete.is_set()
        lag = None
        if self._driver:
            status = self._driver.status()
            lag = status.lag
            checks["connected"] = status.connected
            checks["assigned"] = bool(status.assigned)
            self._was_ready = self._was_ready or lag == 0
            checks["caught_up"] = self._was_ready
            if lag is not None:
                metrics.CONSUMER_LAG.labels(self._service.name).set(lag)
        checks |= {name: test() for name, test in self._ready.items()}
        return {
            "service": self._service.name,
            "live": not self._failed.is_set(),
            "ready": all(checks.values()) and not self._stopping.is_set(),
            "checks": checks,
            "lag": lag,
            "waiting_for": self._runner.last_error if self._runner else None,
        }


def _check_topics(service: str, handled: Sequence[str]) -> None:
    expected = {topic.name for topic in consumed_by(service)}
    if service != "console" and expected != set(handled):
        raise TypeError(
            f"{service} handles {sorted(handled)}, the topic table says "
            f"{sorted(expected)}"
        )


def _listen(settings: Settings) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((settings.http_host, settings.http_port))
    return sock


def _server(
    app: FastAPI, settings: Settings, lifespan: Literal["auto", "off"] = "auto"
) -> "_Server":
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            workers=1,
            lifespan=lifespan,
            ssl_certfile=settings.http_tls_certificate,
            ssl_keyfile=settings.http_tls_key,
        )
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers (it would re-raise SIGTERM)."""

    def capture_signals(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()
