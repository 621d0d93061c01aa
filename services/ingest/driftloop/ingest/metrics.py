"""Metrics of ingest beside those of the runtime."""

from prometheus_client import Counter

ROWS = Counter(
    "driftloop_ingest_rows_total",
    "Rows that arrived, by what they were: new or duplicate",
    ["pipeline", "kind", "outcome"],
)
