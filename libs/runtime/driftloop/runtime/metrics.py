"""Every metric of the runtime, with its unit and meaning."""

import re

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""Source: W3C Trace Context, version 00."""

EVENTS_CONSUMED = Counter(
    "driftloop_events_consumed_total",
    "Messages taken from a topic, by how they ended: handled, repeat, skipped, "
    "rejected or dead_lettered",
    ["service", "topic", "outcome"],
)
EVENTS_PRODUCED = Counter(
    "driftloop_events_produced_total",
    "Events acknowledged by the broker",
    ["service", "topic"],
)
HANDLER_DURATION = Histogram(
    "driftloop_handler_duration_seconds",
    "From decoded message to committed transaction",
    ["service", "topic"],
    buckets=LATENCY_BUCKETS,
)
EVENT_AGE = Histogram(
    "driftloop_event_age_seconds",
    "Wall-clock age of an event when its handler starts",
    ["service", "topic"],
    buckets=(*LATENCY_BUCKETS, 600, 3600),
)
HTTP_DURATION = Histogram(
    "driftloop_http_request_duration_seconds",
    "From a request to the beginning of its answer, by the route's pattern",
    ["service", "route", "method", "status"],
    buckets=HTTP_BUCKETS,
)
RETRIES = Counter(
    "driftloop_retries_total", "Tries after a passing fault", ["service", "topic"]
)
OUTBOX_UNSENT = Gauge(
    "driftloop_outbox_unsent", "Stored events not yet acknowledged", ["service"]
)
CONSUMER_LAG = Gauge(
    "driftloop_consumer_lag", "Messages behind the end of the topics", ["service"]
)

ARTIFACT_BYTES = Counter(
    "driftloop_artifact_written_bytes_total",
    "Bytes that this process wrote to the artifact store; what was there counts not "
    "again where the store is a folder",
)


def exemplar_of(traceparent: str | None) -> dict[str, str] | None:
    """Return what leads from a measurement to its trace; None: it has none.

    >>> exemplar_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    {'trace_id': '0af7651916cd43dd8448eb211c80319c'}
    >>> exemplar_of("anything else")
    """
    found = TRACE_ID.fullmatch(traceparent) if traceparent else None
    return {"trace_id": found[1]} if found else None


__all__ = [
    "ARTIFACT_BYTES",
    "CONSUMER_LAG",
    "EVENTS_CONSUMED",
    "EVENTS_PRODUCED",
    "EVENT_AGE",
    "HANDLER_DURATION",
    "HTTP_BUCKETS",
    "HTTP_DURATION",
    "OUTBOX_UNSENT",
    "REGISTRY",
    "RETRIES",
    "exemplar_of",
]
