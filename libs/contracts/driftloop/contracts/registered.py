"""What can change in the registered models that MLflow's clients keep.

Part of :data:`driftloop.contracts.tracking.Change`. A pipeline is a registered model as
well: what is said here about one of its versions is a note beside what the loop knows.
"""

from typing import Literal

from driftloop.contracts.base import Value
from pydantic import Field

Stage = Literal["None", "Staging", "Production", "Archived"]
VersionStatus = Literal["PENDING_REGISTRATION", "READY", "FAILED_REGISTRATION"]


class ModelCreated(Value):
    """A registered model is there."""

    kind: Literal["model-created"] = "model-created"
    name: str
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class ModelDescribed(Value):
    """A registered model has another description."""

    kind: Literal["model-described"] = "model-described"
    name: str
    description: str


class ModelRenamed(Value):
    """A registered model, with all its versions, has another name."""

    kind: Literal["model-renamed"] = "model-renamed"
    name: str
    new_name: str


class ModelDeleted(Value):
    """A registered model is gone, with its versions, tags and aliases."""

    kind: Literal["model-deleted"] = "model-deleted"
    name: str


class ModelTagSet(Value):
    """A tag of a registered model, or of a version of it, has this value."""

    kind: Literal["model-tag-set"] = "model-tag-set"
    name: str
    version: int | None = Field(default=None, description="None: of the model")
    key: str
    value: str


class ModelTagDeleted(Value):
    """A tag of a registered model, or of a version of it, is gone."""

    kind: Literal["model-tag-deleted"] = "model-tag-deleted"
    name: str
    version: int | None = Field(default=None, description="None: of the model")
    key: str


class VersionCreated(Value):
    """A client registered a version."""

    kind: Literal["version-created"] = "version-created"
    name: str
    version: int = Field(ge=1)
    source: str = Field(description="as it was asked for; a copy names its version")
    location: str = Field(description="of the files, chosen by the server")
    run_id: str = ""
    run_link: str = ""
    model_id: str = ""
    description: str = ""
    user: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    status: VersionStatus = "READY"
    job_id: str = Field(default="", description="that measures it, under a pipeline")
    model_sha256: str = Field(default="", description="of the ONNX file, likewise")
    model_bytes: int = Field(default=0, ge=0)


class VersionDescribed(Value):
    """A version has another description."""

    kind: Literal["version-described"] = "version-described"
    name: str
    version: int
    description: str


class VersionDeleted(Value):
    """A version is gone, with its aliases; its number is not used again."""

    kind: Literal["version-deleted"] = "version-deleted"
    name: str
    version: int


class AliasSet(Value):
    """An alias means this version from now on."""

    kind: Literal["alias-set"] = "alias-set"
    name: str
    alias: str
    version: int


class AliasDeleted(Value):
    """An alias means nothing any more."""

    kind: Literal["alias-deleted"] = "alias-deleted"
    name: str
    alias: str


class StageMoved(Value):
    """A version is in another stage; ``archived`` left that stage for it."""

    kind: Literal["stage-moved"] = "stage-moved"
    name: str
    version: int
    stage: Stage
    archived: list[int] = Field(default_factory=list)


RegisteredChange = (
    ModelCreated
    | ModelDescribed
    | ModelRenamed
    | ModelDeleted
    | ModelTagSet
    | ModelTagDeleted
    | VersionCreated
    | VersionDescribed
    | VersionDeleted
    | AliasSet
    | AliasDeleted
    | StageMoved
)
