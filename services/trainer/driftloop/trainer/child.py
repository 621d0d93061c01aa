"""One training in a process of its own: ``python -m driftloop.trainer.child``.

Started warm: the libraries are loaded, then it says ``ready`` and waits for one
line of JSON with the job on stdin. It answers with lines of JSON on what was stdout
(anything that a library prints goes to stderr), and ends. It also ends at once when
its parent is gone, which it sees by the end of stdin.
"""

import json
import math
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from driftloop.trainer import memory
from pydantic import BaseModel

if TYPE_CHECKING:  # loaded in main, after the memory limit is set
    from driftloop.trainer.checkpoints import FitProgress
    from driftloop.trainer.training import Environment
    from driftloop.trainer.workshop import Progress

EXIT_PARENT_GONE = 4
EXIT_TOO_MUCH_MEMORY = 5
CPU_GRACE_S = 5
"""After the signal that ends a training for its CPU time, before it is killed."""
MEMORY_WORDS = ("bad_alloc", "allocate memory", "out of memory", "realloc")
"""In the errors of libraries that do not raise MemoryError."""
Say = Callable[[dict[str, Any]], None]


class ChildJob(BaseModel):
    """The line that a child gets.

    Attributes
    ----------
    request : a :class:`tables.JobRequest` as JSON.
    folder : for checkpoints and the package's files; only this job's.
    cpu_limit_s : that is left to the job; None: no limit.
    """

    request: str
    folder: Path
    cpu_limit_s: float | None = None


def main() -> None:
    """Load, wait for the job, train, say how it ended."""
    say = _private_stdout()
    lines = _watched_stdin()
    max_memory_gib = limit_memory(say)
    preload()
    say({"type": "ready"})
    job = ChildJob.model_validate_json(lines())
    say({"type": "started", "cpu_seconds": time.process_time()})
    limit_cpu(job.cpu_limit_s)
    try:
        say(_work(job, say))
    except BaseException as error:
        traceback.print_exc()
        say(failure(error, max_memory_gib))
        raise


def failure(error: BaseException, max_memory_gib: float) -> dict[str, Any]:
    """Return the message about an error; lack of memory is said in words."""
    from driftloop.trainer.candidates.machine import LimitHit

    if isinstance(error, LimitHit):
        return {"type": "limit", "error": str(error)}
    text = f"{type(error).__name__}: {error}"
    is_memory = isinstance(error, MemoryError) or any(
        words in text for words in MEMORY_WORDS
    )
    if not is_memory:
        return {"type": "failed", "error": text}
    return too_much_memory(max_memory_gib, f": {text}")


def too_much_memory(max_memory_gib: float, detail: str = "") -> dict[str, Any]:
    """Return the message about a training that needs more than it may."""
    return {
        "type": "limit",
        "error": f"the training needs more than {max_memory_gib:g} GiB of memory "
        f"(DRIFTLOOP_TRAINER_MAX_MEMORY_GIB); shorten train.window_days or give it "
        f"more{detail}",
    }


def _private_stdout() -> Say:
    """Keep stdout for the protocol; what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        with lock:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    return say


def _watched_stdin() -> Callable[[], str]:
    """Return a function that waits for the first line; the end of stdin is ours."""
    first = threading.Event()
    found: list[str] = []

    def watch() -> None:
        for line in sys.stdin:
            found.append(line)
            first.set()
        os._exit(EXIT_PARENT_GONE)

    threading.Thread(target=watch, daemon=True).start()

    def wait() -> str:
        first.wait()
        return found[0]

    return wait


def limit_memory(say: Say) -> float:
    """Bound the memory and stand back, so that others are not starved.

    Returns
    -------
    float
        The bound in GiB.
    """
    from driftloop.runtime.settings import load_settings
    from driftloop.trainer.settings import TrainerSettings

    settings = load_settings(TrainerSettings, "trainer")

    def exceeded() -> None:
        say(too_much_memory(settings.max_memory_gib))
        os._exit(EXIT_TOO_MUCH_MEMORY)

    memory.bound(
        settings.max_memory_gib,
        has_gpu=memory.may_use_gpu(settings.device),
        processes=settings.processes,
        exceeded=exceeded,
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(settings.nice)
    return settings.max_memory_gib


def limit_cpu(seconds: float | None) -> None:
    """Bound the CPU time from now on; SIGXCPU ends the process then."""
    if seconds is not None:
        soft = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + CPU_GRACE_S))


def preload() -> None:
    """Import what every training needs, and run each once."""
    import numpy as np
    from driftloop.trainer.candidates import PRELOADED, Sample, candidate

    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(60, 2)).astype(np.float32)
    tiny = Sample(matrix, matrix[:, 0].astype(np.float64), (), 0)
    for name in PRELOADED:
        candidate(name)(tiny)
    with TemporaryDirectory(prefix="driftloop-rehearsal-") as folder:
        rehearse(Path(folder))


def rehearse(folder: Path) -> None:
    """Train on a small table of our own, so that nothing is done for the first time."""
    from driftloop.runtime.artifacts import FolderStore
    from driftloop.trainer.rehearsal import rehearsed_request
    from driftloop.trainer.settings import no_keys
    from driftloop.trainer.training import Environment

    request = rehearsed_request(folder / "table")
    using = Environment(FolderStore(folder), no_keys(), None, 1, folder)
    job = ChildJob(request=request.model_dump_json(), folder=folder)
    said = answer(job, using, lambda *_: None)
    if said["type"] != "trained":
        raise RuntimeError(f"the rehearsal gave no model: {said}")


def _work(job: ChildJob, say: Say) -> dict[str, Any]:
    from driftloop.runtime.artifacts import open_store
    from driftloop.runtime.datasets import storage_options
    from driftloop.runtime.settings import load_settings
    from driftloop.trainer.candidates.machine import Machine
    from driftloop.trainer.progress import Estimate, fields_of
    from driftloop.trainer.settings import TrainerSettings, open_trusted
    from driftloop.trainer.training import Environment

    settings = load_settings(TrainerSettings, "trainer")
    using = Environment(
        open_store(settings),
        open_trusted(settings),
        storage_options(settings),
        Machine(
            settings.threads,
            settings.device,
            settings.processes,
            settings.max_gpu_memory_ratio,
            job.folder,
        ),
        job.folder,
        settings.import_prefixes,
    )

    estimate = Estimate()

    def progress(
        step: str, done_ratio: float, detail: str, fit: "FitProgress | None"
    ) -> None:
        fields = fields_of(step, done_ratio, detail, fit, estimate)
        say({"type": "progress", **fields})

    return answer(job, using, progress)


def answer(job: ChildJob, using: "Environment", progress: "Progress") -> dict[str, Any]:
    """Train, write the package's files, and return the last message."""
    from driftloop.runtime.errors import Reject, Retry
    from driftloop.trainer import package_files, training
    from driftloop.trainer.request import JobRequest

    request = JobRequest.model_validate_json(job.request)
    try:
        trained = training.train(request, using, progress)
    except (training.TrainingRefused, Reject) as error:
        return {"type": "refused", "error": str(error)}
    except Retry as error:
        return {"type": "away", "error": str(error)}
    progress("package", training.PACKAGE, trained.chosen.name, None)
    files = package_files.files_of(trained)
    folder = job.folder / "package"
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {
        "type": "trained",
        "manifest": package_files.manifest_of(trained).model_dump(mode="json"),
        "files": sorted(files),
        "tried": [result.model_dump(mode="json") for result in trained.tried],
    }


if __name__ == "__main__":
    main()
