"""Runs the demo from an empty folder to its last table."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from driftloop.cli.context import Installation
from driftloop.cli.demo.live import LiveScreen
from driftloop.cli.demo.report import checks, errors_by_month, final_screen
from driftloop.cli.demo.scenario import Board, Quiet, Scenario
from driftloop.cli.log import CHAIN_TOPICS, follow_log
from driftloop.cli.publish import Part
from driftloop.contracts import events as e
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import read_package
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.transport import Publisher
from rich.console import Console

SPEED_DAYS_PER_S = 6.0
"""Two years in about two minutes; a run on 2 cores ends within four."""
SETTLE_TIMEOUT_S = 90.0
"""Without a word of the chain, after the last row."""


class DemoError(Exception):
    """The demo could not be run to its end."""


def run_demo(
    console: Console,
    installation: Installation,
    publisher: Publisher,
    folder: Path,
    spec: PipelineSpec,
    *,
    until: datetime | None = None,
    speed_days_per_s: float = SPEED_DAYS_PER_S,
    links: str = "",
) -> bool:
    """Publish the example, show the chain, tell the story.

    Returns
    -------
    bool
        Whether the run kept the demo's promises.

    Raises
    ------
    DemoError
        When the chain did not come to rest.
    """
    scenario = Scenario.load(folder, spec, until)
    board = Board(spec.name)
    with followed(installation, board):
        screen = LiveScreen(console, scenario, board)
        stop = threading.Event()

        def sent(part: Part) -> None:
            screen.sent(part.due)

        with screen.shown():
            try:
                scenario.publish(publisher, board, speed_days_per_s, sent, stop)
                settle(board, scenario)
            finally:
                stop.set()
        errors = errors_by_month(scenario, board, first_model(installation, board))
        found = checks(board, errors)
        console.print(final_screen(board, errors, found))
        if links:  # not in a frame, which would cut addresses
            console.print(f"\nlook further\n{links}\n", soft_wrap=True)
        return all(check.holds for check in found)


@contextmanager
def followed(installation: Installation, board: Board) -> Iterator[None]:
    """Keep ``board`` up to date with the log during the block."""
    follower = follow_log(
        installation.bootstrap, CHAIN_TOPICS, installation.store, board.take
    )
    try:
        yield
    finally:
        follower.stop()


def settle(board: Board, scenario: Scenario) -> None:
    """Wait until everything published was measured and no work is under way.

    Raises
    ------
    DemoError
        When the chain has fallen silent before.
    """
    last = scenario.rows[scenario.spec.data.time].max()
    end = datetime.fromisoformat(str(last)).astimezone(UTC)
    quiet = Quiet(board)
    while quiet.for_s() < SETTLE_TIMEOUT_S:
        with board.changed:
            measured = board.measured_until
            idle = not board.running_jobs
        if idle and measured is not None and measured >= end:
            return
        board.wait(lambda _: False, 0.5)
    raise DemoError(
        f"the chain did not come to rest: published until {end:%Y-%m-%d %H:%M}, "
        f"measured until {board.measured_until}; running jobs: "
        f"{', '.join(board.running_jobs) or 'none'}; look at: driftloop status"
    )


def first_model(installation: Installation, board: Board) -> OnnxModel:
    """Return the first version that was in service.

    Raises
    ------
    DemoError
        When none ever was.
    """
    deployed = board.of(e.ModelDeployed)
    if not deployed or not isinstance(deployed[0].event, e.ModelDeployed):
        raise DemoError("no model went into service; look at: driftloop status")
    trusted = TrustedKeys.from_folder(installation.home / "keys" / "trusted")
    package = read_package(deployed[0].event.package, installation.store, trusted)
    return OnnxModel.from_package(package)
