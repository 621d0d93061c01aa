"""Metrics of the validator beside those of the runtime."""

from driftloop.runtime.metrics import LATENCY_BUCKETS
from prometheus_client import Counter, Histogram

ROWS = Counter(
    "driftloop_validator_rows_total",
    "Rows checked, by outcome: validated or quarantined",
    ["pipeline", "kind", "outcome"],
)

WARNINGS = Counter(
    "driftloop_validator_warnings_total",
    "Findings of checks that took no rows out",
    ["pipeline", "check"],
)
LABELS = Counter(
    "driftloop_validator_labels_total",
    "Labels that came before_row, and rows whose label was there before them "
    "(met_by_row); the difference still waits",
    ["pipeline", "when"],
)
STEPS = Histogram(
    "driftloop_validator_step_seconds",
    "Time of one batch in a step: ids (which ones are known, and noting them), checks, "
    "dataset (the append)",
    ["step"],
    buckets=LATENCY_BUCKETS,
)
