"""What a job is asked to do; shared by the service and its child processes."""

from driftloop.contracts.events import DatasetRef, ServedModel, Span, Trigger
from driftloop.contracts.federated import FederatedEncoding
from driftloop.contracts.pipeline import PipelineSpec
from pydantic import BaseModel


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


class JobRequest(BaseModel):
    """All a training depends on; frozen when the job is accepted.

    Attributes
    ----------
    searched : trials of each candidate's search, where a training is made again whose
        search time had ended; never part of a package.
    """

    job_id: str
    trigger: Trigger
    spec: PipelineSpec
    dataset: DatasetRef
    train_span: Span
    holdout_span: Span
    champion: ServedModel | None = None
    federated: FederatedResult | None = None
    searched: dict[str, int] | None = None
