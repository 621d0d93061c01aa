"""From a registered model to the job that measures it, once there are rows for that."""

import threading
from collections.abc import Iterator

from driftloop.contracts.base import Event, chain_of
from driftloop.contracts.events import ModelSubmitted, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.errors import Skip
from driftloop.runtime.recorded import Recorded
from driftloop.trainer import given
from driftloop.trainer.request import SubmittedModel
from driftloop.trainer.submitted.tables import (
    Submission,
    is_known,
    waiting_submissions,
)
from driftloop.trainer.tables import Origin, TrainerJob
from driftloop.trainer.told import has_begun
from sqlalchemy.event import listen
from sqlmodel import Session

REASON = "registered"


def take(session: Session, event: ModelSubmitted) -> None:
    """Keep a submission.

    Raises
    ------
    Skip
        When it is kept already: a registry that reads the log anew tells it again.
    """
    if is_known(session, event.job_id):
        raise Skip("submission_known")
    origin = Origin.model_validate(chain_of(event.meta))
    session.add(
        Submission(
            job_id=event.job_id,
            pipeline=event.pipeline,
            event_id=event.meta.id,
            event=event.model_dump_json(),
            origin=origin.model_dump_json(),
        )
    )
    session.flush()


def measure(
    session: Session,
    wake: threading.Event,
    pipeline: str,
    spec: PipelineSpec,
    recorded: Recorded,
) -> Iterator[Event]:
    """Store the job of the oldest submission that waits, if it can be measured now."""
    for row in waiting_submissions(session, pipeline):
        if session.get(TrainerJob, row.job_id) is not None:  # told of, and ended
            row.state = "done"
            continue
        event = row.submitted()
        trigger = Trigger(
            event_id=row.event_id,
            event_type=ModelSubmitted.topic(),
            reason=REASON,
            requested_by=event.submitted_by,
        )
        model = SubmittedModel(
            version=event.version, model=event.model, source=event.source
        )
        started = given.job_of(session, spec, trigger, row.job_id, row.origin, model)
        if started is None:
            return
        row.state = "done"
        session.flush()
        listen(session, "after_commit", lambda _: wake.set())
        if not has_begun(recorded, pipeline, row.job_id):
            yield started
