"""Settings of the scorer."""

from pathlib import Path

from driftloop.runtime.settings import Settings
from pydantic import Field

MIB = 1024 * 1024


class ScorerSettings(Settings):
    """What a scorer needs beside the common settings."""

    trusted_keys: Path | None = Field(
        default=None,
        description="folder of public keys whose packages may be loaded; "
        "default: keys/trusted under home",
    )
    report_every: int = Field(
        default=24, ge=1, description="scored batches between two reports"
    )
    max_body_bytes: int = Field(default=16 * MIB, gt=0)
    trial_timeout_seconds: float = Field(
        default=60, gt=0, description="for loading a model and running its samples"
    )
    trial_memory_bytes: int = Field(
        default=8 * 1024 * MIB, gt=0, description="address space of that trial"
    )

    @property
    def trusted_keys_folder(self) -> Path:
        return self.trusted_keys or self.home / "keys" / "trusted"
