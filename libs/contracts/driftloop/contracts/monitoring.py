"""What the monitor watches of a pipeline, and how closely."""

from typing import Literal

from driftloop.contracts.base import Ratio, Section
from pydantic import Field

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
