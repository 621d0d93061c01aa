"""Settings of the monitor."""

from pathlib import Path

from driftloop.runtime.settings import Settings
from pydantic import Field


class MonitorSettings(Settings):
    """What a monitor needs beside the common settings."""

    trusted_keys: Path | None = Field(
        default=None,
        description="folder of public keys whose packages are read; "
        "default: keys/trusted under home",
    )
    label_horizon_days: float = Field(
        default=90,
        gt=0,
        description="event time for which a prediction waits for its label",
    )
    view_window_minutes: float = Field(
        default=24 * 60, gt=0, description="event time of one window of the views"
    )
    view_windows: int = Field(
        default=1000, ge=1, description="newest windows of a pipeline that are kept"
    )

    @property
    def trusted_keys_folder(self) -> Path:
        return self.trusted_keys or self.home / "keys" / "trusted"
