"""How what may be trained is compared, inside the rows that it may learn from."""

from driftloop.contracts.base import Section
from pydantic import Field


class ValidationSection(Section):
    """Stretches of rows that are judged by what was learned from those before."""

    folds: int = Field(
        default=1,
        ge=1,
        le=10,
        description="newest stretches of the training rows; each is judged by what was "
        "learned from all rows before it, and the mean of the losses decides",
    )
