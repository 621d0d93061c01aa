"""What changed between two dataset versions: schema, rows, distributions.

Distributions are compared by effect sizes, not by p-values: with enough rows every
difference is significant, and what matters is how large it is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from driftloop.runtime.data.profile import TECHNICAL, kind_of, payload_parts

Floats = npt.NDArray[np.float64]

D_WORDS = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"), (math.inf, "large"))
"""Of Cohen's d. Source: Cohen (1988), Statistical Power Analysis for the Behavioral
Sciences, 2nd ed., section 2.2.3."""
W_WORDS = ((0.1, "negligible"), (0.3, "small"), (0.5, "medium"), (math.inf, "large"))
"""Of Cohen's w. Source: the same, section 7.2.3."""
SCALE_RATIO = 1.5
"""Ratio of standard deviations from which a change of width is told."""
MIN_ROWS = 20
"""Of each side; below, an effect size says nothing."""
SHOWN_VALUES = 5
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Shift:
    """How one column's values differ.

    Attributes
    ----------
    effect : Cohen's d of numbers, Cohen's w of categories; ``inf`` for numbers that
        were constant and are another constant.
    size : the effect in a word.
    text : the change in words.
    """

    column: str
    effect: float
    size: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What the newer of two versions has that the older has not, and reverse.

    Attributes
    ----------
    added, removed, changed : rows, by id; changed: any value but the target's.
    labelled : rows whose target was unknown and now is known.
    relabelled : rows whose known target is another one now.
    columns_added, columns_removed : names.
    columns_retyped : name to old and new type.
    compared : what the distributions are of.
    shifts : by column, greatest effect first; columns without a comparison are
        left out.
    """

    added: int
    removed: int
    changed: int
    labelled: int
    relabelled: int
    columns_added: list[str] = field(default_factory=list)
    columns_removed: list[str] = field(default_factory=list)
    columns_retyped: dict[str, tuple[str, str]] = field(default_factory=dict)
    compared: str = ""
    shifts: list[Shift] = field(default_factory=list)


def compare(old: pl.DataFrame, new: pl.DataFrame, target: str) -> Difference:
    """Compare two versions' rows, joined with their labels.

    Where the newer one has added enough rows, the distributions are those of the
    added rows against the old ones, as rows that both have would water a change
    down; else those of the two versions as a whole.
    """
    added = new.join(old, on="id", how="anti")
    removed = old.join(new, on="id", how="anti")
    shared = [c for c in old.columns if c in new.columns and c not in TECHNICAL]
    pairs = old.select("id", *shared).join(new.select("id", *shared), on="id")
    was, now = pl.col(target), pl.col(f"{target}_right")
    values = [c for c in shared if c != target and old.schema[c] == new.schema[c]]
    is_other = [pl.col(c).ne_missing(pl.col(f"{c}_right")) for c in values]
    has_both = was.is_not_null() & now.is_not_null()
    is_grown = min(added.height, old.height) >= MIN_ROWS
    return Difference(
        added=added.height,
        removed=removed.height,
        changed=pairs.filter(pl.any_horizontal(is_other)).height if is_other else 0,
        labelled=pairs.filter(was.is_null() & now.is_not_null()).height,
        relabelled=pairs.filter(has_both & was.ne(now)).height,
        columns_added=[c for c in new.columns if c not in old.columns],
        columns_removed=[c for c in old.columns if c not in new.columns],
        columns_retyped={
            c: (str(old.schema[c]), str(new.schema[c]))
            for c in shared
            if old.schema[c] != new.schema[c]
            and pl.Null not in (old.schema[c], new.schema[c])
        },
        compared="rows added since against those before"
        if is_grown
        else "all rows of each version",
        shifts=shifts(old, added if is_grown else new, shared),
    )


def shifts(old: pl.DataFrame, new: pl.DataFrame, columns: list[str]) -> list[Shift]:
    """Return how columns' values differ, greatest effect first.

    References to payloads are compared by their media types and sizes, moments by their
    age at event time, which does not grow by itself.
    """
    found = [
        shift(part, before, after)
        for name in columns
        for part, before, after in _parts(name, old, new)
    ]
    return sorted(
        (one for one in found if one is not None), key=lambda s: (-s.effect, s.column)
    )


def _parts(
    name: str, old: pl.DataFrame, new: pl.DataFrame
) -> Iterator[tuple[str, pl.Series, pl.Series]]:
    before, after = old[name], new[name]
    kinds = {kind_of(before), kind_of(after)}
    if kinds == {"payload"}:
        later = payload_parts(after)
        for part, values in payload_parts(before).items():
            yield part, values, later[part]
    elif isinstance(before.dtype, pl.Datetime) and "event_time" in old.columns:
        yield f"{name}.age_days", _age_days(old, name), _age_days(new, name)
    else:
        yield name, before, after


def _age_days(rows: pl.DataFrame, name: str) -> pl.Series:
    """Return how long before its row's event time a moment is."""
    ends = (rows[column].dt.epoch("us") for column in ("event_time", name))
    now, then = ends
    return (now - then) / DAY_US


