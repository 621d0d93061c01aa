"""Trainings as the log tells of them: what started, how far it is, how it ended."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import publish_event
from driftloop.cli.log import Entry, follow_log, read_log
from driftloop.contracts import events as e
from driftloop.contracts.describe import compared

State = Literal["running", "done", "failed", "cancelled"]
ANSWER_TIMEOUT_S = 60.0
JOB_EVENTS = (
    e.TrainingStarted,
    e.TrainingProgressed,
    e.ModelTrained,
    e.TrainingFailed,
    e.TrainingCancelled,
)
TOPICS = tuple(event.topic() for event in JOB_EVENTS)
ANSWERS = (e.TrainingCancelled, e.TrainingCancelRefused)


@dataclass
class Job:
    """One training.

    Attributes
    ----------
    state : "running" also while it waits for a free trainer.
    outcome : the model's worth, the error, or who cancelled it and why.
    """

    id: str
    pipeline: str
    reason: str
    started_at: datetime
    state: State = "running"
    ended_at: datetime | None = None
    outcome: str = ""
    progress: e.TrainingProgressed | None = None
    cpu_seconds: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state != "running"

    def as_json(self) -> dict[str, Any]:
        """Return the job for programs."""
        return {
            "job_id": self.id,
            "pipeline": self.pipeline,
            "state": self.state,
            "reason": self.reason,
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "outcome": self.outcome,
            "cpu_seconds": self.cpu_seconds,
            "progress": self.progress.model_dump(mode="json")
            if self.progress
            else None,
        }


class Jobs:
    """All jobs of the events so far; topics may come in any order."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._started: dict[str, Job] = {}
        self._later: dict[str, list[Entry]] = {}
        for entry in entries:
            self.take(entry)

    def take(self, entry: Entry) -> None:
        event = entry.event
        if isinstance(event, e.TrainingStarted):
            job = Job(
                event.job_id, event.pipeline, event.trigger.reason, entry.meta.time
            )
            if self._started.setdefault(job.id, job) is job:
                for waiting in self._later.pop(job.id, []):
                    _tell(job, waiting)
        elif isinstance(event, JOB_EVENTS):
            known = self._started.get(event.job_id)
            if known:
                _tell(known, entry)
            else:
                self._later.setdefault(event.job_id, []).append(entry)

    def newest_first(self, pipeline: str | None = None) -> list[Job]:
        found = (j for j in self._started.values() if pipeline in (None, j.pipeline))
        return sorted(found, key=lambda job: job.started_at, reverse=True)

    def named(self, text: str) -> Job:
        """Return the job of an id, or of its unmistakable beginning.

        Raises
        ------
        CommandError
            When there is none, or more than one.
        """
        found = [job for job in self._started.values() if job.id.startswith(text)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} jobs begin with" if found else "no job"
        raise CommandError(f"{what} {text!r}; see: driftloop jobs list")


def _tell(job: Job, entry: Entry) -> None:
    event = entry.event
    if isinstance(event, e.TrainingProgressed):
        last = job.progress
        if last is None or event.meta.time >= last.meta.time:
            job.progress = event
        return
    job.ended_at = entry.meta.time
    if isinstance(event, e.ModelTrained):
        job.state, job.cpu_seconds = "done", event.cpu_seconds
        job.outcome = f"{event.algorithm}: {compared(event.evaluation)}"
    elif isinstance(event, e.TrainingFailed):
        job.state, job.cpu_seconds = "failed", event.cpu_seconds
        job.outcome = event.error
    elif isinstance(event, e.TrainingCancelled):
        job.state, job.outcome = "cancelled", f"by {event.cancelled_by}: {event.reason}"


def read_jobs(installation: Installation) -> Jobs:
    """Return all jobs that the log tells of."""
    return Jobs(read_log(installation.bootstrap, TOPICS, installation.store))


def follow(installation: Installation, job: str, show: Callable[[Job], None]) -> Job:
    """Show a job anew at each event of it, until it is over."""
    jobs, lock, over = Jobs(), threading.Lock(), threading.Event()

    def take(entry: Entry) -> None:
        with lock:
            jobs.take(entry)
            if getattr(entry.event, "job_id", None) != job:
                return
            found = next((j for j in jobs.newest_first() if j.id == job), None)
            if found:
                show(found)
                if found.is_over:
                    over.set()

    follower = follow_log(installation.bootstrap, TOPICS, installation.store, take)
    try:
        over.wait()
    finally:
        follower.stop()
    with lock:
        return jobs.named(job)


def cancel(
    installation: Installation, job: Job, by: str, reason: str
) -> e.TrainingCancelled | e.TrainingCancelRefused:
    """Ask for a job's end and wait for the answer.

    Raises
    ------
    CommandError
        When no trainer answers.
    """
    wish = e.TrainingCancelRequested(
        pipeline=job.pipeline, job_id=job.id, requested_by=by, reason=reason
    )
    asked = publish_event(installation, wish)
    answers: list[e.TrainingCancelled | e.TrainingCancelRefused] = []
    answered = threading.Event()

    def take(entry: Entry) -> None:
        if entry.meta.causation_id == asked and isinstance(entry.event, ANSWERS):
            answers.append(entry.event)
            answered.set()

    topics = [event.topic() for event in ANSWERS]
    follower = follow_log(installation.bootstrap, topics, installation.store, take)
    answered.wait(ANSWER_TIMEOUT_S)
    follower.stop()
    if not answers:
        raise CommandError(
            f"no answer within {ANSWER_TIMEOUT_S:.0f} s; the wish is stored, and the "
            "trainer takes it when it is back: driftloop status"
        )
    return answers[0]
