"""Metrics of ingest beside those of the runtime."""

from prometheus_client import Counter, Gauge

NOTED_ROWS = Counter(
    "driftloop_ingest_noted_rows_total",
    "New rows that are late, out_of_order (older than the newest of their source) or "
    "revised (a known id with other content)",
    ["pipeline", "kind", "note"],
)
PRIVATE_ROWS = Counter(
    "driftloop_ingest_private_rows_total",
    "Rows of pipelines with privacy rules, by where the rules were applied: door "
    "(before the raw topic) or topic (upstream published them as they were)",
    ["pipeline", "where"],
)
ROWS = Counter(
    "driftloop_ingest_rows_total",
    "Rows that arrived, by what they were: new or duplicate",
    ["pipeline", "kind", "outcome"],
)
BUSY = Counter(
    "driftloop_ingest_busy_total", "HTTP requests answered 429, as there was no room"
)
IN_WORK = Gauge("driftloop_ingest_in_work_bytes", "Bytes of HTTP requests in work")
PULLED = Counter(
    "driftloop_ingest_pulled_messages_total",
    "Messages that Kafka has from sources of pipelines",
    ["pipeline", "source"],
)
PULL_PROBLEMS = Counter(
    "driftloop_ingest_pull_problems_total",
    "Looks at a source that failed, and files that could not be read",
    ["pipeline", "source"],
)
PAYLOADS = Counter(
    "driftloop_ingest_payloads_total",
    "Payloads that the store took, by how they came: upload, or inline (in a row)",
    ["pipeline", "way"],
)
