"""The cleaning steps of a pipeline file: ``train.preprocessing``.

What each step does, on what it is fitted and what it is in the served graph is told in
docs/preprocessing.md.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from driftloop.contracts.base import Section
from driftloop.contracts.moments import fixed_moment, moment_text
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Family = Literal["number", "category", "text", "datetime"]
"""Columns of a family take the same steps."""
FAMILIES: dict[str, Family] = {
    "number": "number",
    "integer": "number",
    "boolean": "number",
    "category": "category",
    "text": "text",
    "datetime": "datetime",
}
Part = Literal["days", "hour", "weekday", "year_day", "weekend"]
"""What a model learns of a moment."""
CROSS_SIGN = "*"


class Steps(Section):
    """What becomes of one column on its way to the model, in this order."""

    outliers: Literal["keep", "clip"] = Field(
        default="keep", description="of numbers; clip: to the quantiles of training"
    )
    clip_quantiles: tuple[Share, Share] = Field(
        default=(0.01, 0.99), description="of `outliers: clip`"
    )
    missing: Literal["leave", "median", "mean", "most_frequent", "constant"] = Field(
        default="leave",
        description="what stands for a missing value; leave: a tree decides where it "
        "goes, linear and networks take the median, a category has no column",
    )
    fill: float | str | None = Field(default=None, description="of `missing: constant`")
    indicator: bool = Field(
        default=False, description="one more column: 1 where the value was missing"
    )
    transform: Literal["none", "log1p", "yeo_johnson", "quantile"] = Field(
        default="none", description="of numbers, before scaling"
    )
    scaling: Literal["none", "standard", "robust", "min_max"] = Field(
        default="none",
        description="of numbers; linear and networks standardise by themselves",
    )
    encoding: Literal["one_hot", "ordinal", "target", "hashing"] = Field(
        default="one_hot", description="of categories"
    )
    words: Literal["tfidf", "hashing"] = Field(default="tfidf", description="of texts")
    max_words: int = Field(
        default=1000, ge=1, le=50_000, description="of tfidf: words that most rows have"
    )
    parts: list[Part] = Field(
        default=["days", "hour", "weekday", "year_day", "weekend"],
        min_length=1,
        description="of moments, in UTC; `days` since the middle of training, a place "
        "on the circle of the day, of the week and of the year, 1 on a weekend",
    )
    max_categories: int | None = Field(
        default=None,
        ge=1,
        description="most frequent values that are told apart; empty: 64 for one_hot, "
        "else 10,000",
    )
    min_frequency: int = Field(
        default=1, ge=1, description="rarer values, or words, count as unknown"
    )
    smoothing: float = Field(
        default=10.0,
        ge=0,
        description="of target: rows that the overall mean counts as",
    )
    hash_columns: int = Field(default=32, ge=2, le=4096, description="of hashing")

    @model_serializer(mode="wrap")
    def _only_what_was_said(self, whole: SerializerFunctionWrapHandler) -> Any:
        """Leave out what the file did not say: it would count as said by a reader."""
        return {k: v for k, v in whole(self).items() if k in self.model_fields_set}

    @field_validator("fill", mode="before")
    @classmethod
    def _moment_is_written(cls, value: Any) -> Any:
        return (
            moment_text(fixed_moment(value)) if isinstance(value, datetime) else value
        )

    @field_validator("parts")
    @classmethod
    def _part_comes_once(cls, value: list[Part]) -> list[Part]:
        if len(set(value)) < len(value):
            raise ValueError("a part comes twice; name each once")
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "Steps":
        if self.missing == "constant" and self.fill is None:
            raise ValueError("missing: constant needs fill, the value to put there")
        if self.missing != "constant" and self.fill is not None:
            raise ValueError("fill belongs to missing: constant; add that or remove it")
        low, high = self.clip_quantiles
        if low >= high:
            raise ValueError(f"clip_quantiles [{low}, {high}] must grow")
        return self

    def misfits(self, family: Family) -> list[str]:
        """Name the set keys that columns of a family have no use for."""
        wrong = [key for key in self.model_fields_set if key in _FOREIGN[family]]
        if family in ("category", "text") and self.missing in ("median", "mean"):
            wrong.append("missing")
        if self.missing == "constant" and not self._fill_is_of(family):
            wrong.append("fill")
        return sorted(wrong)

    def _fill_is_of(self, family: Family) -> bool:
        if family == "datetime":
            return _is_moment(self.fill)
        return isinstance(self.fill, str) != (family == "number")


def _is_moment(value: Any) -> bool:
    try:
        fixed_moment(value)
    except ValueError:
        return False
    return True


NUMBER_KEYS = frozenset({"outliers", "clip_quantiles", "transform", "scaling"})
CATEGORY_KEYS = frozenset(
    {"encoding", "max_categories", "min_frequency", "smoothing", "hash_columns"}
)
FILLING = frozenset({"missing", "fill"})
TEXT_KEYS = frozenset({"words", "max_words"})
DATETIME_KEYS = frozenset({"parts"})
_FOREIGN: dict[Family, frozenset[str]] = {
    "number": CATEGORY_KEYS | TEXT_KEYS | DATETIME_KEYS,
    "category": NUMBER_KEYS | TEXT_KEYS | DATETIME_KEYS,
    "text": NUMBER_KEYS
    | CATEGORY_KEYS - {"min_frequency", "hash_columns"}
    | DATETIME_KEYS,
    "datetime": NUMBER_KEYS | CATEGORY_KEYS | TEXT_KEYS,
}


class Cross(Steps):
    """One more column: numbers' product, categories as one, days between moments."""

    columns: list[str] = Field(
        min_length=2, max_length=4, description="what is crossed"
    )

    @property
    def name(self) -> str:
        return CROSS_SIGN.join(self.columns)

    @model_validator(mode="after")
    def _each_once(self) -> "Cross":
        is_square = len(set(self.columns)) == 1 and len(self.columns) == 2
        if len(set(self.columns)) < len(self.columns) and not is_square:
            raise ValueError(f"{self.name} names a column twice; a square names two")
        return self


