"""What can change in the experiments, runs and models that MLflow's clients keep.

Each write is one change, and the changes in the order of their revisions are the
whole state. A change holds what follows from a request once it is checked: names that
the server minted, values in their final form. So applying one needs no decision.
"""

from typing import Annotated, Any, Literal

from driftloop.contracts.base import Value
from driftloop.contracts.registered import RegisteredChange
from driftloop.contracts.webhooks import WebhookChange
from pydantic import Field

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
MetricPoint = tuple[str, float, int, int]
"""Name, value, time in ms since 1970, step."""
Texts = dict[str, str]


class ExperimentCreated(Value):
    """An experiment is there."""

    kind: Literal["experiment-created"] = "experiment-created"
    experiment_id: int
    name: str
    artifact_location: str
    tags: Texts = Field(default_factory=dict)


class ExperimentRenamed(Value):
    """An experiment has another name."""

    kind: Literal["experiment-renamed"] = "experiment-renamed"
    experiment_id: int
    name: str


class ExperimentDeleted(Value):
    """An experiment, and each of its runs, is put away; nothing is lost."""

    kind: Literal["experiment-deleted"] = "experiment-deleted"
    experiment_id: int


class ExperimentRestored(Value):
    """An experiment, and each of its runs, is back."""

    kind: Literal["experiment-restored"] = "experiment-restored"
    experiment_id: int


class ExperimentTagSet(Value):
    """A tag of an experiment has this value."""

    kind: Literal["experiment-tag-set"] = "experiment-tag-set"
    experiment_id: int
    key: str
    value: str


class ExperimentTagDeleted(Value):
    """A tag of an experiment is gone."""

    kind: Literal["experiment-tag-deleted"] = "experiment-tag-deleted"
    experiment_id: int
    key: str


class RunCreated(Value):
    """A run is there. ``tags`` holds its name as ``mlflow.runName``."""

    kind: Literal["run-created"] = "run-created"
    run_id: str
    experiment_id: int
    name: str
    user: str
    start_time_ms: int
    artifact_uri: str
    tags: Texts = Field(default_factory=dict)


class RunUpdated(Value):
    """A run has another status, end or name; what is None stays."""

    kind: Literal["run-updated"] = "run-updated"
    run_id: str
    status: RunStatus | None = None
    end_time_ms: int | None = None
    name: str | None = None


class RunDeleted(Value):
    """A run is put away; nothing is lost."""

    kind: Literal["run-deleted"] = "run-deleted"
    run_id: str


class RunRestored(Value):
    """A run is back."""

    kind: Literal["run-restored"] = "run-restored"
    run_id: str


class ModelMetric(Value):
    """A metric that measures a logged model, perhaps on a dataset."""

    model_id: str
    point: MetricPoint
    dataset_name: str = ""
    dataset_digest: str = ""


class RunLogged(Value):
    """Metrics, parameters and tags of a run, as many as came in one request.

    What measures a model is among ``metrics``, too, and in ``model_metrics`` besides.
    """

    kind: Literal["run-logged"] = "run-logged"
    run_id: str
    metrics: list[MetricPoint] = Field(default_factory=list)
    params: Texts = Field(default_factory=dict)
    tags: Texts = Field(default_factory=dict)
    model_metrics: list[ModelMetric] = Field(default_factory=list)


class RunTagDeleted(Value):
    """A tag of a run is gone."""

    kind: Literal["run-tag-deleted"] = "run-tag-deleted"
    run_id: str
    key: str


class DatasetUse(Value):
    """A dataset that a run used; ``name`` and ``digest`` name it in its experiment."""

    name: str
    digest: str
    source_type: str
    source: str
    schema_text: str | None = None
    profile: str | None = None
    tags: Texts = Field(default_factory=dict)


class RunInputsLogged(Value):
    """What a run was made from."""

    kind: Literal["run-inputs-logged"] = "run-inputs-logged"
    run_id: str
    datasets: list[DatasetUse] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)


class ModelOutput(Value):
    """A model that a run made, and at which step."""

    model_id: str
    step: int


class RunOutputsLogged(Value):
    """What a run made."""

    kind: Literal["run-outputs-logged"] = "run-outputs-logged"
    run_id: str
    models: list[ModelOutput]


class FileStored(Value):
    """A file is there, or is another one now; its bytes lie under their digest.

    ``owner`` is a run, a logged model, or whatever else has files of its own.
    """

    kind: Literal["file-stored"] = "file-stored"
    owner: str
    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class FilesDeleted(Value):
    """A file, or all of a folder, is gone; an empty path: all of the owner's."""

    kind: Literal["files-deleted"] = "files-deleted"
    owner: str
    path: str


ModelStatus = Literal["PENDING", "READY", "FAILED"]


class LoggedModelCreated(Value):
    """A model that a client logs is there, its files yet to come."""

    kind: Literal["logged-model-created"] = "logged-model-created"
    model_id: str
    experiment_id: int
    name: str
    model_type: str | None = None
    source_run_id: str | None = None
    artifact_location: str
    params: Texts = Field(default_factory=dict)
    tags: Texts = Field(default_factory=dict)


class LoggedModelFinalized(Value):
    """A logged model is complete, or failed."""

    kind: Literal["logged-model-finalized"] = "logged-model-finalized"
    model_id: str
    status: ModelStatus


class LoggedModelDescribed(Value):
    """A logged model has further parameters, or tags with these values."""

    kind: Literal["logged-model-described"] = "logged-model-described"
    model_id: str
    params: Texts = Field(default_factory=dict)
    tags: Texts = Field(default_factory=dict)


class LoggedModelTagDeleted(Value):
    """A tag of a logged model is gone."""

    kind: Literal["logged-model-tag-deleted"] = "logged-model-tag-deleted"
    model_id: str
    key: str


class LoggedModelDeleted(Value):
    """A logged model is put away; nothing is lost."""

    kind: Literal["logged-model-deleted"] = "logged-model-deleted"
    model_id: str


def _without_discriminator(schema: dict[str, Any]) -> None:
    """Leave out what OpenAPI knows and AsyncAPI does not: the kinds suffice."""
    schema.pop("discriminator", None)


Change = Annotated[
    ExperimentCreated
    | ExperimentRenamed
    | ExperimentDeleted
    | ExperimentRestored
    | ExperimentTagSet
    | ExperimentTagDeleted
    | RunCreated
    | RunUpdated
    | RunDeleted
    | RunRestored
    | RunLogged
    | RunTagDeleted
    | RunInputsLogged
    | RunOutputsLogged
    | FileStored
    | FilesDeleted
    | LoggedModelCreated
    | LoggedModelFinalized
    | LoggedModelDescribed
    | LoggedModelTagDeleted
    | LoggedModelDeleted
    | RegisteredChange
    | WebhookChange,
    Field(discriminator="kind", json_schema_extra=_without_discriminator),
]
