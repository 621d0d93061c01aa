"""The demo's live screen; without a terminal, one line for each decision."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from driftloop.cli.demo.scenario import Board, Scenario
from driftloop.cli.describe import STYLES, describe
from driftloop.cli.log import Entry
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

CHAIN = (
    ("ingest", "batch-ingested"),
    ("validator", "batch-validated"),
    ("scorer", "batch-scored"),
    ("monitor", "performance-measured"),
    ("trainer", "model-trained"),
    ("registry", "model-registered"),
    ("deployer", "model-deployed"),
)
SHOWN_DECISIONS = 12
OTHER_LINES = 11
"""Of the screen around the decisions: progress, frames, chain, what is in service."""
LOSS_POINTS = 60
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = LOSS_POINTS) -> str:
    """Return the last values as a line of bars.

    >>> sparkline([0.0, 1.0])
    '▁█'
    """
    shown = values[-width:]
    if not shown:
        return ""
    top = max(shown) or 1.0
    return "".join(BARS[round(v / top * (len(BARS) - 1))] for v in shown)


def fitting(lines: int) -> int:
    """Return how many decisions a screen of so many lines has room for.

    >>> fitting(24), fitting(60)
    (12, 12)
    >>> fitting(18)
    7
    """
    return max(1, min(SHOWN_DECISIONS, lines - OTHER_LINES - 1))


def decision_line(entry: Entry, *, is_short: bool = False) -> Text:
    """One decision as a coloured line; short: cut where the line of a screen ends."""
    style = STYLES.get(entry.topic, "")
    line = Text(f"{entry.meta.time:%H:%M:%S} ", style="dim")
    if is_short:
        line.no_wrap, line.overflow = True, "ellipsis"
    line.append(f"{entry.topic:<18} ", style=style)
    line.append(describe(entry.event))
    return line


class LiveScreen:
    """Shows a board while a scenario runs."""

    def __init__(self, console: Console, scenario: Scenario, board: Board) -> None:
        self._console = console
        self._board = board
        self._printed = 0
        self._event_time: datetime | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("publishing", total=len(scenario.parts))

    def sent(self, event_time: datetime) -> None:
        """Move the progress bar by one message."""
        self._event_time = event_time
        self._progress.advance(self._task)
        self._progress.update(
            self._task, description=f"event time {event_time:%d %b %Y}"
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the screen during the block."""
        if not self._console.is_terminal:
            stop = threading.Event()
            thread = threading.Thread(target=self._print_lines, args=(stop,))
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
            return
        with Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=4,
            vertical_overflow="crop",
        ):
            yield

    def _print_lines(self, stop: threading.Event) -> None:
        while True:
            ended = stop.wait(0.5)
            with self._board.changed:
                fresh = self._board.decided[self._printed :]
            self._printed += len(fresh)
            for entry in fresh:
                when = f"[{self._event_time:%Y-%m-%d}] " if self._event_time else ""
                self._console.print(
                    Text(when, style="dim") + decision_line(entry), soft_wrap=True
                )
            if ended:
                return

    def _render(self) -> RenderableType:
        with self._board.changed:
            counts = dict(self._board.counts)
            decisions = list(self._board.decided)
            desired = self._board.desired
            losses = {k: [v for _, v in pts] for k, pts in self._board.losses.items()}
            training = bool(self._board.running_jobs)
            champion = self._board.champion
        room = fitting(self._console.height)
        return Group(
            self._progress,
            Panel(self._chain(counts, training), title="chain", title_align="left"),
            Panel(
                self._serving(champion, desired, losses),
                title="in service",
                title_align="left",
            ),
            Panel(
                Group(*(decision_line(d, is_short=True) for d in decisions[-room:])),
                title="decisions",
                title_align="left",
            ),
        )

    def _chain(self, counts: dict[str, int], training: bool) -> Table:
        grid = Table.grid(expand=True)
        for _ in CHAIN:
            grid.add_column(justify="center")
        names, numbers = [], []
        for service, topic in CHAIN:
            busy = training and service == "trainer"
            names.append(Text(service, style="bold cyan" if busy else "bold"))
            text = "training …" if busy else f"{counts.get(topic, 0):,}"
            numbers.append(Text(text, style="cyan" if busy else ""))
        grid.add_row(*names)
        grid.add_row(*numbers)
        rejected = counts.get("batch-rejected", 0)
        if rejected:
            grid.add_row("", Text(f"{rejected} with bad rows", style="yellow"))
        return grid

    def _serving(
        self,
        champion: int | None,
        desired: object,
        losses: dict[int, list[float]],
    ) -> Text:
        if champion is None:
            return Text("no model yet: waiting for enough labelled rows", style="dim")
        text = Text(f"v{champion}", style="bold green")
        candidate = getattr(desired, "candidate", None)
        if candidate is not None:
            share = getattr(desired, "candidate_share", 0.0)
            role = f"{share:.0%} of rows" if share else "shadow"
            text.append(f"   v{candidate.version} ({role})", style="magenta")
        values = losses.get(champion, [])
        text.append("\nerror ", style="dim")
        text.append(sparkline(values))
        text.append(f" {values[-1]:.4g}" if values else "not measured yet")
        return text