class PreprocessingSection(Section):
    """Cleaning, fitted on training rows and part of the served graph."""

    duplicates: Literal["keep", "drop"] = Field(
        default="keep",
        description="drop: of training rows that are equal in time, features and "
        "target only the first counts",
    )
    defaults: Steps = Field(
        default=Steps(), description="for each column where they fit its type"
    )
    columns: dict[str, Steps] = Field(
        default_factory=dict, description="by column: what is other than the defaults"
    )
    crosses: list[Cross] = Field(
        default_factory=list, description="feature crosses, each with its own steps"
    )

    def steps_of(self, name: str, family: Family) -> Steps:
        """Return the steps of a column: its own before the defaults that fit."""
        own = self.columns.get(name)
        return self._over_defaults(own, family)

    def steps_of_cross(self, cross: Cross, family: Family) -> Steps:
        """Return the steps of a feature cross."""
        return self._over_defaults(cross, family)

    def _over_defaults(self, own: Steps | None, family: Family) -> Steps:
        left_out = set(self.defaults.misfits(family))
        if left_out & FILLING:
            left_out |= FILLING
        chosen = self.defaults.model_dump(exclude_unset=True, exclude=left_out)
        if own is not None:
            said = own.model_dump(exclude_unset=True, exclude={"columns"})
            if "missing" in said:
                chosen.pop("fill", None)
            chosen |= said
        return Steps.model_validate(chosen)


def check_preprocessing(
    section: PreprocessingSection, feature_types: Mapping[str, str]
) -> None:
    """Refuse steps of columns that are not there or of another type.

    Parameters
    ----------
    feature_types : by column, all of them.

    Raises
    ------
    ValueError
        Names the column, the key and the remedy.
    """
    for name, steps in section.columns.items():
        if name not in feature_types:
            raise ValueError(
                f"train.preprocessing.columns names {name!r}, which is no feature; "
                f"features are {', '.join(feature_types)}"
            )
        _check_fit(f"train.preprocessing.columns.{name}", steps, feature_types[name])
    for cross in section.crosses:
        families = set()
        for name in cross.columns:
            if name not in feature_types:
                raise ValueError(
                    f"train.preprocessing.crosses names {name!r}, which is no feature; "
                    f"features are {', '.join(feature_types)}"
                )
            if feature_types[name] == "text":
                raise ValueError(
                    f"train.preprocessing.crosses: {name} is a text, which has no "
                    "cross; leave it out"
                )
            families.add(FAMILIES[feature_types[name]])
        where = f"train.preprocessing.crosses: {cross.name}"
        if families == {"datetime"}:
            if len(set(cross.columns)) != 2 or len(cross.columns) != 2:
                raise ValueError(
                    f"{where} is to be the days between two moments; name two columns"
                )
            _check_fit(where, cross, "number")  # of days
            continue
        if len(families) > 1:
            raise ValueError(
                f"{where} crosses "
                f"{' with '.join(_SEVERAL[f] for f in _SEVERAL if f in families)}; "
                "cross columns of one kind (a number that is a label can "
                "be of type category)"
            )
        _check_fit(where, cross, feature_types[cross.columns[0]])


_SEVERAL: dict[Family, str] = {
    "number": "numbers", "category": "categories", "datetime": "moments",
}  # fmt: skip


def cross_family(family: Family) -> Family:
    """Return what a cross of columns of a family is: days between moments are numbers.

    >>> cross_family("datetime"), cross_family("category")
    ('number', 'category')
    """
    return "number" if family == "datetime" else family


def _check_fit(where: str, steps: Steps, kind: str) -> None:
    for key in steps.misfits(FAMILIES[kind]):
        said = getattr(steps, key)
        if kind == "datetime" and key == "fill":
            raise ValueError(
                f"{where}: fill: {said} is no moment with an offset; write one such as "
                "2011-01-01T00:00:00Z"
            )
        raise ValueError(f"{where}: {key}: {said} is not for a {kind}; remove it")
