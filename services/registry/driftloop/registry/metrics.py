"""Metrics of the registry beside those of the runtime."""

from prometheus_client import Counter, Gauge, Histogram

OPENLINEAGE = Counter(
    "driftloop_registry_openlineage_total",
    "Lineage events told to the collector, by outcome: sent, refused (left out for "
    "good) or retried",
    ["outcome"],
)
ALERTS_OPEN = Gauge(
    "driftloop_alerts_open", "Alerts that go on and that nobody has acknowledged"
)
ALERTS_WAITING = Gauge(
    "driftloop_alert_notices_waiting", "Notices that are due and not delivered yet"
)
ALERT_NOTICES = Counter(
    "driftloop_alert_notices_total",
    "Notices by outcome: delivered, given_up, silenced (waits) or deduplicated",
    ["pipeline", "outcome"],
)
ALERT_FAILURES = Counter(
    "driftloop_alert_failures_total",
    "Calls of a channel that its receiver did not take; each is tried again",
    ["pipeline", "channel"],
)
ALERT_CALL_SECONDS = Histogram(
    "driftloop_alert_call_seconds", "How long one call of a receiver took", ["kind"]
)
ALERT_DELAY_SECONDS = Histogram(
    "driftloop_alert_delay_seconds",
    "From the moment a notice was due until its receiver had it",
    buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400),
)
