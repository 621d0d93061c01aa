"""Where a long fit is: a file to go on from, and reports for people."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftloop.trainer.candidates.sample import Checkpoint, Watch

CHECKPOINT_S = 2.0
"""Between two checkpoints: what a kill costs at most."""
REPORT_S = 1.0


@dataclass(frozen=True)
class FitProgress:
    """How far one fit is.

    Attributes
    ----------
    loss : on the newest training rows; None: the candidate knows none.
    resumed_from : iteration of the checkpoint that this try goes on from.
    """

    candidate: str
    iteration: int
    iteration_count: int
    loss: float | None = None
    resumed_from: int | None = None

    @property
    def ratio(self) -> float:
        return self.iteration / max(1, self.iteration_count)


class FitWatch(Watch):
    """Keeps a fit's newest checkpoint in a file, and reports now and then.

    Parameters
    ----------
    path : of the checkpoint; replaced as a whole, so a kill leaves the one before.
    report : called about once a second.
    checkpoint_s, report_s : between two; 0: each iteration.
    """

    def __init__(
        self,
        candidate: str,
        path: Path,
        report: Callable[[FitProgress], None],
        *,
        checkpoint_s: float = CHECKPOINT_S,
        report_s: float = REPORT_S,
    ) -> None:
        self._candidate, self._path, self._report = candidate, path, report
        self._checkpoint_s, self._report_s = checkpoint_s, report_s
        self._saved_at = time.monotonic()
        self._reported_at = -math.inf
        self._resumed_from: int | None = None

    def saved(self) -> Checkpoint | None:
        """Return the file's checkpoint; a broken file is as none."""
        found = read_checkpoint(self._path)
        self._saved_at = time.monotonic()  # the fit begins now
        self._resumed_from = found.iteration if found else None
        return found

    def after(
        self,
        iteration: int,
        count: int,
        loss: Callable[[], float] | None = None,
        state: Callable[[], bytes] | None = None,
    ) -> None:
        """Save and report when it is time."""
        now = time.monotonic()
        if state and iteration < count and now - self._saved_at >= self._checkpoint_s:
            write_checkpoint(self._path, Checkpoint(iteration, state()))
            self._saved_at = time.monotonic()
        if now - self._reported_at >= self._report_s:
            self._reported_at = now
            found = FitProgress(
                self._candidate,
                iteration,
                count,
                loss() if loss else None,
                self._resumed_from,
            )
            self._report(found)

    def forget(self) -> None:
        """Remove the file: the fit is over."""
        self._path.unlink(missing_ok=True)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file in one step."""
    head = {
        "iteration": checkpoint.iteration,
        "sha256": hashlib.sha256(checkpoint.state).hexdigest(),
    }
    draft = path.with_suffix(f"{path.suffix}.draft")
    draft.write_bytes(json.dumps(head).encode() + b"\n" + checkpoint.state)
    draft.replace(path)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return what the file holds; None when it is not there or not whole."""
    try:
        head, _, state = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        iteration, digest = int(facts["iteration"]), facts["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(state).hexdigest() != digest:
        return None
    return Checkpoint(iteration, state)
