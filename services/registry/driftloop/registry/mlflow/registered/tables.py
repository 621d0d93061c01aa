"""The read model of what clients say about registered models; see ``apply.py``."""

from driftloop.registry.mlflow.columns import LONG, PACKED
from sqlmodel import Field, SQLModel


class RegisteredModel(SQLModel, table=True):
    """A registered model; of a pipeline: what a client wrote about it."""

    __tablename__ = "mlflow_model"
    name: str = Field(primary_key=True)
    description: str = ""
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)


class ModelTag(SQLModel, table=True):
    """A tag of a registered model (``version`` 0), or of a version."""

    __tablename__ = "mlflow_model_tag"
    __table_args__ = PACKED
    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: str


class ModelVersion(SQLModel, table=True):
    """A version that a client registered.

    Without a ``source`` it is a note on a version of the loop's own, which may be read
    from the log after it. A deleted one stays: its number is not used again. One with
    a ``job_id`` is a pipeline's: the loop decides about it.
    """

    __tablename__ = "mlflow_model_version"
    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_type=LONG)
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)
    description: str | None = None
    user: str = ""
    source: str | None = None
    location: str | None = None
    run_id: str = Field(default="", index=True)
    run_link: str = ""
    model_id: str = ""
    status: str = "READY"
    job_id: str = Field(default="", index=True)
    stage: str = "None"
    is_deleted: bool = False


class ModelAlias(SQLModel, table=True):
    """What an alias means."""

    __tablename__ = "mlflow_model_alias"
    __table_args__ = PACKED
    name: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: int = Field(sa_type=LONG)


class ModelMove(SQLModel, table=True):
    """An alias, or a version's stage, changed: who, when, by which event.

    Attributes
    ----------
    subject : ``alias:<name>`` or ``stage``.
    version : whose it became; of an alias that is gone, whose it was.
    before, after : versions as text, or stages; None: there was none.
    """

    __tablename__ = "mlflow_model_move"
    revision: int = Field(primary_key=True, sa_type=LONG)
    version: int = Field(primary_key=True, sa_type=LONG)
    subject: str = Field(primary_key=True)
    name: str = Field(index=True)
    at_ms: int = Field(sa_type=LONG)
    by: str
    before: str | None = None
    after: str | None = None


REGISTERED_TABLES: list[type[SQLModel]] = [
    RegisteredModel,
    ModelTag,
    ModelVersion,
    ModelAlias,
    ModelMove,
]
