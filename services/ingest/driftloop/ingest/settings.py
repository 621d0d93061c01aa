"""Settings of ingest: ``DRIFTLOOP_INGEST_…``."""

from driftloop.runtime.settings import Settings
from pydantic import Field


class IngestSettings(Settings):
    """What ingest needs beyond the common settings."""

    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, gt=0, description="largest HTTP request"
    )
    unknown_pipeline_grace_seconds: float = Field(
        default=10,
        ge=0,
        description="how long messages wait for a pipeline to be applied",
    )
