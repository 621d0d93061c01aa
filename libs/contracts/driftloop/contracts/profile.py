"""What a version costs where it answers: the figures that replicas are sized by."""

from typing import Self

from driftloop.contracts.base import Value
from pydantic import Field, model_validator


class BatchCost(Value):
    """What calls of a model with so many rows take, without the making of their arrays.

    Processor time, not wall clock: what other processes take meanwhile is not the
    model's.
    """

    rows: int = Field(ge=1, description="in one call")
    calls: int | None = Field(default=None, ge=1, description="that were measured")
    p50_seconds: float = Field(ge=0, description="processor time of a call")
    p99_seconds: float = Field(ge=0, description="processor time of a call")
    memory_bytes: int = Field(
        ge=0,
        description="resident, that loading it and calls of up to so many rows took",
    )


class VersionProfile(Value):
    """What a version costs on one kind of machine, measured in its trial there."""

    machine: str = Field(description="processors", examples=["AMD EPYC 7763, 2 CPUs"])
    onnx_runtime: str = Field(description="its version")
    child_bytes: int | None = Field(
        default=None,
        gt=0,
        description="resident memory of the trial's process beside the model",
    )
    batches: list[BatchCost] = Field(min_length=1, description="by rows, fewest first")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        rows = [cost.rows for cost in self.batches]
        if rows != sorted(set(rows)):
            raise ValueError(f"each number of rows once, fewest first, not {rows}")
        return self


class DoorCost(Value):
    """What an answer took beside the call of the model, since the last report.

    Processor time of the thread that answers: reading the request, its rights, its
    checks, the answer.
    """

    requests: int = Field(ge=1)
    rows: float = Field(ge=0, description="of a request, mean")
    seconds: float = Field(ge=0, description="of a request, mean")
    model_seconds: float = Field(
        default=0,
        ge=0,
        description="of the model's call in the same thread, mean; 0: it is in another",
    )
