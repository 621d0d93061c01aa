"""The scorer: the model server, for the stream and for requests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from driftloop.contracts.events import DriftDetected, DriftEnded, ServingDesired
from driftloop.contracts.pipeline import PRODUCTION, AnswersLogged
from driftloop.runtime.service import Parts, Runtime, Service
from driftloop.scorer.answer_log import AnswerLog
from driftloop.scorer.answering import Desk, Traffic, traffic_reporter
from driftloop.scorer.api import routers
from driftloop.scorer.asked import ROW_ID, Asked
from driftloop.scorer.batching import Batching
from driftloop.scorer.door import doors_first
from driftloop.scorer.drifted import Drifts
from driftloop.scorer.explaining.pool import Explaining
from driftloop.scorer.explaining.wish import Times
from driftloop.scorer.handlers import HANDLERS, ScorerDeps
from driftloop.scorer.jobs.loop import ScoringJobs
from driftloop.scorer.loader import Loader, announcer, heartbeat, model_opener
from driftloop.scorer.open_inference.rpc import grpc_server
from driftloop.scorer.profiles import processor_count
from driftloop.scorer.replay import Replays
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Shelf
from driftloop.scorer.tables import (
    ScorerAnnounced,
    ScorerJob,
    ScorerReplayed,
    ScorerTally,
    ScorerTried,
)


def _shared(number: int | None) -> socket.socket | None:
    """Return the socket that came from who started the process.

    Raises
    ------
    ValueError
        When there is none of this number.
    """
    if number is None:
        return None
    try:
        found = socket.socket(fileno=number)
        is_open = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"DRIFTLOOP_SCORER_SHARED_FD={number}: {error}") from error
    if not is_open:
        raise ValueError(f"DRIFTLOOP_SCORER_SHARED_FD={number}: it does not listen")
    return found


@contextmanager
def build(runtime: Runtime[ScorerSettings]) -> Iterator[Parts[ScorerDeps]]:
    settings = runtime.settings
    shelf = Shelf()
    desired = runtime.state(ServingDesired)
    open_model = model_opener(runtime.store, settings, runtime.engine)
    loader = Loader(
        shelf,
        open_model,
        announcer(runtime.outbox, settings.replica, settings.lease_seconds),
        runtime.stopping,
        settings.replica,
        settings.environment,
    )
    desired.on_change(loader.wish)

    def log_mode(pipeline: str) -> AnswersLogged | None:
        applied = runtime.pipelines.get(pipeline)
        return None if applied is None else applied.spec.serving.log

    traffic, asked = Traffic(), Asked(log_mode, settings.log_memory_bytes)
    explaining = Explaining(
        settings.explain_threads,
        settings.explain_waiting,
        Times(settings.explain_ms, settings.explain_most_ms),
    )
    drifts = Drifts()
    runtime.state(DriftDetected).on_change(drifts.detected)
    runtime.state(DriftEnded).on_change(drifts.ended)
    batching = Batching(settings.batch_calls or processor_count())
    desk = Desk(
        shelf, traffic, asked, explaining, drifts, batching, settings.batch_ms / 1000
    )

    def hidden(pipeline: str) -> set[str] | None:
        applied = runtime.pipelines.get(pipeline)
        if applied is None:
            return None
        rules, row_id = applied.spec.data.privacy, applied.spec.data.id
        return {ROW_ID if name == row_id else name for name in rules}

    answer_log = AnswerLog(
        asked, runtime.publisher, runtime.store, settings.replica, hidden,
        runtime.stopping, settings.environment,
    )  # fmt: skip

    replays = Replays(
        shelf, desired, runtime.pipelines, settings, runtime.store, runtime.engine,
        runtime.outbox, runtime.stopping,
    )  # fmt: skip

    wake = threading.Event()
    jobs = ScoringJobs(runtime, shelf, open_model, wake)

    def is_ready() -> bool:
        return desired.caught_up.is_set() and loader.is_settled()

    doors = routers(desk, settings, is_ready)
    yield Parts(
        ScorerDeps(
            session=runtime.session,
            pipelines=runtime.pipelines,
            shelf=shelf,
            desired=desired,
            replica=settings.replica,
            report_every=settings.report_every,
            environment=settings.environment,
            wake=wake,
            recheck=jobs.recheck,
        ),
        routers=doors,
        mount=lambda app: doors_first(app, doors),
        background=[
            partial(loader.run, desired.caught_up),
            heartbeat(
                loader, desired.caught_up, runtime.outbox, settings, runtime.stopping
            ),
            traffic_reporter(
                traffic,
                runtime.outbox,
                settings.replica,
                runtime.stopping,
                settings.environment,
            ),
            answer_log.run,
            replays.run,
            *([jobs.run] if settings.environment == PRODUCTION else []),
        ],
        ready={"models": loader.is_settled},
        servers={
            "grpc": lambda guard: grpc_server(
                desk,
                guard,
                is_ready,
                settings.http_host,
                settings.grpc_port,
                settings.max_body_bytes,
                is_shared=settings.shared_fd is not None,
                tls=settings.tls,
            )
        },
        shared=_shared(settings.shared_fd),
    )
    explaining.close()
    answer_log.close()


SERVICE = Service(
    name="scorer",
    settings=ScorerSettings,
    handlers=HANDLERS,
    build=build,
    tables=[ScorerTally, ScorerAnnounced, ScorerTried, ScorerReplayed, ScorerJob],
    states=[ServingDesired, DriftDetected, DriftEnded],
)
