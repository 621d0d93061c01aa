"""The deployer's one table: the state of each pipeline's serving."""

from driftloop.deployer.state import Serving
from sqlmodel import Field, Session, SQLModel


class DeployerServing(SQLModel, table=True):
    """A pipeline's state as JSON; it is only ever read and written whole."""

    __tablename__ = "deployer_serving"
    pipeline: str = Field(primary_key=True)
    state: str


def load_serving(session: Session, pipeline: str) -> Serving | None:
    """Return a pipeline's state, locked until the transaction ends; None: no state."""
    row = session.get(DeployerServing, pipeline, with_for_update=True)
    return None if row is None else Serving.model_validate_json(row.state)


def save_serving(session: Session, serving: Serving) -> None:
    """Store a pipeline's state as part of the caller's transaction."""
    session.merge(
        DeployerServing(pipeline=serving.pipeline, state=serving.model_dump_json())
    )
