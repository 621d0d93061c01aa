"""Settings of the monitor."""

from driftloop.models.settings import PackageSettings
from pydantic import Field


class MonitorSettings(PackageSettings):
    """What a monitor needs beside the common settings."""

    view_window_minutes: float = Field(
        default=24 * 60, gt=0, description="event time of one window of the views"
    )
    view_windows: int = Field(
        default=1000, ge=1, description="newest windows of a pipeline that are kept"
    )
