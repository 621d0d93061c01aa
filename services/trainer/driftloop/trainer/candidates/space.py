"""What a search may change of a candidate; declared next to it as ``SPACES``."""

from dataclasses import dataclass
from typing import Literal

Value = int | float | str


@dataclass(frozen=True)
class Setting:
    """One parameter: a range with both ends, or choices.

    Attributes
    ----------
    default : what is taken without a search; a whole number: all of its range are.
    is_log : whether factors count, and not differences.
    choices : instead of a range.
    only : the tasks that have it; None: all.
    """

    name: str
    default: Value
    low: float = 0.0
    high: float = 0.0
    is_log: bool = True
    choices: tuple[Value, ...] = ()
    only: Literal["regression", "classes"] | None = None


Space = tuple[Setting, ...]
