"""The pipeline file: one YAML file, applied by ``driftloop apply FILE``.

Defaults are meant to be good enough that ``name``, ``task`` and ``data.target``
alone work. Unknown keys are refused, with the key that was probably meant.
"""

import difflib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from driftloop.contracts.alerting import AlertsSection, keys_at
from driftloop.contracts.approval import Approval
from driftloop.contracts.attachments import Attachment, check_attachments
from driftloop.contracts.base import NAME_PATTERN, Ratio, Section
from driftloop.contracts.checks import (
    CHECKS,
    AnyCheck,
    Severity,
    is_pattern,
    kind_of,
)
from driftloop.contracts.freeze import FreezeWindow
from driftloop.contracts.labelling import LabellingSection
from driftloop.contracts.moments import check_timezone, fixed_moment, moment_text
from driftloop.contracts.monitoring import MonitorSection
from driftloop.contracts.networks import NetworksSection
from driftloop.contracts.own_candidates import (
    OWN_KEYS,
    OwnCandidate,
    check_own_names,
    kind_of_candidate,
)
from driftloop.contracts.preprocessing import (
    Cross,
    PreprocessingSection,
    Steps,
    check_preprocessing,
)
from driftloop.contracts.privacy import PrivacyRule, check_rules
from driftloop.contracts.retraining import RetrainSection
from driftloop.contracts.sequences import check_lengths, check_sequences
from driftloop.contracts.sources import PullSource, SqlTable, check_names
from driftloop.contracts.validation import SearchSection, ValidationSection
from pydantic import (
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

Task = Literal["regression", "binary", "multiclass"]
AnswersLogged = Literal["all", "sample", "none"]
DEFAULT_PROJECT = "default"
RESERVED_COLUMNS = frozenset(
    {"id", "event_time", "source", "reason", "revision", "extra"}
)


class PipelineFileError(ValueError):
    """A pipeline file is not right; the text names the field and the remedy."""


def _limit(value: Any) -> float | datetime | None:
    """Read one end of a range: a number, or a moment with an offset."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return fixed_moment(value)
    except ValueError as error:
        raise ValueError(f"is no number, and {error}") from None


Limit = Annotated[
    float | datetime | None,
    PlainValidator(_limit, json_schema_input_type=float | datetime | None),
    PlainSerializer(
        lambda limit: moment_text(limit) if isinstance(limit, datetime) else limit,
        return_type=float | str | None,
        when_used="json",
    ),
]


class Feature(Section):
    """What values of one column are right."""

    type: Literal["number", "integer", "category", "boolean", "text", "datetime"] = (
        Field(
            default="number",
            description="what its values are; text: words, of which a model learns "
            "each; datetime: moments, of which it learns [parts]"
            "(preprocessing.md#moments)",
        )
    )
    min: Limit = Field(
        default=None,
        description="smallest right value; of a datetime a moment with an offset",
    )
    max: Limit = Field(default=None, description="largest right value")
    values: list[str | int | bool] | None = Field(
        default=None, description="allowed values"
    )
    pattern: str | None = Field(
        default=None,
        description="regular expression that a category's whole text matches",
    )
    nullable: bool = Field(default=False, description="whether a row may lack it")
    severity: Severity = Field(
        default="quarantine",
        description="of its range, values and pattern; a missing value or one of a "
        "wrong type is quarantined at least",
    )
    unit: str | None = Field(
        default=None, description="for people; named where a value is out of range"
    )

    @property
    def number_limits(self) -> tuple[float | None, float | None]:
        """``min`` and ``max`` of a number; None where there is no such end."""
        low, high = self.min, self.max
        return (
            None if isinstance(low, datetime) else low,
            None if isinstance(high, datetime) else high,
        )

    @property
    def moment_limits(self) -> tuple[datetime | None, datetime | None]:
        """``min`` and ``max`` of a datetime; None where there is no such end."""
        low, high = self.min, self.max
        return (
            low if isinstance(low, datetime) else None,
            high if isinstance(high, datetime) else None,
        )

    @model_validator(mode="after")
    def _range_is_one(self) -> "Feature":
        wanted = "moment" if self.type == "datetime" else "number"
        for key, limit in (("min", self.min), ("max", self.max)):
            if limit is not None and isinstance(limit, datetime) != (
                wanted == "moment"
            ):
                raise ValueError(
                    f"{key} of a {self.type} is a {wanted}"
                    + (", such as 2011-01-01T00:00:00Z" if wanted == "moment" else "")
                    + f", not {limit_text(limit)}; correct it or the type"
                )
        return self

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "Feature":
        low, high = self.number_limits
        if low is not None and high is not None and low > high:
            raise ValueError(f"min {low} is above max {high}; swap them")
        first, last = self.moment_limits
        if first is not None and last is not None and first > last:
            raise ValueError(
                f"min {moment_text(first)} is above max {moment_text(last)}; swap them"
            )
        return self

    @model_validator(mode="after")
    def _datetime_has_no_list(self) -> "Feature":
        for key in ("values", "unit") if self.type == "datetime" else ():
            if getattr(self, key) is not None:
                raise ValueError(
                    f"{key} is not for a datetime, whose moments are told by min and "
                    "max; remove it"
                )
        return self

    @model_validator(mode="after")
    def _pattern_is_one(self) -> "Feature":
        if self.pattern is None:
            return self
        if self.type != "category":
            raise ValueError(f"pattern is for a category, not {self.type}; remove it")
        if not is_pattern(self.pattern):
            raise ValueError(
                f"pattern {self.pattern!r} is no regular expression of Rust's regex "
                "(which has no look-around and no back-references); correct it"
            )
        return self


def limit_text(limit: float | datetime) -> str:
    """Return one end of a range as people write it.

    >>> limit_text(0.5), limit_text(fixed_moment("2011-01-01T00:00:00+01:00"))
    ('0.5', '2010-12-31T23:00:00Z')
    """
    return moment_text(limit) if isinstance(limit, datetime) else f"{limit:g}"


class Retention(Section):
    """What of a dataset may go; nothing by default."""

    keep_days: float | None = Field(
        default=None,
        gt=0,
        description="rows older than the newest batch by more go from new versions, "
        "a whole UTC day at a time; empty: all are kept",
    )
    keep_versions_days: float | None = Field(
        default=None,
        ge=1,
        description="older versions can no longer be read, but for those that a model "
        "was trained on (by the clock, not event time); empty: all are kept",
    )


class DataSection(Section):
    """Which columns there are and what they mean."""

    id: str = Field(default="id", description="upstream's column with the row id")
    time: str = Field(default="event_time", description="upstream's time column")
    timezone: str = Field(
        default="UTC", description="of times that are written without a zone"
    )
    target: str = Field(description="the column to predict")
    classes: list[str | int | bool] | None = Field(
        default=None,
        min_length=2,
        description="allowed values of the target; empty: binary takes the first two",
    )
    features: dict[str, Feature] = Field(
        default_factory=dict,
        description="empty: inferred from the first data, and shown",
    )
    attachments: dict[str, Attachment] = Field(
        default_factory=dict,
        description="columns that refer to images, texts and sounds by digest",
    )
    evolution: Literal["propose", "accept"] = Field(
        default="propose",
        description="of an inferred schema: propose: a person accepts a new column or "
        "value (`driftloop schema`); accept: both are taken up at once",
    )
    max_lateness_hours: float = Field(
        default=24 * 7,
        gt=0,
        description="a row older than the newest by more counts as late",
    )
    label_horizon_days: float = Field(
        default=90,
        gt=0,
        description="a label whose time is later than its row's by more is not used",
    )
    privacy: dict[str, PrivacyRule] = Field(
        default_factory=dict,
        description="what becomes of columns with personal data, before all else",
    )
    sources: list[PullSource] = Field(
        default_factory=list,
        description="where ingest fetches rows by itself",
    )
    retention: Retention = Field(
        default=Retention(), description="what of the dataset may go"
    )
    reference_rows: int = Field(
        default=1000,
        ge=100,
        description="first good rows that later ones are compared with; changing it "
        "takes them anew",
    )

    @field_validator("sources")
    @classmethod
    def _sources_have_their_names(cls, value: list[PullSource]) -> list[PullSource]:
        return check_names(value)

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, value: str) -> str:
        return check_timezone(value)

    @field_validator("features")
    @classmethod
    def _names_are_free(cls, value: dict[str, Feature]) -> dict[str, Feature]:
        taken = sorted(RESERVED_COLUMNS & set(value))
        if taken:
            raise ValueError(
                f"{', '.join(taken)} is a name driftloop uses for every row; "
                "rename the column upstream"
            )
        return value

    @model_validator(mode="after")
    def _a_named_feature_does_not_evolve(self) -> "DataSection":
        if self.features and self.evolution == "accept":
            raise ValueError(
                "evolution: accept is for a schema that is inferred; this file names "
                "features and so is the schema itself: leave evolution out"
            )
        return self

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> "DataSection":
        if self.target in self.features:
            raise ValueError(
                f"target {self.target!r} is also listed under features, which would "
                "leak the answer; remove it there"
            )
        if self.target in RESERVED_COLUMNS:
            raise ValueError(
                f"target {self.target!r} is a name driftloop uses for every row; "
                "rename the column upstream"
            )
        return self

    @model_validator(mode="after")
    def _attachments_are_told_apart(self) -> "DataSection":
        taken = {*RESERVED_COLUMNS, self.id, self.time, self.target, *self.features}
        check_attachments(self.attachments, taken, self.privacy)
        return self

    @model_validator(mode="after")
    def _privacy_leaves_what_is_needed(self) -> "DataSection":
        check_rules(
            self.privacy,
            row_id=self.id,
            fixed=(self.time, self.target),
            feature_types={name: f.type for name, f in self.features.items()},
        )
        return self


CandidateName = Literal[
    "gradient_boosting",
    "linear",
    "random_forest",
    "adaptive_forest",
    "hoeffding_adaptive_tree",
    "online_linear",
    "mlp",
    "gru",
    "tcn",
]

AnyCandidate = Annotated[
    Annotated[CandidateName, Tag("name")] | Annotated[OwnCandidate, Tag("own")],
    Discriminator(kind_of_candidate),
]

Window = Annotated[float, Field(gt=0)] | Literal["all", "since_drift"]
EnsembleName = Literal["average", "stacking", "experts"]


class TrainSection(Section):
    """What is trained and on which stretch of event time."""

    candidates: list[AnyCandidate] = Field(
        default=["gradient_boosting", "linear"],
        min_length=1,
        description="the best of them on validation is judged on the hold-out; a "
        "mapping with `import`, `name` and `parameters` is "
        "[a model of your own](training.md#a-model-of-your-own)",
    )
    metric: Literal["auto", "mae", "rmse", "log_loss"] = Field(
        default="auto",
        description="the loss that decides; auto: mae for regression, else log_loss",
    )
    window_days: float | None = Field(
        default=None, gt=0, description="newest stretch to learn from; None: all"
    )
    windows: list[Window] = Field(
        default=["all"],
        min_length=1,
        description="stretches of the training rows to try, the best on validation "
        "is taken: `all`, `since_drift` (from the start that the verdict names), or so "
        "many newest days",
    )
    recency_half_life_days: list[Annotated[float, Field(gt=0)] | None] = Field(
        default=[None],
        min_length=1,
        description="weightings to try: after so many days a row counts half; null: "
        "all count alike",
    )
    validation: ValidationSection = ValidationSection()
    search: SearchSection = SearchSection()
    networks: NetworksSection = NetworksSection()
    ensembles: list[EnsembleName] = Field(
        default=[],
        description="also try the candidates together: their mean (`average`), a "
        "weighted mean (`stacking`), for each value of a category its best (`experts`)",
    )
    continue_from_champion: bool = Field(
        default=False,
        description="also try to go on from the champion's state instead of from "
        "scratch; `window_days` does not bound what such a model has learned: "
        "[going on from the champion](training.md#going-on-from-the-champion)",
    )
    holdout_ratio: Ratio = Field(
        default=0.2, description="newest part of the window, only for judging"
    )
    holdout_days: float | None = Field(
        default=None, gt=0, description="that part is at most so long; None: any length"
    )
    refit: bool = Field(
        default=False,
        description="after the hold-out has judged it, the model learns all rows, the "
        "hold-out too, and is served so",
    )
    leave_out_faults: bool = Field(
        default=True,
        description="rows of sensor, schema and label faults are neither learned nor "
        "judged on: [rows of a fault](causes.md#rows-of-a-fault)",
    )
    min_rows: int = Field(
        default=500, ge=20, description="labelled rows without which nothing is trained"
    )
    timeout_minutes: float = Field(default=60, gt=0, description="of one training")
    seed: int = Field(default=0, description="same data and seed: same model")
    sequences: dict[str, list[str]] = Field(
        default={},
        description="by a name of yours: number features of one row that are one "
        "quantity at equal steps, oldest first; `gru` and `tcn` learn from them",
    )
    preprocessing: PreprocessingSection = PreprocessingSection()

    @field_validator("holdout_ratio")
    @classmethod
    def _something_is_left_on_both_sides(cls, value: float) -> float:
        if value in (0, 1):
            raise ValueError(
                "a model needs rows to learn from and rows to be judged on; "
                "take a value between 0 and 1, for example 0.2"
            )
        return value

    @field_validator("candidates")
    @classmethod
    def _own_names_are_free(cls, value: list[AnyCandidate]) -> list[AnyCandidate]:
        check_own_names(value, (*get_args(CandidateName), *get_args(EnsembleName)))
        return value

    @field_validator("sequences")
    @classmethod
    def _sequences_are_alike(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return check_lengths(value)


class FairnessLimits(Section):
    """Groups that a model may not treat too differently; off without columns."""

    columns: list[str] = Field(
        default=[], description="features whose values are groups, or ranges of them"
    )
    max_difference: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="classification: demographic parity and equalized odds difference",
    )
    max_loss_ratio: float = Field(
        default=1.25, ge=1, description="regression: worst group's loss to the best's"
    )


class RobustnessLimits(Section):
    """What wrong inputs may cost; shares of the advantage over no skill."""

    max_noise_loss: float | None = Field(
        default=None, gt=0, description="numbers with noise of a tenth of their spread"
    )
    max_missing_loss: float | None = Field(
        default=None, gt=0, description="the worst feature is missing"
    )
    max_outlier_loss: float | None = Field(
        default=None, gt=0, description="the worst number is ten spreads off"
    )
    max_flip_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="sure answers that a change of a tenth of the spread turns over",
    )


class GateSection(Section):
    """When a candidate is good enough to be registered as passing.

    A limit without a default blocks where the file sets it; else a usual one warns.
    """

    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1,
        description="that the candidate is better, by its paired losses",
    )
    min_improvement_ratio: float = Field(
        default=0.0, ge=0, description="of the champion's loss"
    )
    non_inferiority_margin: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the champion's loss; if set, it is enough that the "
        "candidate is not worse by more than that, at `confidence`",
    )
    max_latency_ms: float = Field(default=50, gt=0, description="one row, p99")
    max_memory_mib: float | None = Field(
        default=None, gt=0, description="that loading and answering 100 rows takes"
    )
    slices: list[str] | None = Field(
        default=None,
        description="features whose values, or ranges, may not become worse; empty: "
        "categories, booleans and integers of few values, as a warning",
    )
    max_slice_loss_ratio: float = Field(
        default=1.1, ge=1, description="a slice's loss to the champion's on it"
    )
    fairness: FairnessLimits = FairnessLimits()
    robustness: RobustnessLimits = RobustnessLimits()
    max_calibration_error: float | None = Field(
        default=None,
        gt=0,
        description="of probabilities; of the mean, in the target's spread",
    )
    fit: Literal["warn", "block"] = Field(
        default="warn", description="when training over-fits, under-fits, stops early"
    )
    reproducible: bool = Field(
        default=False,
        description="train again on newest rows: the bytes have to be the same",
    )

    @model_validator(mode="after")
    def _better_or_not_worse(self) -> "GateSection":
        if self.non_inferiority_margin is not None and self.min_improvement_ratio:
            raise ValueError(
                "min_improvement_ratio asks for a better candidate, "
                "non_inferiority_margin for one that is not worse; remove one of them"
            )
        return self


KEPT_HOURS = 168
"""Hours for which the log keeps rows: ``topics.ROWS_RETENTION``."""


PRODUCTION = "production"
"""The last environment of every pipeline, and the only one of most."""
MAX_ENVIRONMENTS = 8
EnvironmentName = Annotated[str, Field(pattern=NAME_PATTERN, examples=["staging"])]


class RolloutRules(Section):
    """How a version goes into service, and when it is taken back."""

    strategy: Literal[
        "shadow_then_canary", "canary", "blue_green", "rolling", "immediate"
    ] = Field(
        default="shadow_then_canary",
        description="shadow: it answers nobody, its answers are compared; "
        "[which one when](serving.md#strategies)",
    )
    shadow_rows: int = Field(
        default=100, ge=1, description="labelled rows compared before any exposure"
    )
    shadow_from: Literal["live", "replay"] = Field(
        default="live",
        description="replay: recorded rows and their labels are compared "
        "[at once](serving.md#shadow-by-replay); live rows count too",
    )
    replay_hours: float = Field(
        default=KEPT_HOURS,
        gt=0,
        le=KEPT_HOURS,
        description="of the log that is replayed, by its clock; it keeps 168",
    )
    steps: list[Ratio] = Field(default=[0.1, 0.5], description="canary shares")
    step_rows: int = Field(default=100, ge=1, description="labelled rows a step")
    max_error_ratio: Ratio = Field(default=0.0, description="failed rows allowed")
    max_loss_ratio: float = Field(
        default=1.1,
        gt=0,
        description="candidate's loss to champion's above which it is taken back",
    )
    max_latency_ratio: float | None = Field(
        default=20.0,
        gt=0,
        description="candidate's usual time of a call to champion's above which it is "
        "taken back, where that is more than 50 ms; null: off",
    )
    max_prediction_shift: Ratio | None = Field(
        default=None,
        description="share of rows on which candidate and champion may differ, known "
        "without labels; empty: any, as after a drift the right one differs much",
    )
    watch_rows: int = Field(
        default=200, ge=0, description="labelled rows watched after full"
    )

    @field_validator("steps")
    @classmethod
    def _steps_grow(cls, value: list[float]) -> list[float]:
        if value != sorted(set(value)) or any(step in (0, 1) for step in value):
            raise ValueError(
                "steps must grow and lie between 0 and 1 (shadow and full are "
                "added by themselves), for example [0.1, 0.5]"
            )
        return value

    @model_validator(mode="after")
    def _replay_has_a_shadow(self) -> Self:
        if self.shadow_from == "replay" and self.strategy != "shadow_then_canary":
            raise ValueError(
                f"shadow_from: replay asks for a shadow step, which strategy "
                f"{self.strategy} has not; use shadow_then_canary or shadow_from: live"
            )
        return self


class Environment(RolloutRules):
    """One that a version has to pass before production, and how it leaves it."""

    name: EnvironmentName = Field(
        description="of the scorers whose `DRIFTLOOP_SCORER_ENVIRONMENT` says it"
    )
    promote: Literal["automatic", "approval"] = Field(
        default="automatic",
        description="to the next one, once its rollout here has ended well: by "
        "itself, or when people say yes, by the rules of `rollout.approval`",
    )

    @field_validator("name")
    @classmethod
    def _is_not_the_last_one(cls, value: str) -> str:
        if value == PRODUCTION:
            raise ValueError(
                f"{PRODUCTION} is always the last environment and follows the keys "
                "of rollout itself; list only those before it"
            )
        return value


class RolloutSection(RolloutRules):
    """How a version goes into service."""

    prediction_tolerance: float = Field(
        default=0.0,
        ge=0,
        description="how far two numbers may lie apart, in the target's unit, before "
        "they differ; classes differ when they are not the same",
    )
    freeze: list[FreezeWindow] = Field(
        default_factory=list,
        description="windows of clock time in which no step forward is taken; going "
        "back always is",
    )
    approval: Approval = Approval()
    environments: list[Environment] = Field(
        default_factory=list,
        max_length=MAX_ENVIRONMENTS,
        description="that a version passes before production, in this order",
    )

    def rules_in(self, environment: Environment) -> "RolloutSection":
        """Return the rules of an environment before production.

        Freeze windows are production's: what comes before it disturbs nobody.
        """
        own = {name: getattr(environment, name) for name in RolloutRules.model_fields}
        return self.model_copy(update=own | {"freeze": [], "environments": []})

    @model_validator(mode="before")
    @classmethod
    def _environments_begin_with_these_rules(cls, values: Any) -> Any:
        """Write into each environment what it leaves to the keys of the section."""
        listed = values.get("environments") if isinstance(values, dict) else None
        if not isinstance(listed, list):
            return values
        own = {
            name: values[name] for name in RolloutRules.model_fields if name in values
        }
        return values | {"environments": [_filled(each, own) for each in listed]}

    @model_validator(mode="after")
    def _environments_have_their_names(self) -> Self:
        names = [environment.name for environment in self.environments]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"environments: two are called {twice!r}; give each a name of its own"
            )
        return self


def _filled(environment: Any, rules: dict[str, Any]) -> Any:
    """Return an environment with what it does not say itself.

    One with a strategy that has no shadow is not asked to replay one.
    """
    if not isinstance(environment, dict):
        return environment
    filled = rules | environment
    has_shadow = filled.get("strategy", "shadow_then_canary") == "shadow_then_canary"
    if not has_shadow and "shadow_from" not in environment:
        filled.pop("shadow_from", None)
    return filled


class ServingSection(Section):
    """How requests are answered."""

    log: AnswersLogged = Field(
        default="all",
        description="which answered requests are published, features and answers: "
        "[serving](serving.md#the-log-of-answers); sample: 500 rows a minute and "
        "version",
    )


class PipelineSpec(Section):
    """A whole pipeline file.

    Examples
    --------
    >>> parse_pipeline("{name: churn, task: binary, data: {target: left}}").name
    'churn'
    """

    name: str = Field(
        pattern=NAME_PATTERN, description="small letters, digits and hyphens"
    )
    task: Task = Field(description="what kind of value the target is")
    owner: str | None = Field(default=None, description="who is told")
    project: str = Field(
        default=DEFAULT_PROJECT,
        pattern=NAME_PATTERN,
        description="whose members may do something with it: "
        "[security](security.md#who-may-do-what)",
    )
    shared_with: list[Annotated[str, Field(pattern=NAME_PATTERN)]] = Field(
        default=[],
        description="projects whose members may also see it and ask for predictions",
    )
    description: str = Field(default="", description="for people")
    data: DataSection
    checks: list[AnyCheck] = Field(
        default=[], description="more than each column's rules: [below](#checks)"
    )
    train: TrainSection = TrainSection()
    gate: GateSection = GateSection()
    rollout: RolloutSection = RolloutSection()
    serving: ServingSection = ServingSection()
    monitor: MonitorSection = MonitorSection()
    alerts: AlertsSection = AlertsSection()
    retrain: RetrainSection = RetrainSection()
    labelling: LabellingSection = LabellingSection()
    automation: Literal["full", "approve", "advise"] = Field(
        default="full",
        description="full: no hand needed; approve: people say yes to each rollout; "
        "advise: people also start each training",
    )

    @property
    def metric(self) -> str:
        """The loss that decides; lower is better."""
        if self.train.metric != "auto":
            return self.train.metric
        return "mae" if self.task == "regression" else "log_loss"

    @model_validator(mode="after")
    def _checked_columns_exist(self) -> "PipelineSpec":
        known = {*self.data.features, self.data.target, "event_time", "source"}
        for check in self.checks:
            for name in getattr(check, "columns", ()) if self.data.features else ():
                if name not in known:
                    raise ValueError(
                        f"checks: {check.check} names column {name!r}, which is not "
                        f"under data.features; {_nearest(name, known)}"
                    )
        return self

    @model_validator(mode="after")
    def _judged_columns_exist(self) -> "PipelineSpec":
        named = {
            "gate.slices": self.gate.slices or [],
            "gate.fairness.columns": self.gate.fairness.columns,
        }
        for key, columns in named.items():
            for name in columns if self.data.features else ():
                if name not in self.data.features:
                    raise ValueError(
                        f"{key} names column {name!r}, which is not under "
                        f"data.features; {_nearest(name, self.data.features)}"
                    )
        return self

    @model_validator(mode="after")
    def _rows_to_label_can_be_found(self) -> "PipelineSpec":
        rule = self.data.privacy.get(self.data.id)
        if self.labelling.budget_rows and rule is not None and rule.action == "hash":
            raise ValueError(
                "labelling.budget_rows asks for rows by their ids, and nobody can tell "
                f"which row a hashed id is; set data.privacy.{self.data.id} to tokenise"
            )
        return self

    @model_validator(mode="after")
    def _training_window_is_kept(self) -> "PipelineSpec":
        kept, window = self.data.retention.keep_days, self.train.window_days
        if kept is not None and window is not None and window > kept:
            raise ValueError(
                f"train.window_days {window:g} asks for rows that "
                f"data.retention.keep_days {kept:g} drops; raise keep_days or lower "
                "window_days"
            )
        return self

    @model_validator(mode="after")
    def _preprocessed_columns_exist(self) -> "PipelineSpec":
        if self.data.features:  # else the trainer looks, when it knows the columns
            types = {name: f.type for name, f in self.data.features.items()}
            check_preprocessing(self.train.preprocessing, types)
            check_sequences(self.train.sequences, types)
        return self

    @model_validator(mode="after")
    def _shift_of_numbers_has_a_tolerance(self) -> "PipelineSpec":
        rollout = self.rollout
        is_asked = any(
            rules.max_prediction_shift is not None
            for rules in (rollout, *rollout.environments)
        )
        if self.task == "regression" and is_asked and not rollout.prediction_tolerance:
            raise ValueError(
                "rollout.max_prediction_shift counts numbers that differ, and two "
                "models hardly ever say the very same one; set "
                "rollout.prediction_tolerance, in the target's unit"
            )
        return self

    @model_validator(mode="after")
    def _metric_fits_task(self) -> "PipelineSpec":
        fits = {"mae", "rmse"} if self.task == "regression" else {"log_loss"}
        if self.metric not in fits:
            raise ValueError(
                f"train.metric {self.metric!r} does not fit task {self.task!r}; "
                f"use one of {', '.join(sorted(fits))} or leave it out"
            )
        return self


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "add it there"


def parse_pipeline(text: str) -> PipelineSpec:
    """Read a pipeline file's text.

    Raises
    ------
    PipelineFileError
        Names each wrong field, what is wrong and what to do.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PipelineFileError(f"not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise PipelineFileError(
            "a pipeline file is a mapping with at least name, task and data.target"
        )
    try:
        return PipelineSpec.model_validate(content)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise PipelineFileError("\n".join(lines)) from error


def load_pipeline(path: Path) -> PipelineSpec:
    """Read a pipeline file.

    Raises
    ------
    PipelineFileError
        Also when the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise PipelineFileError(f"cannot read {path}: {why}") from error
    return parse_pipeline(text)


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        inside = problem["loc"][:-1]
        is_alert = inside[:1] == ("alerts",)
        known = keys_at(inside[1:]) if is_alert else _known_keys(inside)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: missing; add it"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: say which check it is, as check: {', '.join(_CHECKS)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where or 'file'}: {message} (got {problem['input']!r:.80})"


_INNER: dict[str, type[Section]] = {
    "columns": Steps, "crosses": Cross, "freeze": FreezeWindow,
    "environments": Environment,
}  # fmt: skip
"""What stands in lists and mappings of sections."""
_CHECKS = {kind_of(check): check for check in CHECKS}


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = PipelineSpec
    if location[:1] == ("checks",):
        return sorted(_CHECKS[str(location[2])].model_fields)
    for part in location:
        if model is DataSection and part in ("features", "privacy"):
            return sorted((Feature if part == "features" else PrivacyRule).model_fields)
        if model is DataSection and part == "sources":
            inner = SqlTable if location[-1] == "sql" else PullSource
            return sorted(inner.model_fields)
        if model is TrainSection and part == "candidates":
            return sorted(OWN_KEYS)
        if model in (PreprocessingSection, RolloutSection) and part in _INNER:
            return sorted(_INNER[str(part)].model_fields)
        model = model.model_fields[str(part)].annotation
    return sorted(model.model_fields)
