"""The trainer: from drift or new data to a signed candidate, or the reason why not."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.contracts.events import (
    AlertRaised,
    DatasetVersioned,
    FederatedRoundClosed,
    FederatedRoundOpened,
    ModelTrained,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingFailed,
    TrainingProgressed,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.runtime.service import Parts, Runtime, Service
from driftloop.trainer.federated.clock import RoundClock
from driftloop.trainer.handlers import HANDLERS, Deps
from driftloop.trainer.jobs import JobLoop
from driftloop.trainer.settings import TrainerSettings, open_signer
from driftloop.trainer.tables import TABLES


@contextmanager
def build(runtime: Runtime[TrainerSettings]) -> Iterator[Parts[Deps]]:
    """Connect the handlers with the loop that trains."""
    wake = threading.Event()
    loop = JobLoop(runtime, open_signer(runtime.settings), wake)
    deps = Deps(
        session=runtime.session,
        pipelines=runtime.pipelines,
        wake=wake,
        recheck=loop.recheck,
        recorded=runtime.recorded,
    )
    yield Parts(deps, background=[loop.run, RoundClock(runtime, wake).run])


SERVICE = Service(
    name="trainer",
    settings=TrainerSettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
    recorded=(
        DatasetVersioned,
        TrainingStarted,
        TrainingSkipped,
        TrainingProgressed,
        TrainingFailed,
        TrainingCancelled,
        TrainingCancelRefused,
        ModelTrained,
        FederatedRoundOpened,
        FederatedRoundClosed,
        AlertRaised,
    ),
)
