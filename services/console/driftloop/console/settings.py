"""What the console can be told from outside."""

from driftloop.runtime.settings import Settings
from pydantic import Field


class ConsoleSettings(Settings):
    """Where people go on from the page."""

    registry_url: str | None = Field(
        default=None, description="shown as a link to the registry's interface"
    )
    scorer_url: str | None = Field(default=None, description="shown as a link")
