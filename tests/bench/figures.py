"""A measured figure beside what it is compared with, as table and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes
    ----------
    unit : of ``ours`` and ``peer_value``, for example ``rows/s``.
    peer : what it is compared with in the same run; None: nothing.
    """

    part: str
    name: str
    unit: str
    ours: float
    peer: str | None = None
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """``ours`` to ``peer_value``; for rates above 1 is faster than the peer."""
        return self.ours / self.peer_value if self.peer_value else None

    def as_json(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "peer_value": self.peer_value,
            "ratio": self.ratio,
        }


def write_figures(figures: Sequence[Figure], path: Path) -> None:
    """Write figures as JSON; parts that were not measured now stay as they were."""
    measured = {figure.part for figure in figures}
    kept = [line for line in _read(path) if line["part"] not in measured]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [*kept, *(figure.as_json() for figure in figures)]
    path.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def show_figures(figures: Iterable[Figure], console: Console) -> None:
    """Print figures as a table."""
    table = Table(title="driftloop, measured here and now")
    table.add_column("what", min_width=32)
    table.add_column("unit")
    for name in ("ours", "peer's", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("peer")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.unit,
            _short(figure.ours),
            _short(figure.peer_value),
            "" if figure.ratio is None else f"{figure.ratio:.2g}",
            figure.peer or "",
        )
    console.print(table)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
