"""Every metric of the scorer, with its unit and meaning."""

from functools import lru_cache

from driftloop.runtime.metrics import LATENCY_BUCKETS
from prometheus_client import Counter, Gauge, Histogram

ROWS = Counter(
    "driftloop_scorer_rows_total",
    "Rows given to a version, by its role, where they came from (stream, requests, "
    "replay or dataset) and whether it had a finite answer (answered or failed)",
    ["pipeline", "role", "door", "outcome"],
)
CALL_DURATION = Histogram(
    "driftloop_scorer_call_duration_seconds",
    "One call of a model, whatever its number of rows",
    ["pipeline", "role", "door"],
    buckets=LATENCY_BUCKETS,
)
JOINED_REQUESTS = Counter(
    "driftloop_scorer_joined_requests_total",
    "Requests that waited for a busy version and were put to it together, in one call",
    ["pipeline"],
)
UNFAMILIAR = Counter(
    "driftloop_scorer_unfamiliar_requests_total",
    "Requests with a value that the version which answered has not learned from",
    ["pipeline"],
)
EXPLANATIONS = Counter(
    "driftloop_scorer_explanations_total",
    "Requests whose answers were to be explained, by what came of it: explained, "
    "timed_out (less or nothing was found in the time), refused (too many wait, or "
    "this version is not explained), failed",
    ["pipeline", "outcome"],
)
EXPLANATION_DURATION = Histogram(
    "driftloop_scorer_explanation_duration_seconds",
    "Time that an answer waited for its explanation",
    ["pipeline"],
    buckets=LATENCY_BUCKETS,
)
LOGGED_ROWS = Counter(
    "driftloop_scorer_logged_rows_total",
    "Rows of answered requests that are on requests-answered",
    ["pipeline"],
)
LEFT_OUT_ROWS = Counter(
    "driftloop_scorer_left_out_rows_total",
    "Rows of answered requests that are not on requests-answered, by reason: no_room "
    "(the broker is away or slow), sampled (serving.log), rules_unknown (the pipeline "
    "is), stopped (the broker was away at the end)",
    ["pipeline", "reason"],
)
JOBS = Counter(
    "driftloop_scorer_jobs_total",
    "Datasets to be scored as a whole, by outcome: scored, failed, cancelled, crashed "
    "(a bug, tried again), fault (something was away, tried again)",
    ["pipeline", "outcome"],
)
SERVING_INFO = Gauge(
    "driftloop_model_serving_info",
    "1 for each version in memory that answers or is compared",
    ["pipeline", "version", "role"],
)


def count_call(
    pipeline: str, role: str, door: str, rows: int, failed: int, seconds: float
) -> None:
    """Count one call of a model."""
    duration, answered = _of_calls(pipeline, role, door)
    duration.observe(seconds)
    answered.inc(rows - failed)
    if failed:
        ROWS.labels(pipeline, role, door, "failed").inc(failed)


@lru_cache(1024)
def _of_calls(pipeline: str, role: str, door: str) -> tuple[Histogram, Counter]:
    """Return what counts one kind of call: to look it up takes a while each time."""
    return (
        CALL_DURATION.labels(pipeline, role, door),
        ROWS.labels(pipeline, role, door, "answered"),
    )
