"""How the networks among the candidates are fitted."""

from typing import Literal

from driftloop.contracts.base import Section
from pydantic import Field

MAX_BATCH_ROWS = 1 << 20


class NetworksSection(Section):
    """How `mlp`, `gru` and `tcn` are fitted, on whatever device."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="that layers are computed in; weights are kept in float32 always. "
        "auto: bfloat16 on a GPU that has it, else float32",
    )
    batch_rows: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BATCH_ROWS,
        description="rows of one step; null: 64 to 4,096 by the number of rows. Fewer "
        "need less of a GPU's memory",
    )
