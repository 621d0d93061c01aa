"""How what may be trained is compared, inside the rows that it may learn from."""

from driftloop.contracts.base import Section
from pydantic import Field, model_validator

MAX_TRIALS = 200
"""All trials of all candidates are told in one event, which keeps below a megabyte."""


class ValidationSection(Section):
    """Stretches of rows that are judged by what was learned from those before."""

    folds: int = Field(
        default=1,
        ge=1,
        le=10,
        description="newest stretches of the training rows; each is judged by what was "
        "learned from all rows before it, and the losses of all decide",
    )


class SearchSection(Section):
    """A search for each candidate's parameters; off without trials."""

    trials: int = Field(
        default=0,
        ge=0,
        le=MAX_TRIALS,
        description="sets of parameters to try of each candidate, besides the usual "
        "one; 0: none. Needs `driftloop-trainer[search]`",
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="after which no further trial begins, whatever `trials` says; "
        "null: no bound",
    )

    @model_validator(mode="after")
    def _what_is_bounded_is_there(self) -> "SearchSection":
        if self.minutes is not None and not self.trials:
            raise ValueError(
                "minutes bounds a search and trials is 0; name under trials how many "
                "are to be tried at most, for example 30"
            )
        return self
