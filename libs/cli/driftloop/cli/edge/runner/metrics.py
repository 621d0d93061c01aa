"""Metrics in Prometheus' text format; as the scorer's where they mean the same."""

import threading
from collections import Counter

from .package import Package

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of a call's duration, in seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts since the start; thread-safe."""

    def __init__(self, package: Package) -> None:
        self._labels = f'pipeline="{package.pipeline}"'
        self._version = package.version
        self._lock = threading.Lock()
        self._rows = Counter[str]()
        self._statuses = Counter[int]()
        self._buckets = Counter[float]()
        self._seconds = 0.0
        self._calls = 0
        self._unfamiliar = 0

    def called(self, rows: int, failed: int, seconds: float) -> None:
        """Count one call of the model."""
        with self._lock:
            self._rows["answered"] += rows - failed
            self._rows["failed"] += failed
            self._calls += 1
            self._seconds += seconds
            for bound in BUCKETS:
                if seconds <= bound:
                    self._buckets[bound] += 1

    def unfamiliar(self, rows: int) -> None:
        with self._lock:
            self._unfamiliar += rows

    def requested(self, status: int) -> None:
        """Count one request by the status of its answer."""
        with self._lock:
            self._statuses[status] += 1

    def page(self, waiting_bytes: int, sent: int, refused: int) -> str:
        """Return all of it.

        Parameters
        ----------
        waiting_bytes : what waits to be sent home.
        sent, refused : files that home has taken, or will never take.
        """
        of = self._labels
        with self._lock:
            lines = [
                _head("driftloop_model_serving_info", "gauge", "1: it answers"),
                f'driftloop_model_serving_info{{{of},version="{self._version}"}} 1',
                _head("driftloop_edge_rows_total", "counter", "rows by outcome"),
                *(
                    f'driftloop_edge_rows_total{{{of},outcome="{outcome}"}} '
                    f"{self._rows[outcome]}"
                    for outcome in ("answered", "failed")
                ),
                _head("driftloop_edge_requests_total", "counter", "by HTTP status"),
                *(
                    f'driftloop_edge_requests_total{{{of},status="{status}"}} {count}'
                    for status, count in sorted(self._statuses.items())
                ),
                _head(
                    "driftloop_edge_unfamiliar_rows_total",
                    "counter",
                    "rows with a value that the model has not learned from",
                ),
                f"driftloop_edge_unfamiliar_rows_total{{{of}}} {self._unfamiliar}",
                _head(
                    "driftloop_edge_call_duration_seconds",
                    "histogram",
                    "one call of the model, whatever its number of rows",
                ),
                *(
                    f"driftloop_edge_call_duration_seconds_bucket"
                    f'{{{of},le="{bound:g}"}} {self._buckets[bound]}'
                    for bound in BUCKETS
                ),
                "driftloop_edge_call_duration_seconds_bucket"
                f'{{{of},le="+Inf"}} {self._calls}',
                f"driftloop_edge_call_duration_seconds_sum{{{of}}} {self._seconds:.9g}",
                f"driftloop_edge_call_duration_seconds_count{{{of}}} {self._calls}",
            ]
        lines += [
            _head("driftloop_edge_spool_bytes", "gauge", "what waits to be sent home"),
            f"driftloop_edge_spool_bytes{{{of}}} {waiting_bytes}",
            _head(
                "driftloop_edge_sent_total", "counter", "reports and samples at home"
            ),
            f'driftloop_edge_sent_total{{{of},outcome="taken"}} {sent}',
            f'driftloop_edge_sent_total{{{of},outcome="refused"}} {refused}',
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> str:
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}"
