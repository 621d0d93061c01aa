"""Takes requests: a job is stored, and what is to become of it."""

from driftloop.contracts.base import chain_of
from driftloop.contracts.scoring import (
    ScoringCancelRequested,
    ScoringRequested,
    job_id_of,
)
from driftloop.runtime.errors import Skip
from driftloop.runtime.leases import OPEN_STATES
from driftloop.scorer.tables import ScorerJob
from sqlmodel import Session

UNASKED = "unasked"
"""State of a job of which only the cancellation has come; nobody takes it."""


def ask(session: Session, event: ScoringRequested) -> None:
    """Store the job of a request.

    Raises
    ------
    Skip
        When the request has come before, from another source.
    """
    job_id = job_id_of(event.meta.id)
    job = session.get(ScorerJob, job_id, with_for_update=True)
    if job is not None and job.request is not None:
        raise Skip("repeat")
    job = job or ScorerJob(id=job_id, pipeline=event.pipeline)
    job.state = "waiting"
    job.asked_at = event.meta.time.isoformat()
    job.request = event.model_dump_json()
    job.origin = chain_of(event.meta)
    session.add(job)


def cancel(session: Session, event: ScoringCancelRequested) -> None:
    """Note that a job is to end, and take it from whoever works on it.

    Whoever takes it next ends it, so that one place says how jobs end. The request may
    come after its cancellation: two topics have no common order.

    Raises
    ------
    Skip
        When it has ended.
    """
    job = session.get(ScorerJob, event.job_id, with_for_update=True)
    if job is None:
        job = ScorerJob(id=event.job_id, pipeline=event.pipeline, state=UNASKED)
    elif job.pipeline != event.pipeline or job.state not in (*OPEN_STATES, UNASKED):
        raise Skip("already_ended")
    elif job.state != UNASKED:
        job.state, job.lease_owner = "waiting", None
        job.lease_epoch += 1
        job.lease_expires_at = 0
    job.cancelled_by, job.cancel_reason = event.requested_by, event.reason
    session.add(job)
