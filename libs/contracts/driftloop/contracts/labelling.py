"""Which rows without a label the monitor asks for labels of, and how many."""

from typing import Literal

from driftloop.contracts.base import Section
from pydantic import Field

MAX_BUDGET_ROWS = 1000
"""So that the rows asked for, with their reasons, stay one small message."""

Strategy = Literal["informative", "uncertainty", "diversity", "random"]


class LabellingSection(Section):
    """Which rows people are asked to label; off without a budget."""

    budget_rows: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BUDGET_ROWS,
        description="labels asked for in each window of `monitor.window_rows` scored "
        "rows; empty: none",
    )
    strategy: Strategy = Field(
        default="informative",
        description="informative: unsure and unlike each other; uncertainty or "
        "diversity: one of the two; random: to compare with",
    )
    drift_weight: float = Field(
        default=1.0,
        ge=0,
        description="a row outside what the model learned from, in every feature that "
        "drifted, counts for so much more; 0: drift does not matter",
    )
