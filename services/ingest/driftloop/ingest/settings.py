"""Settings of ingest: ``DRIFTLOOP_INGEST_…``."""

from driftloop.runtime.settings import Settings
from pydantic import Field, SecretStr


class IngestSettings(Settings):
    """What ingest needs beyond the common settings."""

    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, gt=0, description="largest HTTP request"
    )
    max_decoded_bytes: int = Field(
        default=64 * 1024 * 1024,
        gt=0,
        description="largest HTTP request after its content-encoding",
    )
    max_requests_in_work: int = Field(
        default=256, gt=0, description="HTTP requests at a time; more get 429"
    )
    max_bytes_in_work: int = Field(
        default=256 * 1024 * 1024,
        gt=0,
        description="bytes of HTTP requests at a time; more get 429",
    )
    body_timeout_seconds: float = Field(
        default=30, gt=0, description="how long a sender may take over its request"
    )
    folder_roots: list[str] = Field(
        default=[],
        description="folders, and s3://bucket/prefix, below which pipelines may name "
        "sources; default: none, JSON",
    )
    max_pull_bytes: int = Field(
        default=256 * 1024 * 1024,
        gt=0,
        description="largest file of a source, also after its compression",
    )
    pull_lease_seconds: float = Field(
        default=30,
        gt=1,
        description="a source of a replica that is silent for so long goes to another",
    )
    unknown_pipeline_grace_seconds: float = Field(
        default=10,
        ge=0,
        description="how long messages wait for a pipeline to be applied",
    )
    privacy_key: SecretStr | None = Field(
        default=None,
        description="secret of data.privacy, the same for every replica; default: "
        "drawn at first start, under home",
    )
    reveal_token: SecretStr | None = Field(
        default=None,
        description="whoever also has it may read tokens and encrypted values; "
        "default: nobody may",
    )
