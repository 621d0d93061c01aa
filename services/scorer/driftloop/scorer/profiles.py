"""What versions cost on this machine: measured in their trial, kept, and told.

And what the rest of an answer costs, and how much memory the process takes: replicas
are sized by the three (``driftloop size``).
"""

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import NamedTuple

from driftloop.contracts.profile import VersionProfile
from driftloop.models.trial import Figures
from driftloop.scorer.tables import ScorerTried
from sqlalchemy import Engine
from sqlmodel import Session

CPU_INFO = Path("/proc/cpuinfo")


@cache
def machine_name() -> str:
    """Return the kind of this machine: its processor, and how many this process has."""
    count = processor_count()
    return f"{_processor()}, {count} CPU{'s' if count > 1 else ''}"


def processor_count() -> int:
    """Return how many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def kept_profile(engine: Engine, digest: str) -> VersionProfile | None:
    """Return what a package cost in its trial here; None: it was not tried here.

    Another runtime, or another kind of machine, is another trial.
    """
    with Session(engine) as session:
        key = (digest, version_of("onnxruntime"), machine_name())
        tried = session.get(ScorerTried, key)
    return None if tried is None else VersionProfile.model_validate(tried.profile)


def profile_of(figures: Figures) -> VersionProfile:
    """Return what a trial on this machine has measured."""
    return VersionProfile(
        machine=machine_name(),
        onnx_runtime=version_of("onnxruntime"),
        child_bytes=figures.child_bytes,
        batches=list(figures.batches),
    )


def keep_profile(engine: Engine, digest: str, profile: VersionProfile) -> None:
    """Note that a package passed its trial, and what it costs."""
    with Session(engine) as session:
        session.merge(
            ScorerTried(
                digest=digest,
                onnx_runtime=profile.onnx_runtime,
                machine=profile.machine,
                profile=profile.model_dump(mode="json"),
            )
        )
        session.commit()


class Taken(NamedTuple):
    """Processor seconds of the thread that answers, without the model and its own."""

    door: float
    model: float


class Meter:
    """Shares out the processor time of the threads that answer among their requests.

    An event loop does parts of several requests in turn: whatever its thread did since
    the request that was counted before is counted with this one, so that the sum is
    right. Nothing else but answering takes a loop's time worth mentioning.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    def taken(self) -> Taken | None:
        """Return what went since the call before in this thread; None: the first."""
        now, model = time.thread_time(), getattr(self._thread, "model", 0.0)
        before: float | None = getattr(self._thread, "before", None)
        self._thread.before, self._thread.model = now, 0.0
        return None if before is None else Taken(now - before - model, model)

    @contextmanager
    def model_call(self) -> Iterator[None]:
        """Count what this thread does meanwhile as the model's."""
        started = time.thread_time()
        try:
            yield
        finally:
            model = getattr(self._thread, "model", 0.0)
            self._thread.model = model + time.thread_time() - started
