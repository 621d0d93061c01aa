"""What a job is asked to do; shared by the service and its child processes."""

from driftloop.contracts.events import (
    BlobRef,
    DatasetRef,
    FaultyStretch,
    ServedModel,
    Span,
    Trigger,
)
from driftloop.contracts.federated import FederatedEncoding
from driftloop.contracts.pipeline import PipelineSpec
from pydantic import BaseModel, Field


class FederatedResult(BaseModel):
    """The weights that a federation's last round gave; nothing is fitted then.

    Attributes
    ----------
    row_count : of the sites of the last round, as they say it.
    weights : (n_outputs * (width + 1),) as in ``federated-round-closed``.
    """

    federation_id: str
    rounds: int
    sites: list[str]
    row_count: int
    encoding: FederatedEncoding
    weights: list[float]


class SubmittedModel(BaseModel):
    """A model that somebody registered; nothing is fitted then.

    Attributes
    ----------
    version : that it will be.
    model : ONNX.
    source : as it was registered, for people.
    """

    version: int
    model: BlobRef
    source: str


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return not value


class JobRequest(BaseModel):
    """All a training depends on; frozen when the job is accepted.

    Attributes
    ----------
    searched : trials of each candidate's search, where a training is made again whose
        search time had ended; never part of a package.
    left_out : faults whose rows are not read.
    """

    job_id: str
    trigger: Trigger
    spec: PipelineSpec
    dataset: DatasetRef
    train_span: Span
    holdout_span: Span
    champion: ServedModel | None = None
    federated: FederatedResult | None = None
    submitted: SubmittedModel | None = Field(default=None, exclude_if=_is_none)
    searched: dict[str, int] | None = None
    left_out: tuple[FaultyStretch, ...] = Field(default=(), exclude_if=_is_empty)

    @property
    def is_given(self) -> bool:
        """Whether the model is there already: nothing is fitted."""
        return self.federated is not None or self.submitted is not None
