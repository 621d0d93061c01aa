"""Events of a dataset version that is scored as a whole, outside of service."""

from driftloop.contracts.base import Event, Value, derived_id
from driftloop.contracts.events import DatasetRef, PackageRef, TableRef
from pydantic import Field

LATEST = "latest"
"""In place of a dataset version's name: the newest one."""
NO_LABELS = 0
"""A table of labels begins empty at this version."""


def job_id_of(event_id: str) -> str:
    """Return the job that a ``scoring-requested`` begins: repeats, one job.

    Upstream's ids may be any text; this one can be part of an address.
    """
    return derived_id(event_id, "scoring", 0)


def name_of(dataset: DatasetRef) -> str:
    """Return a dataset version as people write it.

    >>> name_of(DatasetRef(observations=TableRef(uri="here", version=730)))
    '730.0'
    """
    labels = dataset.labels.version if dataset.labels else NO_LABELS
    return f"{dataset.observations.version}.{labels}"


def is_named(dataset: DatasetRef, name: str) -> bool:
    """Whether a person may mean a version: ``730.365``, or ``730`` with any labels.

    >>> ref = DatasetRef(observations=TableRef(uri="here", version=730))
    >>> [is_named(ref, name) for name in ("730", "730.0", "730.1", "73")]
    [True, True, False, False]
    """
    whole = name_of(dataset)
    return name in (whole, whole.partition(".")[0])


class ScoringRequested(Event):
    """A person, or an outside system, wants each row of a dataset version scored.

    The id of the event is that of the request: sent again, it is the same job.
    """

    dataset: str = Field(
        default=LATEST,
        max_length=100,
        description="version of the dataset: 730.365, 730, or latest",
        examples=["730.365"],
    )
    version: int | None = Field(
        default=None, ge=1, description="of the model; None: the champion"
    )
    requested_by: str = Field(max_length=200)
    reason: str = Field(default="", max_length=1000)


class ScoringPlan(Value):
    """What a job reads, with which model, and where its answers go.

    Once told it stays, whatever is in service later.
    """

    dataset: DatasetRef
    version: int = Field(ge=1, description="of the model")
    package: PackageRef
    answers_uri: str = Field(description="a Delta table of the job's own")
    row_count: int = Field(ge=0, description="to be scored")


class ScoringStarted(Event):
    """A scorer has taken a request; from here on it is fixed what is scored."""

    job_id: str
    plan: ScoringPlan
    requested_by: str


class ScoringProgressed(Event):
    """Where a running job is."""

    job_id: str
    version: int
    done_count: int = Field(ge=0, description="rows whose answers are in the table")
    row_count: int = Field(ge=0, description="to be scored")
    done_ratio: float = Field(ge=0, le=1)
    eta_seconds: float | None = Field(
        default=None, ge=0, description="to the end of the job, estimated"
    )
    resumed_from: int | None = Field(
        default=None, ge=0, description="rows that an earlier try had done"
    )


class DatasetScored(Event):
    """Every row of a dataset version has an answer, or is known to have none.

    The table's columns: ``id`` and ``event_time`` as in the dataset, ``prediction``
    (null: no finite answer), for classification ``score``, ``unfamiliar`` (names of
    features whose value the version has not learned from; null: none), ``version``.
    """

    job_id: str
    dataset: DatasetRef
    version: int
    package: PackageRef
    answers: TableRef
    row_count: int = Field(ge=0)
    error_count: int = Field(ge=0, description="rows without a finite answer")
    unfamiliar_count: int = Field(
        default=0, ge=0, description="rows with a value that was not learned from"
    )
    classes: list[str] = Field(
        default_factory=list,
        description="in the order of the score; of two, the score is the second's",
    )
    duration_seconds: float = Field(ge=0, description="that all tries took")
    cpu_seconds: float = Field(ge=0, description="that all tries took")
    requested_by: str


class ScoringFailed(Event):
    """A job ended without answers; what it had written is removed."""

    job_id: str
    dataset: str = Field(description="that was asked for")
    version: int | None = Field(
        default=None, description="of the model; None: the champion was asked for"
    )
    error: str
    remedy: str
    attempts: int = Field(ge=1)
    cpu_seconds: float = Field(default=0, ge=0, description="that all tries took")
    requested_by: str


class ScoringCancelRequested(Event):
    """A person wants a job ended that waits or runs."""

    job_id: str
    requested_by: str
    reason: str


class ScoringCancelled(Event):
    """A job ended because a person wanted it to; what it had written is removed."""

    job_id: str
    cancelled_by: str
    reason: str
