"""Here or elsewhere: the worker that the settings name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from driftloop.runtime.children import child_environment
from driftloop.trainer.child import ChildJob
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.worker import Answer, Worker


class JobWorker(Protocol):
    """Trains one job after the other; see :class:`worker.Worker`."""

    cpu_seconds: float

    @property
    def is_ready(self) -> bool: ...

    def warm(self) -> None: ...

    def close(self) -> None: ...

    def forget(self, folder: Path) -> None: ...

    def run(
        self,
        job: ChildJob,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> Answer: ...


def open_worker(settings: TrainerSettings) -> JobWorker:
    """Return what trains jobs.

    Raises
    ------
    ValueError
        Names the setting that is missing or wrong.
    """
    if settings.runs_on == "local":
        return Worker(child_environment(settings.threads, settings.home.resolve()))
    from driftloop.trainer.remote.launching import launcher_of
    from driftloop.trainer.remote.worker import RemoteWorker

    return RemoteWorker(launcher_of(settings), settings, settings.lease_seconds)
