"""Metrics of the registry beside those of the runtime."""

from prometheus_client import Counter

OPENLINEAGE = Counter(
    "driftloop_registry_openlineage_total",
    "Lineage events told to the collector, by outcome: sent, refused (left out for "
    "good) or retried",
    ["outcome"],
)
