"""Settings of the scorer."""

from typing import Self

from driftloop.contracts.pipeline import PRODUCTION, EnvironmentName
from driftloop.models.settings import PackageSettings
from pydantic import Field, model_validator

MIB = 1024 * 1024
HEARTBEATS_MISSED = 3


class ScorerSettings(PackageSettings):
    """What a scorer needs beside the common settings."""

    environment: EnvironmentName = Field(
        default=PRODUCTION,
        description="which it serves for; others than production are listed in "
        "pipelines' `rollout.environments`, and have a database of their own",
    )

    report_every: int = Field(
        default=24, ge=1, description="scored batches between two reports"
    )
    heartbeat_seconds: float = Field(
        default=30,
        gt=0,
        description="between two signs of life; after three of them it is taken for "
        "gone, and rollouts wait for it no longer",
    )
    grpc_port: int = Field(default=0, ge=0, le=65535, description="0: a free one")
    shared_fd: int | None = Field(
        default=None,
        ge=3,
        description="number of a listening socket, handed down by who started this "
        "process, at which the scorers of a machine answer; they share the gRPC port",
    )
    max_body_bytes: int = Field(default=16 * MIB, gt=0)
    log_memory_bytes: int = Field(
        default=64 * MIB,
        gt=0,
        description="for answered requests that are not written to the log yet",
    )
    explain_threads: int = Field(
        default=1, ge=0, description="requests explained at once; 0: none is"
    )
    explain_waiting: int = Field(
        default=8,
        ge=0,
        description="requests that wait for such a thread; more are not explained",
    )
    explain_ms: int = Field(
        default=100, ge=1, description="for an explanation, where a request says none"
    )
    explain_most_ms: int = Field(
        default=2000, ge=1, description="that a request may ask for"
    )
    batch_ms: float = Field(
        default=10,
        ge=0,
        description="that a call may take longer for the requests that are put to a "
        "busy model together; 0: each has a call of its own",
    )
    batch_calls: int = Field(
        default=0,
        ge=0,
        description="of such a version at once, before requests wait; 0: as many as "
        "there are processors",
    )
    replay_max_rows: int = Field(
        default=1_000_000, ge=1, description="scored in one shadow by replay"
    )
    scoring_part_rows: int = Field(
        default=20_000,
        ge=1,
        description="of a scored dataset, in memory and in one file of the answers; "
        "after a kill so many are scored again at most",
    )
    scoring_lease_seconds: float = Field(
        default=60,
        gt=0,
        description="a dataset that is being scored is another scorer's to go on with "
        "when its own was not heard of for so long",
    )
    trial_timeout_seconds: float = Field(
        default=60,
        ge=1,
        description="processor time for loading a model and running its samples; on a "
        "busy machine that may take four times as long",
    )
    trial_memory_bytes: int = Field(
        default=8 * 1024 * MIB, gt=0, description="address space of that trial"
    )

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.explain_ms > self.explain_most_ms:
            raise ValueError(
                f"explain_ms ({self.explain_ms}) is more than explain_most_ms "
                f"({self.explain_most_ms}): what is usual may not be too much"
            )
        return self

    @property
    def part(self) -> str:
        """Scorers of one environment share their work; those of others do it too."""
        return "" if self.environment == PRODUCTION else self.environment

    @property
    def lease_seconds(self) -> float:
        """How long this replica counts as alive after a sign of life."""
        return HEARTBEATS_MISSED * self.heartbeat_seconds