def shift(name: str, old: pl.Series, new: pl.Series) -> Shift | None:
    """Compare one column's values; None with too few of them, or other types."""
    kinds = {kind_of(old), kind_of(new)}
    if kinds <= {"number", "integer"}:
        return _of_numbers(name, _finite(old), _finite(new))
    if kinds <= {"category", "boolean"}:
        return _of_categories(name, old.drop_nulls(), new.drop_nulls())
    return None


def cohens_d(old: Floats, new: Floats) -> float:
    """Return the difference of means in pooled standard deviations.

    Source: Cohen (1988), section 2.2, formula 2.2.1, with the pooled deviation.

    >>> cohens_d(np.array([0.0, 2.0]), np.array([2.0, 4.0])).__round__(4)
    1.4142
    """
    freedom = len(old) + len(new) - 2
    pooled = (
        (len(old) - 1) * old.var(ddof=1) + (len(new) - 1) * new.var(ddof=1)
    ) / freedom
    difference = float(new.mean() - old.mean())
    if pooled > 0:
        return difference / math.sqrt(pooled)
    return math.copysign(math.inf, difference) if difference else 0.0


def cohens_w(old: dict[str, float], new: dict[str, float]) -> float:
    """Return the distance of two sets of shares, 0 to 1.

    Cohen's w of the table with a row of shares a side, so that a value that only
    one side has does no harm.

    Source: Cohen (1988), section 7.2, formula 7.2.1; both sides weigh the same.

    >>> cohens_w({"a": 1.0}, {"b": 1.0}), cohens_w({"a": 1.0}, {"a": 1.0})
    (1.0, 0.0)
    """
    total = 0.0
    for value in {*old, *new}:
        before, after = old.get(value, 0.0), new.get(value, 0.0)
        total += (before - after) ** 2 / (2 * (before + after))
    return math.sqrt(total)


def _of_numbers(name: str, old: Floats, new: Floats) -> Shift | None:
    if min(len(old), len(new)) < MIN_ROWS:
        return None
    effect = cohens_d(old, new)
    size = _word(abs(effect), D_WORDS)
    text = "as before"
    if size != "negligible":
        way = "higher" if effect > 0 else "lower"
        text = f"{size}: {way}, mean {old.mean():.4g} → {new.mean():.4g}"
    width, before = new.std(ddof=1), old.std(ddof=1)
    if before > 0 and not 1 / SCALE_RATIO <= width / before <= SCALE_RATIO:
        way = "wider" if width > before else "narrower"
        said = f"{way} spread, deviation {before:.4g} → {width:.4g}"
        text = said if size == "negligible" else f"{text}; {said}"
    return Shift(name, abs(effect), size, text)


def _of_categories(name: str, old: pl.Series, new: pl.Series) -> Shift | None:
    if min(len(old), len(new)) < MIN_ROWS:
        return None
    before, after = _shares(old), _shares(new)
    effect = cohens_w(before, after)
    size = _word(effect, W_WORDS)
    parts = [] if size == "negligible" else [f"{size}: {_greatest(before, after)}"]
    for word, values in (("new", {*after} - {*before}), ("gone", {*before} - {*after})):
        if values:
            shown = ", ".join(sorted(values)[:SHOWN_VALUES])
            more = " …" if len(values) > SHOWN_VALUES else ""
            parts.append(f"{word}: {shown}{more}")
    return Shift(name, effect, size, "; ".join(parts) or "as before")


def _greatest(before: dict[str, float], after: dict[str, float]) -> str:
    values = sorted({*before, *after})
    value = max(values, key=lambda v: abs(after.get(v, 0.0) - before.get(v, 0.0)))
    was, now = before.get(value, 0.0), after.get(value, 0.0)
    return f"{value} {was:.0%} → {now:.0%}"


def _shares(column: pl.Series) -> dict[str, float]:
    counts = column.cast(pl.String).alias("value").value_counts()
    return {value: count / len(column) for value, count in counts.iter_rows()}


def _finite(column: pl.Series) -> Floats:
    values = column.drop_nulls().cast(pl.Float64).to_numpy()
    finite: Floats = values[np.isfinite(values)]
    return finite


def _word(effect: float, words: tuple[tuple[float, str], ...]) -> str:
    return next(word for limit, word in words if effect < limit or limit == math.inf)
