"""What the monitor watches of a pipeline, and how closely."""

from typing import Literal

from driftloop.contracts.base import Ratio, Section
from driftloop.contracts.checks import unsafe_sql
from pydantic import Field, field_validator, model_validator

MAX_METRICS = 20
MAX_EXPRESSION_CHARS = 500


class BusinessMetricRule(Section):
    """A metric of one's own: a number a row, and what becomes of a window's."""

    name: str = Field(min_length=1, max_length=60, description="how it is called")
    expression: str = Field(
        min_length=1,
        max_length=MAX_EXPRESSION_CHARS,
        description="SQL for one row: its features, `prediction`, `label`, `score`",
    )
    aggregate: Literal["mean", "sum", "quantile"] = Field(
        default="mean", description="over the rows of a window"
    )
    quantile: Ratio = Field(default=0.5, description="which, for `quantile`")
    min: float | None = Field(default=None, description="below it people are told")
    max: float | None = Field(default=None, description="above it people are told")

    @field_validator("expression")
    @classmethod
    def _is_restricted(cls, value: str) -> str:
        if found := ", ".join(dict.fromkeys(unsafe_sql(value))):
            raise ValueError(
                f"{found} is not allowed in an expression; use columns, operators "
                "and plain functions such as abs, round, coalesce, case"
            )
        return value

    @model_validator(mode="after")
    def _limits_leave_room(self) -> "BusinessMetricRule":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"metric {self.name!r}: min {self.min:g} is above max {self.max:g}; "
                "swap them"
            )
        return self


ErrorDetector = Literal[
    "mixture",
    "page_hinkley",
    "adwin",
    "kswin",
    "ddm",
    "eddm",
    "hddm_a",
    "hddm_w",
]
FeatureTest = Literal[
    "KS", "PSI", "Wasserstein", "Jensen-Shannon", "correlation", "MMD", "classifier"
]
WindowKind = Literal["tumbling", "hopping"]


class MonitorSection(Section):
    """What is watched and who is told."""

    window_rows: int = Field(default=168, ge=20, description="rows of one window")
    window: WindowKind = Field(
        default="tumbling",
        description="of inputs: tumbling looks at each row once, hopping four times",
    )
    feature_tests: list[FeatureTest] = Field(
        default=["KS"],
        min_length=1,
        description="tests of the inputs; categories are always tested by chi-square",
    )
    feature_alpha: float = Field(
        default=0.001, gt=0, lt=1, description="false alarms a feature test may raise"
    )
    error_detector: ErrorDetector = Field(
        default="page_hinkley",
        description="what finds a rise of the error; mixture is often earlier",
    )
    error_sensitivity: float = Field(
        default=1.0, gt=0, description="above 1: alarms earlier, and more often falsely"
    )
    fault_ratio: Ratio = Field(
        default=0.2, description="share of bad rows in a window that is a fault"
    )
    fault_false_alarms: float | None = Field(
        default=None,
        ge=0.005,
        le=0.2,
        description="in place of `fault_ratio`: a share that, by what was usual of the "
        "column, so many of all windows exceed ([alerts.md](alerts.md#thresholds))",
    )
    estimate: bool = Field(
        default=True,
        description="performance is estimated before labels land: "
        "[estimates](estimates.md)",
    )
    tolerated_rise: float = Field(
        default=0.25,
        ge=0,
        description="share by which an estimated loss may exceed the hold-out's before "
        "it is called degrading",
    )
    metrics: list[BusinessMetricRule] = Field(
        default=[],
        max_length=MAX_METRICS,
        description="metrics of one's own: "
        "[estimates](estimates.md#metrics-of-your-own)",
    )

    @field_validator("metrics")
    @classmethod
    def _names_differ(
        cls, metrics: list[BusinessMetricRule]
    ) -> list[BusinessMetricRule]:
        names = [metric.name for metric in metrics]
        if len(set(names)) < len(names):
            raise ValueError("two metrics have the same name; rename one of them")
        return metrics
