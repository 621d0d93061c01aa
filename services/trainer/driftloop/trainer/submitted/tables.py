"""The models that people registered, until there is a job that measures them."""

import json

from driftloop.contracts.base import Meta, origin_from
from driftloop.contracts.events import ModelSubmitted
from sqlmodel import Field, Session, SQLModel, col, select


class Submission(SQLModel, table=True):
    """A model that somebody registered.

    Attributes
    ----------
    job_id : given by the registry; the same submission, told twice, has it twice.
    event : the whole ``model-submitted``.
    state : "waiting" for rows, or for the job before it; or "done": it has a job.
    """

    __tablename__ = "trainer_submission"
    number: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(unique=True)
    pipeline: str = Field(index=True)
    event_id: str
    event: str
    origin: str
    state: str = "waiting"

    def submitted(self) -> ModelSubmitted:
        return ModelSubmitted.model_validate_json(self.event)

    def meta(self) -> Meta:
        """Where the submission came from, so that its chain goes on."""
        return origin_from(json.loads(self.origin))


def is_known(session: Session, job_id: str) -> bool:
    """Whether a submission was taken before."""
    query = select(Submission.job_id).where(Submission.job_id == job_id)
    return session.exec(query).first() is not None


def waiting_submissions(session: Session, pipeline: str) -> list[Submission]:
    """Return a pipeline's submissions that have no job yet, oldest first."""
    query = (
        select(Submission)
        .where(Submission.pipeline == pipeline, Submission.state == "waiting")
        .order_by(col(Submission.number))
    )
    return list(session.exec(query))
