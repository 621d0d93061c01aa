"""What the registry can be told from outside."""

from pathlib import Path

from driftloop.runtime.settings import Settings
from pydantic import Field


class RegistrySettings(Settings):
    """Keys, people and how long REST waits."""

    trusted_keys: Path | None = Field(
        default=None,
        description="folder of the signers' public keys, *.pem; "
        "default: keys/trusted under home",
    )
    people: dict[str, list[str]] = Field(
        default_factory=dict,
        description="name to roles, JSON; empty: whoever holds the token may decide",
    )
    answer_timeout_seconds: float = Field(
        default=10, gt=0, description="REST answers 202 when it takes longer"
    )

    @property
    def trusted_folder(self) -> Path:
        return self.trusted_keys or self.home / "keys" / "trusted"
