"""Every metric of the trainer, with its unit and meaning."""

from prometheus_client import Counter, Gauge, Histogram

JOBS = Counter(
    "driftloop_trainer_jobs_total",
    "Jobs by how they ended: trained, failed; or repeated: crashed, fault",
    ["pipeline", "outcome"],
)
JOB_DURATION = Histogram(
    "driftloop_trainer_job_duration_seconds",
    "From taking a job to its end, of one try",
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
WARM_CHILD = Gauge(
    "driftloop_trainer_warm_child", "1 while a process waits with its libraries loaded"
)
