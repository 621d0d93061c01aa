"""Whether a training took what there is to take: under-fit, over-fit, converged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.measures import FitVerdict

LEAST_SKILL = 0.1
"""A model that beats no skill by less on its own training rows learned nothing."""
KEPT_SKILL = 0.5
"""One that keeps less of its training skill on rows it never saw learned by heart."""


@dataclass(frozen=True)
class Losses:
    """A model's loss on some rows, and that of no skill on the same ones."""

    model: float
    no_skill: float

    @property
    def skill(self) -> float:
        """1 is perfect, 0 no skill, below 0 worse than that."""
        return 1 - self.model / self.no_skill if self.no_skill > 0 else 0.0


def judge(
    training: Losses, validation: Losses, holdout: Losses, parameters: Mapping[str, Any]
) -> FitVerdict:
    """Say in one word, and in words, how the training went.

    Parameters
    ----------
    training, validation : of the candidate that was fitted on the fitting rows only.
    holdout : of the model that is served.
    parameters : of the candidate; ``iterations`` at ``max_iter``: it stopped there.

    Source: Goodfellow, Bengio and Courville (2016), Deep Learning, section 5.2: under-
    and over-fitting by training error and the gap to the error on new rows.
    """
    skills = (training.skill, validation.skill, holdout.skill)
    numbers = (
        f"better than no skill by {skills[0]:.0%} on the rows it learned from, "
        f"{skills[1]:.0%} on validation, {skills[2]:.0%} on the hold-out"
    )
    verdict, words = _verdict(*skills, parameters)
    return FitVerdict(
        verdict=verdict,
        training_skill=skills[0],
        validation_skill=skills[1],
        holdout_skill=skills[2],
        detail=f"{words}: {numbers}",
    )


def _verdict(
    training: float, validation: float, holdout: float, parameters: Mapping[str, Any]
) -> tuple[Any, str]:
    if training < LEAST_SKILL:
        return "under_fit", "under-fit, it does not even know what it learned from"
    if validation < KEPT_SKILL * training:
        return (
            "over_fit",
            "over-fit, or the world changed: less than half is left on new rows",
        )
    if is_at_limit(parameters):
        steps = parameters["max_iter"]
        return "not_converged", f"stopped at its limit of {steps} steps"
    if holdout < KEPT_SKILL * validation:
        return "fades", "right on validation, and less than half of it on newer rows"
    return "good", "neither over-fit nor under-fit"


def is_at_limit(parameters: Mapping[str, Any]) -> bool:
    """Whether the solver ended because it might do no more steps.

    >>> is_at_limit({"iterations": 500, "max_iter": 500}), is_at_limit({"max_iter": 5})
    (True, False)
    """
    done, most = parameters.get("iterations"), parameters.get("max_iter")
    return done is not None and most is not None and done >= most
