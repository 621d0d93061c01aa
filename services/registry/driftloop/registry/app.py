"""The registry: versions, gate, approvals, and the REST interface."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from driftloop.contracts.base import Meta
from driftloop.contracts.identity import TokenChanged
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import BY_NAME
from driftloop.registry.access import first_admin
from driftloop.registry.alerting import tables as alert_tables
from driftloop.registry.alerting.delivery import Deliverer as AlertDeliverer
from driftloop.registry.alerting.rest import Alerting
from driftloop.registry.alerting.seeing import Sight
from driftloop.registry.alerting.sending import sender_of
from driftloop.registry.api import api_router
from driftloop.registry.audit import Anchoring
from driftloop.registry.changes.rest import Streams
from driftloop.registry.deadlines import TOPICS as APPROVAL_TOPICS
from driftloop.registry.deadlines import Deadlines
from driftloop.registry.egress import Egress
from driftloop.registry.every_table import EVERY_TABLE
from driftloop.registry.handlers import HANDLERS, Deps
from driftloop.registry.inspection import Inspection
from driftloop.registry.lineage.forwarding import Forwarder
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.mlflow.depot import Depot
from driftloop.registry.mlflow.files import ROOM, Limits
from driftloop.registry.mlflow.parts import Signer, signing_secret
from driftloop.registry.mlflow.paths import calls_first
from driftloop.registry.mlflow.proxy import Proxy
from driftloop.registry.mlflow.registered.packages import Packages
from driftloop.registry.mlflow.registered.promotion import as_registered
from driftloop.registry.mlflow.registered.shown import show_all
from driftloop.registry.mlflow.registered.submission import Submissions
from driftloop.registry.mlflow.routes import mlflow_router
from driftloop.registry.mlflow.sweep import Sweep
from driftloop.registry.mlflow.tracking import Tracking
from driftloop.registry.mlflow.webhooks.calls import Webhooks
from driftloop.registry.mlflow.webhooks.delivery import Deliverer
from driftloop.registry.mlflow.webhooks.sealing import open_sealer
from driftloop.registry.recorded import RecordedVerdicts, read_recorded
from driftloop.registry.requests import Requests
from driftloop.registry.rest import Context
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.artifacts import open_store
from driftloop.runtime.database import reading_engine
from driftloop.runtime.envelope import attributes_of, meta_of
from driftloop.runtime.errors import Reject
from driftloop.runtime.follower import Partition, bounds_of, message_at
from driftloop.runtime.replicas import SessionLock
from driftloop.runtime.service import Background, Parts, Runtime, Service


@contextmanager
def build(runtime: Runtime[RegistrySettings]) -> Iterator[Parts[Deps]]:
    settings = runtime.settings
    inspection = Inspection(runtime.store, settings.trusted_keys_folder)
    inspection.start()
    show_all(runtime.engine)
    recorded = RecordedVerdicts()
    reader = reading_engine(runtime.engine)
    requests = Requests(runtime.publisher, runtime.store, runtime.tracer)
    tokens = runtime.state(TokenChanged)
    context = Context(
        reader,
        settings,
        requests,
        runtime.pipelines,
        inspection.file,
        partial(_read_at, runtime),
    )
    read = partial(
        read_recorded,
        recorded,
        settings.broker,
        settings.kafka_config,
        runtime.store,
        runtime.stopping,
    )
    tracking = Tracking(runtime)
    deadlines = Deadlines(
        runtime.engine, runtime.outbox, partial(_ends, settings, APPROVAL_TOPICS)
    )
    anchoring = Anchoring(runtime.engine, runtime.outbox)
    depot = Depot(
        tracking.journal,
        open_store(settings, ROOM),
        Limits(
            settings.mlflow_file_max_bytes,
            settings.mlflow_owner_max_bytes,
            settings.mlflow_owner_max_files,
            settings.mlflow_total_max_bytes,
        ),
        settings.home / "uploads",
    )
    submissions = Submissions(
        runtime.pipelines, depot.store, runtime.store, inspection.file
    )
    sweep = Sweep(tracking.journal, depot.store)
    proxy = Proxy(depot, Signer(signing_secret(settings)))
    webhooks = Webhooks(
        Egress(
            settings.webhook_hosts,
            settings.webhook_schemes,
            settings.webhook_private_addresses,
        ),
        open_sealer(settings.home, settings.webhook_key),
    )
    deliverer = Deliverer(
        tracking.journal,
        webhooks,
        settings.webhook_give_up_seconds,
        tracking.is_current,
    )
    alerting = Alerting(
        Sight(reader, partial(_specs, runtime), settings.alerts),
        sender_of(settings),
        settings.alert_console_url,
    )
    telling = AlertDeliverer(
        runtime.engine,
        runtime.outbox,
        SessionLock(runtime.engine, "driftloop/registry/alerts"),
        alerting.sight,
        alerting.sender,
        runtime.pipelines.caught_up.is_set,
        settings.alert_console_url,
        settings.alert_give_up_seconds,
        partial(_ends, settings, alert_tables.TOPICS),
    )
    streams = Streams(threading.Semaphore(settings.change_streams), runtime.stopping)
    reporter = Reporter(settings.openlineage_namespace, settings.broker)
    background: list[Background] = [
        read,
        tracking.begin,
        tracking.publish,
        partial(deliverer.run, runtime.stopping),
        partial(telling.run, runtime.stopping),
        partial(sweep.run, runtime.stopping),
        partial(anchoring.run, runtime.stopping),
        partial(deadlines.run, runtime.stopping),
        partial(first_admin, settings, tokens, requests, runtime.stopping),
    ]
    if settings.openlineage_url:
        forwarder = Forwarder(settings, runtime.engine, runtime.stopping)
        background.append(forwarder.run)
    mlflow = mlflow_router(
        tracking.journal,
        proxy,
        Packages(runtime.engine, inspection.manifest, inspection.file),
        as_registered(context, recorded, submissions),
        webhooks.calls(),
    )
    try:
        yield Parts(
            Deps(
                runtime.session,
                runtime.pipelines,
                inspection,
                recorded,
                runtime.store,
                reporter,
                tracking.journal.has,
            ),
            routers=[api_router(context, tokens, streams, alerting), mlflow],
            mount=lambda app: calls_first(app, mlflow),
            background=background,
            ready={
                "recorded_verdicts": recorded.complete.is_set,
                "tracking": tracking.is_current,
            },
        )
    finally:
        tracking.journal.close()
        inspection.close()
        reader.dispose()


def _ends(settings: RegistrySettings, topics: Sequence[str]) -> dict[Partition, int]:
    """Return where topics end; those that are empty are left out."""
    found = bounds_of(settings.broker, topics, settings.kafka_config)
    return {place: end for place, (start, end) in found.items() if start < end}


def _specs(runtime: Runtime[RegistrySettings]) -> list[PipelineSpec]:
    names = sorted(runtime.pipelines)
    return [runtime.pipelines[name].spec for name in names]


def _read_at(
    runtime: Runtime[RegistrySettings], topic: str, partition: int, offset: int
) -> Meta | None:
    """Return the origin of an event of the log; None: there is none."""
    if topic not in BY_NAME:
        return None
    settings = runtime.settings
    found = message_at(settings.broker, topic, partition, offset, settings.kafka_config)
    try:
        return meta_of(attributes_of(found), found) if found else None
    except Reject:
        return None


SERVICE = Service(
    name="registry",
    settings=RegistrySettings,
    handlers=HANDLERS,
    build=build,
    tables=EVERY_TABLE,
)
