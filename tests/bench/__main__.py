"""``make bench``: measure, print a table, write ``build/bench.json``."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tests.bench.figures import Figure, show_figures, write_figures

PARTS = (
    "data",
    "chain",
    "training",
    "registry",
    "scoring",
    "monitor",
    "detection",
    "quality",
    "backtest",
)
"""Each is a module beside this one with ``run() -> Iterator[Figure]``."""
ASKED_PARTS = ("causes", "devices", "estimate")
"""Only when they are named."""
RESULT = Path("build/bench.json")
PART_TIMEOUT_S = 1800


def measure(part: str, console: Console) -> list[Figure]:
    """Run one part in this process and return its figures."""
    module = importlib.import_module(f"tests.bench.{part}")
    figures = []
    for figure in module.run():
        beside = f", {figure.ratio:.2g} times {figure.peer}" if figure.ratio else ""
        console.print(f"  {figure.name}: {figure.ours:,.4g} {figure.unit}{beside}")
        figures.append(figure)
    return figures


def main() -> int:
    """Measure one part here, or each in a process of its own."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=(*PARTS, *ASKED_PARTS), help="default: all"
    )
    part = parser.parse_args().part
    console = Console()
    if part is None:  # settings of one part must not reach the next
        codes = [
            subprocess.run(
                [sys.executable, "-m", "tests.bench", name],
                timeout=PART_TIMEOUT_S,
                check=False,
            ).returncode
            for name in PARTS
        ]
        console.print(f"all figures: {RESULT}")
        return max(codes)
    console.print(f"[bold]{part}[/bold]; best read on an otherwise idle machine")
    figures = measure(part, console)
    write_figures(figures, RESULT)
    show_figures(figures, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
