"""What a version that answers far from home tells of itself, once home is in reach."""

from typing import Annotated, Self

from driftloop.contracts.base import UtcTime, Value
from pydantic import Field, model_validator

EDGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
EdgeName = Annotated[str, Field(pattern=EDGE_PATTERN, examples=["line-4"])]
MAX_NAMED_COLUMNS = 50
MAX_COUNT = 2**53
"""What every reader of JSON holds exactly."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Word = Annotated[str, Field(max_length=200)]


class EdgeReport(Value):
    """Figures of one runner since its report before."""

    edge: EdgeName = Field(description="name of the runner, unique at home")
    report_id: str = Field(
        pattern=r"^[0-9a-f]{32}$",
        description="drawn by the runner; sent again, it is the same report",
    )
    version: int = Field(ge=1, description="that answers there")
    package_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    since: UtcTime = Field(description="by the clock of the runner's machine")
    until: UtcTime
    request_count: Count = 0
    refused_count: Count = Field(
        default=0,
        description="requests that were not right, as their callers were told",
    )
    row_count: Count = Field(default=0, description="rows given to the model")
    error_count: Count = Field(
        default=0, description="of these, rows without a finite answer"
    )
    unfamiliar_row_count: Count = Field(
        default=0, description="rows with a value that the version has not learned from"
    )
    unfamiliar: dict[Word, Count] = Field(
        default_factory=dict,
        max_length=MAX_NAMED_COLUMNS,
        description="columns with the most of such values, and of how many rows",
    )
    latency_p50_seconds: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="of one call of the model"
    )
    latency_p99_seconds: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="of one call of the model"
    )
    sampled_row_count: Count = Field(
        default=0, description="rows of this time that come as observations"
    )
    lost_report_count: Count = Field(
        default=0, description="earlier reports dropped as the runner's disk was full"
    )
    lost_row_count: Count = Field(
        default=0, description="sampled rows dropped for that, or refused at home"
    )
    software: dict[Word, Word] = Field(
        default_factory=dict, max_length=20, description="versions of what answers"
    )

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Self:
        if self.until < self.since:
            raise ValueError("until is before since")
        return self


def report_name(pipeline: str, edge: str, report_id: str) -> str:
    """Return what the event's id is derived from.

    >>> report_name("bike-demand", "line-4", "0" * 32)[:18]
    'bike-demand/line-4'
    """
    return f"{pipeline}/{edge}/{report_id}"
