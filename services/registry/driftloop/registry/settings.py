"""What the registry can be told from outside."""

from driftloop.models.settings import PackageSettings
from pydantic import Field


class RegistrySettings(PackageSettings):
    """Keys, people and how long REST waits."""

    people: dict[str, list[str]] = Field(
        default_factory=dict,
        description="name to roles, JSON; empty: whoever holds the token may decide",
    )
    answer_timeout_seconds: float = Field(
        default=10, gt=0, description="REST answers 202 when it takes longer"
    )
