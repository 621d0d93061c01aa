"""What sites of a federation agree on: the rules, and how rows become numbers.

The encoding comes from the pipeline file alone. Nothing of it is learned from rows,
since nobody may see the rows of all sites.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from driftloop.contracts.base import NAME_PATTERN, Value
from driftloop.contracts.preprocessing import PreprocessingSection
from pydantic import Field, model_validator

if TYPE_CHECKING:
    from driftloop.contracts.pipeline import Feature, PipelineSpec

MAX_WEIGHTS = 20_000
"""So that the weights, as text, stay a message of less than half a megabyte."""
MAX_SITES = 1000
SiteName = Annotated[str, Field(pattern=NAME_PATTERN, examples=["clinic-3"])]
Weights = Annotated[list[float], Field(max_length=MAX_WEIGHTS)]
RefusedBecause = Literal["late", "double", "unknown_round", "wrong_shape", "not_finite"]


class NotFederatedError(ValueError):
    """A pipeline cannot be trained by sites; the text names the field and remedy."""


class FederatedColumn(Value):
    """How one feature becomes columns of the matrix.

    Attributes
    ----------
    centre, half_range : of a number: it becomes (x - centre) / half_range, -1 to 1
        inside its range; a missing one 0.
    values : of a category: a column of 0 and 1 each; none for a missing or other one.
    """

    name: str
    type: Literal["number", "integer", "boolean", "category"]
    nullable: bool = False
    centre: float = 0.0
    half_range: float = Field(default=1.0, gt=0)
    values: list[str] = Field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.values) if self.type == "category" else 1


class FederatedEncoding(Value):
    """How a site's rows become a matrix and a target; the same at each site.

    Attributes
    ----------
    target_centre, target_half_range : of regression: what is learned is
        (y - centre) / half_range.
    """

    task: Literal["regression", "binary", "multiclass"]
    target: str
    classes: list[str] = Field(default_factory=list)
    columns: list[FederatedColumn] = Field(min_length=1)
    target_centre: float = 0.0
    target_half_range: float = Field(default=1.0, gt=0)

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    @property
    def output_count(self) -> int:
        """One a class where there are several, else one."""
        return len(self.classes) if self.task == "multiclass" else 1

    @property
    def weight_count(self) -> int:
        """Weights of all columns and a bias, for each output."""
        return self.output_count * (self.width + 1)


class LocalTraining(Value):
    """How each site trains in a round: plain stochastic gradient descent."""

    epochs: int = Field(default=1, ge=1, le=1000)
    batch_rows: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.5, gt=0, le=10)
    l2: float = Field(default=1e-4, ge=0, description="weight decay; not of the bias")


class FederationRules(Value):
    """What is fixed for all rounds when a federation is opened."""

    rounds: int = Field(ge=1, le=10_000)
    site_count: int = Field(
        ge=2, le=MAX_SITES, description="a round closes when so many have sent"
    )
    min_sites: int = Field(
        ge=2, description="fewer at the deadline, and the federation ends"
    )
    round_minutes: float = Field(default=60, gt=0, le=60 * 24 * 30)
    clip_norm: float = Field(
        default=10.0,
        gt=0,
        le=1e6,
        description="longest update (L2) that counts as it is",
    )
    trim_ratio: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="share of sites left out at each end, weight by weight; 0: the "
        "mean, weighted by rows",
    )
    local: LocalTraining = LocalTraining()

    @model_validator(mode="after")
    def _numbers_fit(self) -> "FederationRules":
        if self.min_sites > self.site_count:
            raise ValueError(
                f"min_sites {self.min_sites} is above site_count {self.site_count}; "
                "lower it"
            )
        if self.trim_ratio and int(self.trim_ratio * self.min_sites) < 1:
            raise ValueError(
                f"trim_ratio {self.trim_ratio:g} of min_sites {self.min_sites} leaves "
                "out nobody; raise one of them, or set trim_ratio to 0"
            )
        return self


class SiteShare(Value):
    """A site that took part in a round."""

    site: str
    row_count: int = Field(ge=1, description="as the site says it")
    norm: float = Field(ge=0, description="of its update (L2), before clipping")
    is_clipped: bool = False


class RefusedUpdate(Value):
    """An update that did not count, and why."""

    site: str
    reason: RefusedBecause
    detail: str


def encoding_of(
    spec: "PipelineSpec", target_range: tuple[float, float] | None = None
) -> FederatedEncoding:
    """Return the encoding that a pipeline file fixes.

    Parameters
    ----------
    target_range : least and greatest target, for regression; the file has none.

    Raises
    ------
    NotFederatedError
        Names all that the file leaves to be learned from rows.
    """
    if not spec.data.features:
        raise NotFederatedError(
            "data.features: the features are inferred from rows, and sites have "
            "different ones; name each with its type and its range or values"
        )
    problems = list(_problems(spec, target_range))
    if problems:
        raise NotFederatedError("\n".join(problems))
    low, high = target_range or (-1.0, 1.0)
    encoding = FederatedEncoding(
        task=spec.task,
        target=spec.data.target,
        classes=[_text(value) for value in spec.data.classes or []]
        if spec.task != "regression"
        else [],
        columns=[_column(name, f) for name, f in spec.data.features.items()],
        target_centre=(low + high) / 2,
        target_half_range=(high - low) / 2,
    )
    if encoding.weight_count > MAX_WEIGHTS:
        raise NotFederatedError(
            f"data.features: {encoding.weight_count} weights; {MAX_WEIGHTS} are "
            "possible: leave out categories of many values"
        )
    return encoding


def _problems(
    spec: "PipelineSpec", target_range: tuple[float, float] | None
) -> Iterator[str]:
    for name, feature in spec.data.features.items():
        yield from _feature_problems(name, feature)
        if name in spec.data.privacy:
            yield (
                f"data.privacy.{name}: the values of sites do not pass ingest, which "
                "applies the rule; leave the feature out"
            )
    if spec.train.preprocessing != PreprocessingSection():
        yield (
            "train.preprocessing: its steps are fitted on rows, which nobody has all "
            "of; leave it out"
        )
    if spec.task == "regression":
        if target_range is None:
            yield "target_min, target_max: regression needs both ends of its target"
        elif not target_range[0] < target_range[1]:
            yield (
                f"target_min {target_range[0]:g} is not below target_max "
                f"{target_range[1]:g}"
            )
    elif not spec.data.classes:
        yield "data.classes: name the classes; a site may not have rows of each"
    elif spec.task == "binary" and len(spec.data.classes) != 2:
        yield "data.classes: a binary task has two"


def _feature_problems(name: str, feature: "Feature") -> Iterator[str]:
    where = f"data.features.{name}"
    if feature.type == "text":
        yield f"{where}: words of a text are learned from rows; leave it out"
    elif feature.type == "datetime":
        yield f"{where}: parts of a moment are not for a federated model; leave it out"
    elif feature.type == "category" and not feature.values:
        yield f"{where}: add values, all that the category may have"
    elif feature.type in ("number", "integer"):
        low, high = feature.number_limits
        if low is None or high is None:
            yield f"{where}: add min and max, by which the number is scaled"
        elif low == high:
            yield f"{where}: min is max, so it says nothing; leave it out"


def _column(name: str, feature: "Feature") -> FederatedColumn:
    assert feature.type != "text"  # noqa: S101 - checked before
    assert feature.type != "datetime"  # noqa: S101 - checked before
    centre, half = 0.0, 1.0
    if feature.type in ("number", "integer"):
        low, high = feature.number_limits
        assert low is not None  # noqa: S101 - checked before
        assert high is not None  # noqa: S101 - checked before
        centre = (low + high) / 2
        half = (high - low) / 2
    values = feature.values or [] if feature.type == "category" else []
    return FederatedColumn(
        name=name,
        type=feature.type,
        nullable=feature.nullable,
        centre=centre,
        half_range=half,
        values=list(dict.fromkeys(_text(value) for value in values)),
    )


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
