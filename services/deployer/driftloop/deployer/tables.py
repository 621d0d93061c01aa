"""The deployer's one table: the state of each pipeline's serving, by environment."""

from driftloop.contracts.events import place_of
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.deployer.state import Serving
from sqlmodel import Field, Session, SQLModel


class DeployerServing(SQLModel, table=True):
    """A state as JSON; it is only ever read and written whole.

    ``pipeline`` is its name for production, ``name@environment`` for another.
    """

    __tablename__ = "deployer_serving"
    pipeline: str = Field(primary_key=True)
    state: str


def load_serving(
    session: Session, pipeline: str, environment: str = PRODUCTION
) -> Serving | None:
    """Return a state, locked until the transaction ends; None: there is none."""
    key = place_of(pipeline, environment)
    row = session.get(DeployerServing, key, with_for_update=True)
    return None if row is None else Serving.model_validate_json(row.state)


def save_serving(session: Session, serving: Serving) -> None:
    """Store a state as part of the caller's transaction."""
    key = place_of(serving.pipeline, serving.environment)
    session.merge(DeployerServing(pipeline=key, state=serving.model_dump_json()))
