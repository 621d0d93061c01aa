"""docs/walk-through.md names functions and events that exist."""

import importlib
import re
from pathlib import Path

import pytest
from driftloop.contracts.topics import BY_NAME

PAGE = Path(__file__).parents[2] / "docs" / "walk-through.md"
FUNCTION = re.compile(r"`(driftloop(?:\.\w+)+):([\w.]+)`")


def functions() -> list[tuple[str, str]]:
    return FUNCTION.findall(PAGE.read_text())


def exists(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize(("module", "name"), functions())
def test_each_function_named_is_there(module: str, name: str) -> None:
    assert exists(module, name)


def test_a_function_that_is_not_there_is_found_out() -> None:
    assert not exists("driftloop.runtime.runner", "Runner.no_such")


def test_each_event_named_is_a_topic() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = [line.split("|")[4].strip().strip("`") for line in rows]
    events = [name for name in named if name not in {"event out", "---"}]
    assert len(events) == 11
    assert set(events) <= set(BY_NAME)
