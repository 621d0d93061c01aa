"""Settings of the validator: ``DRIFTLOOP_VALIDATOR_…``."""

from driftloop.runtime.settings import Settings
from pydantic import Field


class ValidatorSettings(Settings):
    """What the validator needs beyond the common settings."""

    check_modules: list[str] = Field(
        default=[],
        description="modules whose functions and pandera schemas pipeline files may "
        'name as checks, each with all below it, JSON: ["bikes"]; none by default',
    )
