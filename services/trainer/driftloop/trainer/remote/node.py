"""One training on another machine: ``python -m driftloop.trainer.remote.node``.

Its arguments are a job, a try, and the digest of the order that it finds in the store
(:mod:`desk`). It runs the same child process as the service does on its own machine,
puts the child's checkpoints into the store, and ends when its lease is not renewed.
"""

import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from driftloop.runtime.children import child_environment
from driftloop.runtime.errors import Retry
from driftloop.runtime.settings import load_settings
from driftloop.runtime.telemetry import log
from driftloop.trainer.child import ChildJob
from driftloop.trainer.remote.desk import Desk, End, Order, open_desk
from driftloop.trainer.remote.link import Link
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.worker import Abandoned, Crashed, LimitReached, Worker

EXIT_LEASE_OVER = 5
logger = log(__name__)


def main() -> int:
    """Train as ordered, and return the exit code."""
    job_id, attempt, sha256 = sys.argv[1:]
    signal.signal(signal.SIGTERM, _end)
    settings = load_settings(TrainerSettings, "trainer")
    desk = open_desk(settings, job_id)
    order = desk.order(attempt, sha256)
    with TemporaryDirectory(prefix="driftloop-training-") as name:
        home = Path(name).resolve()
        folder = home / job_id
        folder.mkdir()
        trusted = home / "trusted"
        trusted.mkdir()
        for number, pem in enumerate(order.trusted):
            (trusted / f"{number}.pem").write_text(pem)
        fetch(desk, order, folder)
        environment = child_environment(settings.threads, home)
        worker = Worker(environment | {"DRIFTLOOP_TRUSTED_KEYS": str(trusted)})
        link = Link(desk, attempt, folder, order.lease_s)
        with link:
            try:
                link.finish(_outcome(worker, order, folder, link), worker.cpu_seconds)
            except Abandoned:
                logger.warning("the lease is over", job=job_id, attempt=attempt)
                return EXIT_LEASE_OVER
    return 0


def _end(number: int, _: object) -> NoReturn:
    """Leave as by an error, so that the child ends and the folder is removed."""
    sys.exit(128 + number)


def fetch(desk: Desk, order: Order, folder: Path) -> None:
    """Write the checkpoints to go on from; one that is not whole is as none."""
    for name, digest in order.files.items():
        if Path(name).name != name:
            raise ValueError(f"no name of a checkpoint: {name!r}")
        assert order.earlier is not None  # noqa: S101 - files are those of a try
        data = desk.file(order.earlier, digest)
        if data is None:
            logger.warning("a checkpoint is lost", file=name)
        else:
            (folder / name).write_bytes(data)


def _outcome(worker: Worker, order: Order, folder: Path, link: Link) -> End:
    job = ChildJob(request=order.request, folder=folder, cpu_limit_s=order.cpu_limit_s)
    try:
        answer = worker.run(job, order.timeout_s, link.is_ours, link.progress)
    except Crashed as error:
        return End(kind="crashed", error=str(error))
    except LimitReached as error:
        return End(kind="limit", error=str(error))
    except Retry as error:
        return End(kind="away", error=str(error))
    if answer.kind == "trained":
        return End(kind="trained", fields=answer.fields)
    return End(kind="refused", fields=answer.fields)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for the store keeps nobody
