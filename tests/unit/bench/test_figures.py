"""What the benchmark writes down."""

import json
from pathlib import Path

import pytest

from tests.bench.figures import Figure, write_figures

SPEED = Figure("chain", "rows", "rows/s", 500.0, "bare Kafka", 1000.0)
HOP = Figure("chain", "hop", "ms", 7.0)
CHECK = Figure("data", "check", "rows/CPU-s", 3.0, "Polars", 4.0)


def test_ratio_is_ours_to_theirs() -> None:
    """Half the peer's speed is 0.5; without a peer there is no ratio."""
    assert SPEED.ratio == 0.5
    assert HOP.ratio is None


def test_parts_that_were_not_measured_stay(tmp_path: Path) -> None:
    """A new run of one part replaces that part only."""
    path = tmp_path / "build/bench.json"
    write_figures([SPEED, HOP], path)
    write_figures([CHECK], path)
    write_figures([HOP], path)
    lines = json.loads(path.read_text("utf-8"))
    assert [(line["part"], line["name"]) for line in lines] == [
        ("data", "check"),
        ("chain", "hop"),
    ]
    assert set(lines[0]) == {
        "part", "name", "unit", "ours", "peer", "peer_value", "ratio",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "{"])
def test_damaged_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    """Negative control: earlier figures are not dropped without a word."""
    path = tmp_path / "bench.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(json.JSONDecodeError):
        write_figures([HOP], path)
    assert path.read_text("utf-8") == text
