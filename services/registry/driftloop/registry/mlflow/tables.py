"""The read model of what MLflow's clients write.

A run has a number besides its id: eight bytes instead of 32 in each of its rows.
Values of metrics that are not numbers are kept as 0 with ``is_nan``, as SQLite has
no NaN. No foreign keys: rows are only written by ``apply.py``, in order.
"""

from typing import Any

from driftloop.registry.mlflow.columns import LONG, PACKED
from driftloop.registry.mlflow.registered.tables import REGISTERED_TABLES
from driftloop.registry.mlflow.webhooks.tables import WEBHOOK_TABLES
from sqlalchemy import JSON, Float, Index
from sqlmodel import Column, Field, SQLModel


class TrackingState(SQLModel, table=True):
    """One row: the revision of the last change that is in the tables."""

    __tablename__ = "mlflow_state"
    singleton: int = Field(primary_key=True)
    revision: int = Field(sa_type=LONG)


class TrackingAhead(SQLModel, table=True):
    """Changes that were read from the log before one that comes before them."""

    __tablename__ = "mlflow_ahead"
    revision: int = Field(primary_key=True, sa_type=LONG)
    event: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class Experiment(SQLModel, table=True):
    """An experiment."""

    __tablename__ = "mlflow_experiment"
    experiment_id: int = Field(primary_key=True, sa_type=LONG)
    name: str = Field(unique=True)
    artifact_location: str
    is_active: bool = True
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)


class ExperimentTag(SQLModel, table=True):
    """A tag of an experiment."""

    __tablename__ = "mlflow_experiment_tag"
    __table_args__ = PACKED
    experiment_id: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: str


class Run(SQLModel, table=True):
    """A run."""

    __tablename__ = "mlflow_run"
    __table_args__ = (Index("mlflow_run_of", "experiment_id", "start_ms"),)
    number: int = Field(primary_key=True, sa_type=LONG)
    run_id: str = Field(unique=True)
    experiment_id: int = Field(sa_type=LONG)
    name: str
    user: str
    status: str = "RUNNING"
    start_ms: int = Field(sa_type=LONG)
    end_ms: int | None = Field(default=None, sa_type=LONG)
    artifact_uri: str
    is_active: bool = True


class RunTag(SQLModel, table=True):
    """A tag of a run."""

    __tablename__ = "mlflow_run_tag"
    __table_args__ = PACKED
    run: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: str


class RunParam(SQLModel, table=True):
    """A parameter of a run."""

    __tablename__ = "mlflow_param"
    __table_args__ = PACKED
    run: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: str


class RunMetric(SQLModel, table=True):
    """One value of a metric; the key is the order of a history."""

    __tablename__ = "mlflow_metric"
    __table_args__ = PACKED
    run: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    timestamp_ms: int = Field(primary_key=True, sa_type=LONG)
    step: int = Field(primary_key=True, sa_type=LONG)
    value: float = Field(primary_key=True, sa_type=Float)
    is_nan: bool = Field(primary_key=True)


class LatestMetric(SQLModel, table=True):
    """The value of a metric with the highest step, then time, then value."""

    __tablename__ = "mlflow_latest_metric"
    __table_args__ = PACKED
    run: int = Field(primary_key=True, sa_type=LONG)
    key: str = Field(primary_key=True)
    value: float
    timestamp_ms: int = Field(sa_type=LONG)
    step: int = Field(sa_type=LONG)
    is_nan: bool


class TrackedDataset(SQLModel, table=True):
    """A dataset that runs of an experiment used."""

    __tablename__ = "mlflow_dataset"
    experiment_id: int = Field(primary_key=True, sa_type=LONG)
    name: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    source_type: str
    source: str
    schema_text: str | None = None
    profile: str | None = None


class RunInput(SQLModel, table=True):
    """A run used a dataset. ``context`` is the tag that searches ask for."""

    __tablename__ = "mlflow_input"
    run: int = Field(primary_key=True, sa_type=LONG)
    name: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    context: str | None = None
    tags: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class RunModel(SQLModel, table=True):
    """A run used a model (``is_output`` false), or made it at a step."""

    __tablename__ = "mlflow_run_model"
    position: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    run: int = Field(index=True, sa_type=LONG)
    model_id: str
    is_output: bool
    step: int = Field(default=0, sa_type=LONG)


class LoggedModel(SQLModel, table=True):
    """A model that a client logged."""

    __tablename__ = "mlflow_logged_model"
    __table_args__ = (Index("mlflow_logged_model_of", "experiment_id", "created_ms"),)
    model_id: str = Field(primary_key=True)
    experiment_id: int = Field(sa_type=LONG)
    name: str
    model_type: str | None = None
    source_run_id: str | None = None
    artifact_location: str
    status: str = "PENDING"
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)
    is_active: bool = True


class LoggedModelParam(SQLModel, table=True):
    """A parameter of a logged model."""

    __tablename__ = "mlflow_logged_model_param"
    __table_args__ = PACKED
    model_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str


class LoggedModelTag(SQLModel, table=True):
    """A tag of a logged model."""

    __tablename__ = "mlflow_logged_model_tag"
    __table_args__ = PACKED
    model_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str


class LoggedModelMetric(SQLModel, table=True):
    """A metric that measures a logged model; empty names: on no dataset."""

    __tablename__ = "mlflow_logged_model_metric"
    __table_args__ = PACKED
    model_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    timestamp_ms: int = Field(primary_key=True, sa_type=LONG)
    step: int = Field(primary_key=True, sa_type=LONG)
    run_id: str = Field(primary_key=True)
    value: float
    is_nan: bool
    dataset_name: str = ""
    dataset_digest: str = ""


class StoredFile(SQLModel, table=True):
    """A file of a run or a logged model; its bytes lie under their digest."""

    __tablename__ = "mlflow_file"
    __table_args__ = (
        Index("mlflow_file_digest", "sha256"),
        Index("mlflow_file_size", "size_bytes"),  # their sum is read from it alone
    )
    owner: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    sha256: str
    size_bytes: int = Field(sa_type=LONG)


TABLES: list[type[SQLModel]] = [
    TrackingState,
    TrackingAhead,
    Experiment,
    ExperimentTag,
    Run,
    RunTag,
    RunParam,
    RunMetric,
    LatestMetric,
    TrackedDataset,
    RunInput,
    RunModel,
    LoggedModel,
    LoggedModelParam,
    LoggedModelTag,
    LoggedModelMetric,
    StoredFile,
    *REGISTERED_TABLES,
    *WEBHOOK_TABLES,
]
"""The order also is that of the state hash."""
