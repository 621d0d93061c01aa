"""What may be trained: a candidate, on a stretch of the training rows, with weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.pipeline import TrainSection, Window
from driftloop.trainer.candidates import CONTINUED, WARM_STARTED
from driftloop.trainer.continuing import Heritage
from driftloop.trainer.losses import Floats

MIN_WINDOW_ROWS = 100
"""A shorter stretch than the whole has to have so many rows to be tried."""
DAY_US = 86_400e6
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Recipe:
    """One way to a model.

    Attributes
    ----------
    since : start of the change, for the window ``since_drift``.
    parameters : instead of the candidate's usual ones, where they are named.
    half_life_days : after which a row counts half; None: all count alike.
    heritage : of the champion, to go on from; None: from scratch.
    """

    name: str
    window: Window = "all"
    half_life_days: float | None = None
    since: datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    heritage: Heritage | None = None

    @property
    def detail(self) -> str:
        """What sets it apart from the plain candidate, in words."""
        parts = []
        if self.heritage is not None:
            parts.append(f"continued from version {self.heritage.version}")
        if self.window == "since_drift" and self.since is not None:
            parts.append(f"rows since {self.since:%Y-%m-%d %H:%M}")
        elif self.window != "all":
            parts.append(f"newest {self.window} days")
        if self.half_life_days is not None:
            parts.append(f"half-life {self.half_life_days:g} days")
        return ", ".join(parts)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it besides the candidate's usual parameters."""
        found = dict(self.parameters)
        if self.window != "all":
            found["window"] = self.window
        if self.half_life_days is not None:
            found["recency_half_life_days"] = self.half_life_days
        if self.heritage is not None:
            found["continued_from"] = self.heritage.version
        return found

    def rows(self, rows: pa.Table) -> pa.Table:
        """Return the stretch of rows (in order of event time) to learn from."""
        if self.window == "all" or not rows.num_rows:
            return rows
        start = self.since
        if not isinstance(self.window, str):
            newest = rows["event_time"][-1].as_py().astimezone(UTC)
            start = newest - timedelta(days=self.window)
        return rows.filter(pc.greater_equal(rows["event_time"], pa.scalar(start, TIME)))

    def weights(self, rows: pa.Table) -> Floats | None:
        """Return (n_rows,) weights with a mean of 1; None: all alike."""
        if self.half_life_days is None or not rows.num_rows:
            return None
        times = rows["event_time"].cast(pa.int64()).to_numpy()
        age_days = (times[-1] - times) / DAY_US
        found = np.exp2(-age_days / self.half_life_days)
        return np.asarray(found / found.mean(), dtype=np.float64)


def names_of(train: TrainSection) -> list[str]:
    """Return the names of the file's candidates, of its own ones too."""
    return [one if isinstance(one, str) else one.name for one in train.candidates]


def recipes_of(
    train: TrainSection,
    since: datetime | None,
    rows: pa.Table,
    heritage: Heritage | None = None,
) -> Iterator[tuple[Recipe, str | None]]:
    """Yield each recipe that the file names, and why it cannot be tried.

    Parameters
    ----------
    since : estimated start of the change, where a drift is why this training is.
    rows : that are fitted on for the comparison.
    heritage : of the champion; who can goes on from it, before it begins anew.
    """
    can_go_on = (*CONTINUED, *WARM_STARTED)
    for name, window, half_life in product(
        names_of(train), train.windows, train.recency_half_life_days
    ):
        recipe = Recipe(name, window, half_life, since)
        if heritage and window == "all" and name in can_go_on:
            continued = replace(recipe, heritage=heritage)
            yield continued, obstacle(continued, rows)
        yield recipe, obstacle(recipe, rows)


def obstacle(recipe: Recipe, rows: pa.Table) -> str | None:
    """Return why a recipe cannot be tried on rows; None: it can."""
    if recipe.window == "since_drift" and recipe.since is None:
        return "no drift is the reason of this training"
    if recipe.heritage is not None:
        why = recipe.heritage.obstacle(recipe.name, rows)
        return why and f"cannot go on from the champion: {why}"
    count = recipe.rows(rows).num_rows
    if recipe.window != "all" and count < MIN_WINDOW_ROWS:
        return f"{recipe.detail}: {count} rows, at least {MIN_WINDOW_ROWS} are needed"
    return None
