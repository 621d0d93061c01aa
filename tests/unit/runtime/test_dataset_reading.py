"""A version's rows with the labels of a moment, and what changed between versions."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, TableRef
from driftloop.runtime.data.comparison import compare, shift, shifts
from driftloop.runtime.data.inference import feature_of, schema_of
from driftloop.runtime.data.profile import profile_of, profiles_of, with_moments
from driftloop.runtime.data.reading import DatasetError, read_version, size_bytes

START = datetime(2011, 1, 1, tzinfo=UTC)


def rows(ids: str, days: list[int], **columns: list[object]) -> pl.DataFrame:
    times = [START + timedelta(days=day) for day in days]
    return pl.DataFrame({"id": list(ids), "event_time": times, **columns})


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    observations = rows("abc", [0, 1, 2], y=[None, None, 3.0], x=[1.0, 2.0, 3.0])
    labels = rows("aab", [1, 5, 2], y=[10.0, 11.0, 20.0], revision=[0, 1, 0])
    write_deltalake(tmp_path / "o", observations.to_arrow())
    write_deltalake(tmp_path / "l", labels.to_arrow())
    return DatasetRef(
        observations=TableRef(uri=str(tmp_path / "o"), version=0),
        labels=TableRef(uri=str(tmp_path / "l"), version=0),
    )


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (None, [11.0, 20.0, 3.0]),
        (5, [11.0, 20.0, 3.0]),
        (4, [10.0, 20.0, 3.0]),
        (1, [10.0, None, None]),
        (0, [None, None, None]),
    ],
)
def test_a_row_has_the_label_that_was_known(
    dataset: DatasetRef, day: int | None, expected: list[float | None]
) -> None:
    """The horizon is included; a later revision never leaks into the past."""
    known_at = None if day is None else START + timedelta(days=day)
    found = read_version(dataset, "y", None, known_at)
    assert found.sort("id")["y"].to_list() == expected
    assert found.height == 3


def test_a_dataset_without_labels_has_the_targets_that_came(
    dataset: DatasetRef,
) -> None:
    bare = DatasetRef(observations=dataset.observations)
    assert read_version(bare, "y", None)["y"].to_list() == [None, None, 3.0]
    assert read_version(bare, "z", None)["z"].null_count() == 3
    assert size_bytes(bare.observations, None) > 0


def test_a_version_that_is_not_there_is_said(dataset: DatasetRef) -> None:
    gone = TableRef(uri=dataset.observations.uri, version=7)
    with pytest.raises(DatasetError, match=r"at version 7: .*take a newer one"):
        read_version(DatasetRef(observations=gone), "y", None)


def test_a_file_that_is_gone_is_said(dataset: DatasetRef) -> None:
    (file,) = Path(dataset.observations.uri).glob("*.parquet")
    file.unlink()
    with pytest.raises(DatasetError, match="cannot be read at version 0"):
        read_version(dataset, "y", None)


def test_statistics_are_those_of_the_values() -> None:
    found = profile_of(pl.Series([0, 10, 20, None]))
    assert (found.type, found.null_count, found.is_unique) == ("integer", 1, True)
    assert found.spread is not None
    assert (found.spread.min, found.spread.median, found.spread.max) == (0, 10, 20)
    assert sum(found.spread.histogram) == 3
    sky = profile_of(pl.Series(["mist", "clear", "mist"]))
    assert [(f.value, f.count) for f in sky.frequent] == [("mist", 2), ("clear", 1)]
    assert not sky.is_unique


def test_statistics_of_odd_columns() -> None:
    odd = pl.DataFrame(
        {
            "id": ["a", "b"],
            "constant": [1.0, 1.0],
            "infinite": [math.inf, 1.0],
            "empty": pl.Series([None, None], dtype=pl.Float64),
            "nothing": [None, None],
        }
    )
    found = profiles_of(odd)
    assert set(found) == {"constant", "infinite", "empty", "nothing"}
    assert found["constant"].spread is not None
    assert found["constant"].spread.histogram == [2]
    assert found["infinite"].spread is not None
    assert found["infinite"].spread.max == 1.0
    assert found["empty"].spread is None
    assert found["nothing"].null_count == 2


def test_a_difference_counts_rows_by_what_became_of_them() -> None:
    old = rows("abcd", [0] * 4, x=[1.0] * 4, y=[None, 1.0, 1.0, 1.0], gone=[1] * 4)
    new = rows("abce", [0] * 4, x=[1, 1, 9, 1], y=[5.0, 6.0, 1.0, None], new=[1] * 4)
    found = compare(old, new.with_columns(pl.col("x").cast(pl.Float64)), "y")
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    assert (found.labelled, found.relabelled) == (1, 1)
    assert (found.columns_added, found.columns_removed) == (["new"], ["gone"])
    assert found.shifts == []  # too few rows for an effect size
    retyped = compare(old, new, "y")
    assert retyped.columns_retyped == {"x": ("Float64", "Int64")}


def test_the_same_version_differs_in_nothing() -> None:
    same = rows("abc", [0] * 3, x=[1.0, None, math.nan], y=[1.0, None, 2.0])
    found = compare(same, same, "y")
    assert (found.added, found.removed, found.changed) == (0, 0, 0)
    assert (found.labelled, found.relabelled) == (0, 0)


def test_added_rows_are_compared_with_those_before() -> None:
    """Not with all rows of the newer version, in which the change would be watered."""

    def made(name: str, count: int, least: int) -> pl.DataFrame:
        ids = [f"{name}{n}" for n in range(count)]
        x = [n % 10 + least for n in range(count)]
        return pl.DataFrame({"id": ids, "x": x, "y": [0.0] * count})

    old, more = made("o", 400, 0), made("n", 40, 9)
    found = compare(old, pl.concat([old, more]), "y")
    (first, second) = found.shifts
    assert found.compared == "rows added since against those before"
    assert (first.column, first.size) == ("x", "large")
    assert first.text.startswith("large: higher, mean 4.5 → 13.5")
    assert (second.column, second.text) == ("y", "as before")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([0.0, 1.0] * 20, [0.0, 1.0] * 20, "as before"),
        ([0.0, 1.0] * 20, [-4.0, 5.0] * 20, "wider spread"),
        ([0.0, 1.0] * 20, [50.0, 51.0] * 20, "large: higher"),
        ([5.0] * 20, [4.0] * 20, "large: lower"),
        (["a", "b"] * 20, ["b", "a"] * 20, "as before"),
        (["a", "b"] * 20, ["c"] * 40, "new: c; gone: a, b"),
        ([True, False] * 20, [True] * 40, "large: "),
    ],
)
def test_a_shift_is_told_in_words(
    old: list[object], new: list[object], said: str
) -> None:
    found = shift("x", pl.Series(old), pl.Series(new))
    assert found is not None
    assert said in found.text


def test_few_rows_or_other_types_are_not_compared() -> None:
    assert shift("x", pl.Series([1.0] * 19), pl.Series([2.0] * 40)) is None
    assert shift("x", pl.Series([1.0] * 40), pl.Series(["a"] * 40)) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], (0.5, 2.5)),
        ([0.0, 1.0], (0.0, 1.5)),
        ([-3.0, -1.0], (-4.0, 0.0)),
        ([-1.0, 1.0], (-2.0, 2.0)),
        ([7.0, 7.0], (7.0, 7.0)),
        ([0.123456, 0.123456], (0.123456, 0.1235)),
        ([1, 2, 3, 4], (1, 4)),
        ([1, 4], (0, 6)),
    ],
)
def test_an_inferred_range_is_generous_and_keeps_its_sign(
    values: list[float], expected: tuple[float, float]
) -> None:
    found = feature_of(profile_of(pl.Series(values)))
    assert (found.min, found.max) == expected


def test_moments_are_a_feature_without_a_range() -> None:
    texts = ["2011-01-01T06:00:00", None, "2012-01-01"]
    rows = pl.DataFrame({"seen": [START] * 3, "day": [START.date()] * 3, "at": texts})
    found = schema_of(profiles_of(with_moments(rows), ()))
    assert {name: column.feature.type for name, column in found.items()} == (
        dict.fromkeys(("seen", "day", "at"), "datetime")
    )
    at = found["at"]
    assert (at.feature.min, at.feature.max, at.feature.nullable) == (None, None, True)
    assert at.profile is not None
    assert str(at.profile.first) == "2011-01-01 06:00:00+00:00"
    assert str(at.profile.last) == "2012-01-01 00:00:00+00:00"


def test_of_moments_the_age_at_event_time_is_compared() -> None:
    def opened(days: int, older: int = 0) -> pl.DataFrame:
        times = [START + timedelta(days=days, hours=at) for at in range(100)]
        then = [when - timedelta(days=older + at % 9) for at, when in enumerate(times)]
        return pl.DataFrame({"event_time": times, "opened": then})

    (passed,) = shifts(opened(0), opened(400), ["opened"])
    assert (passed.column, passed.text) == ("opened.age_days", "as before")
    (aged,) = shifts(opened(0), opened(400, older=9), ["opened"])
    assert aged.text == "large: higher, mean 3.96 → 12.96"


def test_free_text_has_no_list_of_values() -> None:
    names = feature_of(profile_of(pl.Series([f"name {n}" for n in range(40)])))
    codes = feature_of(profile_of(pl.Series(["a", "b"] * 20)))
    assert (names.type, names.values) == ("category", None)
    assert codes.values == ["a", "b"]


def test_durations_and_empty_columns_are_no_features() -> None:
    rows = pl.DataFrame({"took": [START - START], "empty": [None], "x": [1.0]})
    assert list(schema_of(profiles_of(rows))) == ["x"]
    bare = schema_of(profiles_of(rows), with_rules=False)["x"].feature
    assert (bare.min, bare.max) == (None, None)
