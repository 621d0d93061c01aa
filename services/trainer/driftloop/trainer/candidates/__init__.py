"""What can be trained: one function a name in the pipeline file.

Each takes a :class:`sample.Sample` and returns a :class:`graph.Core`. A module is
imported when its name is used, so that a name costs nothing before.
"""

from collections.abc import Callable
from importlib import import_module

from driftloop.trainer.candidates.sample import (
    UNWATCHED,
    CandidateRefused,
    Checkpoint,
    Sample,
    Start,
    Watch,
    target_unit,
)
from driftloop.trainer.candidates.space import Space
from driftloop.trainer.graph import Core

MODULES = {
    "gradient_boosting": "sklearn_trees",
    "random_forest": "sklearn_trees",
    "linear": "linear",
    "adaptive_forest": "adaptive_forest",
    "hoeffding_adaptive_tree": "hoeffding_tree",
    "online_linear": "online_linear",
    "mlp": "neural",
    "gru": "neural",
    "tcn": "neural",
}
CONTINUED = (
    "adaptive_forest", "hoeffding_adaptive_tree", "online_linear",
)  # fmt: skip
"""Those that keep a state and can go on from it."""
WARM_STARTED = ("mlp", "gru", "tcn")
"""Those that can begin at the champion's weights; they learn all rows from there."""
PRELOADED = ("gradient_boosting", "random_forest", "linear")
"""Fitted once before there is a job: what most pipelines name."""


def candidate(name: str) -> Callable[[Sample], Core]:
    """Return the function that fits a candidate of this name."""
    module = import_module(f"{__name__}.{MODULES[name]}")
    function: Callable[[Sample], Core] = getattr(module, name)
    return function


def space_of(name: str, task: str) -> Space:
    """Return what a search may change of a candidate; empty: it has nothing.

    A candidate of the pipeline's own has nothing.
    """
    if name not in MODULES:
        return ()
    module = import_module(f"{__name__}.{MODULES[name]}")
    spaces: dict[str, Space] = getattr(module, "SPACES", {})
    kind = "regression" if task == "regression" else "classes"
    return tuple(s for s in spaces.get(name, ()) if s.only in (None, kind))


__all__ = [
    "CONTINUED",
    "MODULES",
    "PRELOADED",
    "UNWATCHED",
    "WARM_STARTED",
    "CandidateRefused",
    "Checkpoint",
    "Sample",
    "Space",
    "Start",
    "Watch",
    "candidate",
    "space_of",
    "target_unit",
]
