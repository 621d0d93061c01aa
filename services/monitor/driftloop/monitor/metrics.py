"""Metrics of the monitor beside those of the runtime."""

from prometheus_client import Counter, Gauge

VERDICTS = Counter(
    "driftloop_monitor_verdicts_total",
    "Verdicts told, by cause; a retried message may count again",
    ["pipeline", "cause"],
)
LOSS = Gauge(
    "driftloop_monitor_loss",
    "Loss over the newest labelled rows, in the unit of the pipeline's metric",
    ["pipeline", "role"],
)
LABELLED_ROWS = Counter(
    "driftloop_monitor_labelled_rows_total",
    "Rows whose prediction and label have met",
    ["pipeline"],
)
LATE_LABELS = Counter(
    "driftloop_monitor_late_labels_total",
    "Labels that are not used, as they are of a time beyond the label horizon",
    ["pipeline"],
)
WANTED_LABELS = Counter(
    "driftloop_monitor_wanted_labels_total",
    "Rows that people were asked to label; a retried message may count again",
    ["pipeline"],
)
OPEN_FAULTS = Gauge(
    "driftloop_monitor_open_faults", "Columns whose values are wrong now", ["pipeline"]
)
FEATURE_DRIFT = Gauge(
    "driftloop_monitor_feature_drift_ratio",
    "How far a column's newest window is from its reference, over the least distance "
    "that counts as large: from 1 on it has moved, if that is no chance",
    ["pipeline", "feature", "detector"],
)
ESTIMATE = Gauge(
    "driftloop_monitor_estimate",
    "Performance of the newest window, estimated before its labels are there",
    ["pipeline", "metric"],
)
ESTIMATE_ERROR = Gauge(
    "driftloop_monitor_estimate_error",
    "Mean absolute error of the estimates of windows whose labels have landed",
    ["pipeline", "metric"],
)
ESTIMATE_COVERAGE = Gauge(
    "driftloop_monitor_estimate_coverage",
    "Share of such windows in which the estimate's interval held the truth",
    ["pipeline"],
)
LABEL_WAIT = Gauge(
    "driftloop_monitor_label_wait_days",
    "Event time for which the oldest scored rows without a label have waited",
    ["pipeline"],
)
BUSINESS = Gauge(
    "driftloop_monitor_business",
    "Metrics of the pipeline file's own, over the newest window that has them",
    ["pipeline", "metric"],
)
