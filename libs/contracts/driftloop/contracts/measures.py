"""What a trainer measures of a model beyond its loss; the registry's gate decides.

All of it is about the served graph on the frozen hold-out, and depends on nothing but
the training's inputs: how fast a model is on some machine stands elsewhere.
"""

from typing import Literal

from driftloop.contracts.base import Value
from pydantic import Field


class SliceResult(Value):
    """Both models on the hold-out rows of one value, or one range, of a column.

    The losses are in the unit of the pipeline's metric.
    """

    column: str
    value: str = Field(examples=["winter", "0.2 to 0.4"])
    row_count: int = Field(ge=1)
    candidate: float
    other: float = Field(description="champion's loss, or the baseline's without one")
    p_value: float = Field(
        ge=0, le=1, description="that it is not worse; Holm's over all slices"
    )
    p_better: float = Field(
        default=1, ge=0, le=1, description="that it is not better; likewise"
    )


class Degradation(Value):
    """What is left of a model's worth when its inputs are not as they should be.

    ``lost`` is the share of the advantage over no skill that goes: 0 nothing, 1 all of
    it, above 1 worse than no skill.
    """

    lost: float
    champion_lost: float | None = None
    feature: str | None = Field(default=None, description="the worst one")
    non_finite_count: int = Field(default=0, ge=0, description="answers that are none")


class Robustness(Value):
    """How answers bear inputs that are a little, or very, wrong."""

    row_count: int = Field(ge=1)
    noise: Degradation | None = Field(default=None, description="None: no numbers")
    missing: Degradation | None = None
    outliers: Degradation | None = Field(default=None, description="None: no numbers")
    flip_ratio: float | None = Field(
        default=None,
        description="sure answers that a small change of the inputs turns over",
    )
    champion_flip_ratio: float | None = None


class Calibration(Value):
    """Whether answers mean what they say.

    ``error``, for classification: the expected calibration error beyond what chance
    gives a calibrated model. For regression: the mean error in standard deviations of
    the target, beyond its own standard error.
    """

    error: float = Field(ge=0)
    champion_error: float | None = None
    brier: float | None = Field(default=None, description="of classification")
    bias: float | None = Field(default=None, description="of regression: mean error")
    slope: float | None = Field(
        default=None, description="of regression: actual on predicted; 1 is right"
    )
    coverage: float | None = Field(
        default=None,
        description="of regression: hold-out errors between the validation errors' "
        "5 % and 95 % quantiles; 0.9 is right",
    )


class FitVerdict(Value):
    """Whether training took from its rows what there is to take, and no more.

    Skills are 1 minus the loss over that of no skill on the same rows.
    """

    verdict: Literal["good", "under_fit", "over_fit", "fades", "not_converged"]
    training_skill: float
    validation_skill: float
    holdout_skill: float
    detail: str


class GroupGap(Value):
    """How differently a model treats the groups of one column.

    ``difference``, for classification: the greater of the demographic parity and the
    equalized odds difference. For regression ``loss_ratio``: the worst group's loss
    over the best one's.
    """

    column: str
    group_count: int = Field(ge=0)
    difference: float | None = None
    champion_difference: float | None = None
    loss_ratio: float | None = None
    champion_loss_ratio: float | None = None
    detail: str = ""


class Reproducibility(Value):
    """Whether the same rows and seed gave the same bytes again."""

    same: bool
    row_count: int = Field(ge=1)


class Parity(Value):
    """Greatest difference of the served graph from the library's own answer.

    Of a probability, or of a prediction in standard deviations of the target.
    """

    difference: float = Field(ge=0)
    tolerance: float = Field(gt=0)


class Refit(Value):
    """The served model, which has learned the hold-out too, on the hold-out.

    Not a measure of its worth: rows that it knows can only show that fitting it again
    went wrong.
    """

    row_count: int = Field(ge=1, description="that it has learned from")
    loss: float
    mean_difference: float = Field(description="to the model that was judged, a row")
    standard_error: float = Field(ge=0)


class Measures(Value):
    """All of it, short; ``evaluation.json`` in the package has the whole."""

    slices: list[SliceResult] = Field(
        default_factory=list, description="those with the smallest p-value"
    )
    slice_count: int = Field(default=0, ge=0, description="tested")
    fairness: list[GroupGap] = Field(default_factory=list)
    robustness: Robustness | None = None
    calibration: Calibration | None = None
    fit: FitVerdict | None = None
    parity: Parity | None = None
    reproducibility: Reproducibility | None = None
    refit: Refit | None = Field(default=None, description="None: served as judged")
