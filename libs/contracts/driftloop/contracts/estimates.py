"""What a window of scored rows says of a model: before its labels land, and after.

A window is ``monitor.window_rows`` scored rows of production in a row. When it closes
its performance is estimated; when its labels have landed it is settled, and the
estimate is held against what was measured.
"""

from typing import Literal

from driftloop.contracts.base import Event, UtcTime, Value
from driftloop.contracts.events import Span
from driftloop.contracts.measures import GroupGap
from pydantic import Field

CONFIDENCE = 0.95
"""Of every interval here, both sides together."""

Verdict = Literal["ok", "degrading", "cannot_tell"]


class Figure(Value):
    """A value and the interval that it lies in, at 95 %."""

    value: float
    low: float
    high: float


class MetricEstimate(Figure):
    """What a metric is thought to be, before the labels are there."""

    metric: str = Field(examples=["log_loss", "accuracy", "roc_auc", "mae"])
    level: float = Field(description="what the last labelled rows say, unadjusted")


class Basis(Value):
    """What an estimate rests on."""

    row_count: int = Field(ge=0, description="labelled rows of this version")
    until: UtcTime | None = Field(default=None, description="newest of them")
    alike_count: float = Field(
        default=0.0,
        ge=0,
        description="of how many rows like the window's they say as much",
    )
    expected: float | None = Field(
        default=None, description="the pipeline's metric on the version's hold-out"
    )


class LabelsAwaited(Value):
    """Where labels stand: none is not the same as fine."""

    state: Literal["none_yet", "awaited", "late"] = Field(
        description="none_yet: no label of this pipeline's rows has landed ever; "
        "awaited: within the usual delay; late: beyond it"
    )
    watermark: UtcTime | None = Field(
        default=None, description="newest event time seen"
    )
    labelled_until: UtcTime | None = Field(
        default=None, description="newest row whose label has landed"
    )
    awaited_since: UtcTime | None = Field(
        default=None, description="event time from which on rows have no label"
    )
    usual_days: float | None = Field(
        default=None, description="longest usual wait, in event time; None: not known"
    )
    labelled_ratio: float | None = Field(
        default=None, ge=0, le=1, description="of the rows in windows that were settled"
    )


class PredictionDrift(Value):
    """How far answers are from those on what the version learned from."""

    detector: str
    effect: float = Field(description="0: alike, 1: nothing in common")
    p_value: float
    is_moved: bool


class BusinessMetric(Value):
    """A metric of the pipeline file's own; None: it could not be computed."""

    name: str
    value: float | None
    row_count: int = Field(ge=0)
    is_within: bool = Field(default=True, description="the limits of the file hold")
    detail: str = ""


class AnswerHealth(Value):
    """How the window's rows were answered, as far as the topics tell."""

    unanswered_count: int = Field(ge=0, description="rows without a finite answer")
    seconds_a_row: float = Field(ge=0, description="in the scorer, by batches")


class PerformanceEstimated(Event):
    """How good the served version is thought to be on rows without labels."""

    version: int
    window: int = Field(ge=1, description="counts the pipeline's windows")
    span: Span
    row_count: int = Field(ge=1)
    verdict: Verdict
    reason: str = Field(description="why, for people")
    estimates: list[MetricEstimate] = Field(
        default_factory=list, description="the pipeline's metric first; empty: none"
    )
    basis: Basis
    labels: LabelsAwaited
    prediction_drift: PredictionDrift | None = None
    business: list[BusinessMetric] = Field(
        default_factory=list, description="those that need no label"
    )
    health: AnswerHealth | None = None


class SettledMetric(Figure):
    """A metric as measured, beside what had been thought."""

    metric: str
    estimate: MetricEstimate | None = None


class CalibrationMeasured(Value):
    """Whether probabilities, or predicted numbers, meant what they said.

    ``error``, of classification: the expected calibration error beyond what chance
    gives; of regression: the mean error in standard deviations of the target, beyond
    its own standard error.
    """

    error: float = Field(ge=0)
    bin_count: int = Field(ge=1, description="of equally many rows")
    brier: float | None = Field(default=None, description="of classification")
    bias: float | None = Field(default=None, description="of regression: mean error")


class SliceMeasured(Figure):
    """The pipeline's metric on the rows of one value of a column."""

    column: str
    group: str = Field(description="value of the column", examples=["winter"])
    row_count: int = Field(ge=1)
    before: float | None = Field(
        default=None, description="on earlier settled rows; None: too few"
    )
    p_value: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="that it did not become worse than the other rows; Holm's over all",
    )


class EstimatorScore(Value):
    """How good the estimates of a version's windows have been."""

    window_count: int = Field(ge=0)
    mean_absolute_error: float | None = Field(
        default=None, description="in the unit of the pipeline's metric"
    )
    level_error: float | None = Field(
        default=None, description="that of taking the last labelled rows' instead"
    )
    coverage: float | None = Field(
        default=None, ge=0, le=1, description="windows whose interval held the truth"
    )


class PerformanceSettled(Event):
    """How good the version was on a window whose labels have landed."""

    version: int
    window: int = Field(ge=1)
    span: Span
    row_count: int = Field(ge=1)
    labelled_count: int = Field(ge=1, description="of the rows that were kept")
    kept_count: int = Field(ge=1, description="all, or evenly drawn from many")
    metrics: list[SettledMetric] = Field(min_length=1)
    calibration: CalibrationMeasured | None = None
    slices: list[SliceMeasured] = Field(default_factory=list)
    slice_count: int = Field(default=0, ge=0, description="tested")
    fairness: list[GroupGap] = Field(default_factory=list)
    business: list[BusinessMetric] = Field(default_factory=list)
    score: EstimatorScore
