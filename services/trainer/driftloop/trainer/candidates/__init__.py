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
    Watch,
    target_unit,
)
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
PRELOADED = ("gradient_boosting", "random_forest", "linear")
"""Fitted once before there is a job: what most pipelines name."""


def candidate(name: str) -> Callable[[Sample], Core]:
    """Return the function that fits a candidate of this name."""
    module = import_module(f"{__name__}.{MODULES[name]}")
    function: Callable[[Sample], Core] = getattr(module, name)
    return function


__all__ = [
    "MODULES",
    "PRELOADED",
    "UNWATCHED",
    "CandidateRefused",
    "Checkpoint",
    "Sample",
    "Watch",
    "candidate",
    "target_unit",
]
