"""What one process of a backtest does: walk a policy, or make one of the oracle's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from driftloop.backtest.answers import Desk, Floats
from driftloop.backtest.policies import Policy
from driftloop.backtest.stream import Ints, Rhythm, Stream
from driftloop.backtest.trainings import Learned, Shelf
from driftloop.backtest.walk import Walk
from driftloop.contracts.events import DatasetRef, Span, TableRef, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.signing import Signer, generate_key
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.settings import load_settings
from driftloop.trainer import core
from driftloop.trainer.request import JobRequest
from driftloop.trainer.settings import TrainerSettings

ROWS, KEY = "rows.arrow", "key"
Tell = Callable[[str, int], None]
"""Called with a policy's name and how many rows it has passed."""


@dataclass(frozen=True)
class Place:
    """The folder that the processes of a backtest share."""

    folder: Path

    def prepare(self, stream: Stream) -> None:
        """Lay down what all of them use."""
        for name in ("shelf", "answers", "store", "losses"):
            (self.folder / name).mkdir()
        generate_key(self.folder / KEY, self.folder / f"{KEY}.pub")
        stream.save(self.folder / ROWS)

    def open(self, spec: PipelineSpec) -> tuple[Stream, Shelf, Desk]:
        stream = Stream.mapped(self.folder / ROWS, spec.data.target)
        store = FolderStore(self.folder / "store")
        signer = Signer.from_file(self.folder / KEY)
        allowed = load_settings(TrainerSettings, "trainer").import_prefixes
        shelf = Shelf(stream, self.folder / "shelf", store, signer, allowed)
        return stream, shelf, Desk(stream, spec, self.folder / "answers")


@dataclass(frozen=True)
class Outcome:
    """A policy's walk, small enough to be sent; its losses lie in a file.

    Attributes
    ----------
    trained_rows : number of the row after which each training was made.
    """

    policy: Policy
    timeline: list[dict[str, Any]]
    counts: dict[str, int]
    cpu_seconds: float
    trained_rows: list[int]
    digest: str
    losses_file: Path

    def losses(self) -> Floats:
        """(n_rows,) of what was answered."""
        found: Floats = np.load(self.losses_file, allow_pickle=False)
        return found

    @property
    def later_trainings(self) -> int:
        """Trainings after the first, which every policy needs."""
        return max(0, self.counts.get("training", 0) - 1)

    @property
    def later_rollouts(self) -> int:
        """Versions in service after the first."""
        return max(0, self.counts.get("deployed", 0) - 1)


def walk(place: Place, policy: Policy, rhythm: Rhythm, tell: Tell) -> Outcome:
    """Walk one policy."""
    stream, shelf, desk = place.open(policy.spec)
    walked = Walk(policy, stream, shelf, desk, rhythm).run(
        lambda seen: tell(policy.name, seen)
    )
    file = place.folder / "losses" / f"{policy.name}.npy"
    np.save(file, walked.losses, allow_pickle=False)
    return Outcome(
        policy,
        walked.timeline,
        walked.counts,
        walked.cpu_seconds,
        [row for row, _ in walked.trained],
        walked.digest,
        file,
    )


def known_after(stream: Stream, row: int) -> Ints:
    """Return the numbers of the rows whose label is known when ``row`` has come."""
    if stream.known_us is None:
        return np.flatnonzero(stream.is_labelled[:row])
    return np.flatnonzero(stream.known_us <= stream.times_us[row - 1])


def trained_after(place: Place, spec: PipelineSpec, row: int) -> Path | None:
    """Train on what was known after a row; its losses from there on lie in a file.

    Returns
    -------
    Path or None
        None: no model could be made of it.
    """
    stream, shelf, desk = place.open(spec)
    known = known_after(stream, row)
    if not len(known):
        return None
    times = stream.rows["event_time"]
    labelled = Span(
        start=times[int(known[0])].as_py(), end=times[int(known[-1])].as_py()
    )
    train_span, holdout_span = core.plan(labelled, spec.train)
    recorded = TableRef(uri="recorded", version=0)
    request = JobRequest(
        job_id=f"oracle-{row}",
        trigger=Trigger(event_id=f"row {row}", event_type="row", reason="hindsight"),
        spec=spec,
        dataset=DatasetRef(observations=recorded),
        train_span=train_span,
        holdout_span=holdout_span,
    )
    found = shelf.train(request, known)
    if not isinstance(found, Learned):
        return None
    file = place.folder / "losses" / f"after-{row}.npy"
    np.save(file, desk.losses(found, row), allow_pickle=False)
    return file
