"""Checks of the pipeline's own package run only where the installation allows it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from driftloop.contracts.checks import FunctionCheck, PanderaCheck
from driftloop.validator.columns import Failure
from driftloop.validator.custom import CustomChecks

FRAME = pl.DataFrame({"x": [1.0, 2.0, 3.0], "k": ["a", "b", None]})
MODULE = '''
import polars as pl

def small(rows):
    """x is below 3."""
    return rows["x"] < 3

def as_numpy(rows):
    return rows["x"].to_numpy() < 3

def unknown_passes(rows):
    return rows["k"] == "a"

def named(rows):
    return {"x is small": rows["x"] < 2, "k is there": rows["k"].is_not_null()}

def texts(rows):
    return ["the total is 6"] if rows["x"].sum() == 6 else []

def fine(rows):
    return []

def total(rows):
    """The total is below 5."""
    return bool(rows["x"].sum() < 5)

def broken(rows):
    return rows["y"]

def too_short(rows):
    return [True]

def no_mask(rows):
    return rows["x"]
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bikes_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "checks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("bikes_of_test")]:
        del sys.modules[name]


def run(name: str, allowed: list[str] | None = None) -> list[Failure]:
    rule = FunctionCheck(check="function", function=f"bikes_of_test.checks:{name}")
    checks = CustomChecks(["bikes_of_test"] if allowed is None else allowed)
    return list(checks(rule, FRAME))


def told(found: list[Failure]) -> list[tuple[str, list[bool]]]:
    return [(failure.detail, failure.mask.tolist()) for failure in found]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", [("x is below 3.", [False, False, True])]),
        ("as_numpy", [("the row is not right", [False, False, True])]),
        ("unknown_passes", [("the row is not right", [False, True, False])]),
        (
            "named",
            [
                ("x is small", [False, True, True]),
                ("k is there", [False, False, True]),
            ],
        ),
        ("texts", [("the total is 6", [True] * 3)]),
        ("total", [("The total is below 5.", [True] * 3)]),
        ("fine", []),
    ],
)
def test_what_a_function_may_return(
    name: str, expected: list[tuple[str, list[bool]]]
) -> None:
    assert told(run(name)) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken", "raised ColumnNotFoundError"),
        ("too_short", "3 booleans"),
        ("no_mask", "3 booleans"),
        ("gone", "cannot be imported"),
    ],
)
def test_a_broken_function_lets_no_row_pass(name: str, says: str) -> None:
    ((detail, mask),) = told(run(name))
    assert says in detail
    assert mask == [True] * 3


def test_the_guides_check_finds_the_wrong_row(package: Path) -> None:
    """As docs/guides/own-parts.md shows it; the other rows are right."""
    page = (Path(__file__).parents[3] / "docs/guides/own-parts.md").read_text("utf-8")
    section = page.split("## A check\n")[1].split("\n## ")[0]
    code = section.split("```python\n")[1].split("```")[0]
    (package / "guide.py").write_text(code)
    path = "bikes_of_test.guide:warm_enough_for_summer"
    rule = FunctionCheck(check="function", function=path)
    rows = pl.DataFrame({"season": [3, 3, 1], "temp": [0.5, 0.0, 0.0]})
    found = list(CustomChecks(["bikes_of_test"])(rule, rows))
    assert told(found) == [("Summer is not freezing.", [False, True, False])]


@pytest.mark.parametrize(
    "allowed", [[], ["bikes"], ["bikes_of_test.other"], ["bikes_of_test.checks.small"]]
)
def test_nothing_is_imported_that_is_not_allowed(
    allowed: list[str], package: Path
) -> None:
    marker = package / "imported"
    source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    (package / "checks.py").write_text(source + MODULE)
    ((detail, mask),) = told(run("small", allowed))
    assert "DRIFTLOOP_VALIDATOR_CHECK_MODULES='[\"bikes_of_test\"]'" in detail
    assert mask == [True] * 3
    assert not marker.exists()
    run("small", ["bikes_of_test.checks"])  # negative control: allowed, it is
    assert marker.exists()


@pytest.fixture
def schemas(package: Path) -> ModuleType:
    pandera = pytest.importorskip("pandera.polars")
    module = ModuleType("bikes_of_test.schemas")

    class Rows(pandera.DataFrameModel):
        x: float = pandera.Field(ge=0, lt=3)
        k: str = pandera.Field(isin=["a"], nullable=True)

    module.Rows = Rows  # type: ignore[attr-defined]
    module.schema = Rows.to_schema()  # type: ignore[attr-defined]
    module.wider = Rows.to_schema().add_columns(  # type: ignore[attr-defined]
        {"new": pandera.Column(str)}
    )
    sys.modules[module.__name__] = module
    return module


def by_pandera(name: str) -> list[tuple[str, np.ndarray]]:
    rule = PanderaCheck(check="pandera", pandera=f"bikes_of_test.schemas:{name}")
    found: Any = CustomChecks(["bikes_of_test"])(rule, FRAME)
    return [(f.field, f.mask.tolist()) for f in found]


@pytest.mark.parametrize("name", ["Rows", "schema"])
def test_a_pandera_schema_names_rows(name: str, schemas: ModuleType) -> None:
    found = by_pandera(name)
    assert found == [("x", [False, False, True]), ("k", [False, True, False])]


def test_a_column_that_pandera_misses_concerns_the_batch(schemas: ModuleType) -> None:
    assert [True] * 3 in [mask for _, mask in by_pandera("wider")]


def test_what_is_no_schema_is_told(schemas: ModuleType) -> None:
    schemas.other = str  # type: ignore[attr-defined]
    rule = PanderaCheck(check="pandera", pandera="bikes_of_test.schemas:other")
    ((detail, mask),) = told(list(CustomChecks(["bikes_of_test"])(rule, FRAME)))
    assert "no schema or model of pandera.polars" in detail
    assert mask == [True] * 3
