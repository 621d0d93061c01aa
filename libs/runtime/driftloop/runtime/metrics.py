"""Every metric of the runtime, with its unit and meaning."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120)

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
RETRIES = Counter(
    "driftloop_retries_total", "Tries after a passing fault", ["service", "topic"]
)
OUTBOX_UNSENT = Gauge(
    "driftloop_outbox_unsent", "Stored events not yet acknowledged", ["service"]
)
CONSUMER_LAG = Gauge(
    "driftloop_consumer_lag", "Messages behind the end of the topics", ["service"]
)

__all__ = [
    "CONSUMER_LAG",
    "EVENTS_CONSUMED",
    "EVENTS_PRODUCED",
    "EVENT_AGE",
    "HANDLER_DURATION",
    "OUTBOX_UNSENT",
    "REGISTRY",
    "RETRIES",
]
