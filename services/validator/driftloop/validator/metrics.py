"""Metrics of the validator beside those of the runtime."""

from prometheus_client import Counter

ROWS = Counter(
    "driftloop_validator_rows_total",
    "Rows checked, by outcome: validated or quarantined",
    ["pipeline", "kind", "outcome"],
)
