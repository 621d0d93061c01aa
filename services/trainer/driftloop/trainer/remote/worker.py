"""The service's side of a training elsewhere: with the interface of its own child."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from driftloop.trainer.child import ChildJob
from driftloop.trainer.remote.desk import Desk, End, Order, Report, new_try, open_desk
from driftloop.trainer.remote.launching import (
    MODULE,
    Launch,
    Launcher,
    environment_of,
)
from driftloop.trainer.remote.link import BEATS, PACKAGE
from driftloop.trainer.remote.settings import RemoteSettings
from driftloop.trainer.worker import (
    START_TIMEOUT_S,
    Abandoned,
    Answer,
    Crashed,
    LimitReached,
)

POLL_S = 0.5
STATE_S = 2.0
"""Between two questions to the launcher."""
MINUTE_S = 60.0
WAITING = {"step": "waiting", "done_ratio": 0.0, "detail": "for a node"}
logger = log(__name__)


@dataclass
class Attempt:
    """One try, as it looks from here.

    Attributes
    ----------
    heard_at : when the node last said something new; None: it has not begun.
    problem : how it ended by the launcher.
    fault : why the store cannot be read.
    """

    desk: Desk
    name: str
    launch: Launch
    asked_at: float
    began_at: float | None = None
    heard_at: float | None = None
    renewals: int = 1
    renewed_at: float = 0.0
    looked_at: float = 0.0
    problem: str | None = None
    fault: Retry | None = None
    report: Report = field(default_factory=lambda: Report(beat=0))


class RemoteWorker:
    """Has jobs trained by a launcher's nodes; for what it does see ``worker.Worker``.

    Attributes
    ----------
    cpu_seconds : of the last job; unknown (0) of one that ended without an answer.
    """

    is_ready = True

    def __init__(
        self, launcher: Launcher, settings: RemoteSettings, lease_s: float
    ) -> None:
        self._launcher, self._settings, self._lease_s = launcher, settings, lease_s
        self._environment = environment_of(settings)
        self.cpu_seconds = 0.0

    def warm(self) -> None:
        """Do nothing: a node starts when there is a job."""

    def close(self) -> None:
        """Do nothing: a job that runs is ended by who runs it."""

    def forget(self, folder: Path) -> None:
        """Remove all that a job has left, here and in the store."""
        try:
            open_desk(self._settings, folder.name).remove()
        except Retry as error:
            logger.warning("not removed yet", job=folder.name, error=str(error))
            return  # the folder stays, so that it is tried again
        shutil.rmtree(folder, ignore_errors=True)

    def run(
        self,
        job: ChildJob,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> Answer:
        """Run a job on a node, and bring its package's files into the job's folder."""
        self.cpu_seconds = 0.0
        attempt = self._begin(job, timeout_s)
        try:
            progress(dict(WAITING))
            end = self._follow(attempt, timeout_s, is_ours, progress)
            return self._answer(attempt, end, job.folder)
        finally:
            self._end(attempt)

    def _begin(self, job: ChildJob, timeout_s: float) -> Attempt:
        job_id = job.folder.name
        desk = open_desk(self._settings, job_id)
        tries = desk.tries()
        for name in tries:  # of an owner that was killed; it may still run
            desk.withdraw(name)
            self._launcher.end(_launch_name(job_id, name))
        earlier, files = _checkpoints(desk, tries)
        desk.remove(kept=earlier)
        name = new_try(tries)
        sha256 = desk.put_order(
            name,
            Order(
                request=job.request,
                cpu_limit_s=job.cpu_limit_s,
                timeout_s=timeout_s,
                lease_s=self._lease_s,
                earlier=earlier,
                files=files,
                trusted=self._trusted(),
            ),
        )
        desk.renew(name, 0)
        launch = Launch(
            _launch_name(job_id, name),
            ("-m", MODULE, job_id, name, sha256),
            self._environment,
            self._settings.job_wait_minutes * MINUTE_S + self._longest_s(timeout_s),
        )
        attempt = Attempt(desk, name, launch, time.monotonic())
        try:
            self._launcher.start(launch)
        except BaseException:
            self._end(attempt)  # it may have begun although the answer was lost
            raise
        return attempt

    def _trusted(self) -> list[str]:
        paths = sorted(self._settings.trusted_keys_folder.glob("*.pem"))
        return [path.read_text("utf-8") for path in paths]

    def _longest_s(self, timeout_s: float) -> float:
        """Return when a node that began has ended, by itself, at the latest."""
        return START_TIMEOUT_S + timeout_s + 2 * self._lease_s

    def _follow(
        self,
        attempt: Attempt,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> End:
        while True:
            time.sleep(POLL_S)
            if not is_ours():
                raise Abandoned
            before = attempt.report
            ended = attempt.problem  # said before the report that is read now
            self._look(attempt)
            if attempt.report.progress_count != before.progress_count:
                progress(dict(attempt.report.progress or {}))
            if attempt.report.end is not None:
                self.cpu_seconds = attempt.report.cpu_seconds
                return attempt.report.end
            self._check(attempt, timeout_s, ended)

    def _look(self, attempt: Attempt) -> None:
        """Renew the lease, read the newest report, ask the launcher."""
        now = time.monotonic()
        try:
            if now - attempt.renewed_at > self._lease_s / BEATS:
                attempt.desk.renew(attempt.name, attempt.renewals)
                attempt.renewals, attempt.renewed_at = attempt.renewals + 1, now
            found = attempt.desk.report(attempt.name)
            attempt.fault = None
        except Retry as error:
            attempt.fault = error
        else:
            if found is not None and found.beat != attempt.report.beat:
                attempt.report, attempt.heard_at = found, now
                attempt.began_at = attempt.began_at or now
        if now - attempt.looked_at > STATE_S:
            attempt.looked_at = now
            try:
                attempt.problem = self._launcher.problem(attempt.launch.name)
            except Retry as error:
                logger.warning("cannot ask", job=attempt.launch.name, error=str(error))

    def _check(self, attempt: Attempt, timeout_s: float, ended: str | None) -> None:
        """Raise when nothing more is to be expected."""
        now = time.monotonic()
        if attempt.began_at is None or attempt.heard_at is None:
            if ended is not None and attempt.fault is None:
                raise Retry(f"no node has begun the training: {ended}")
            if now - attempt.asked_at > self._settings.job_wait_minutes * MINUTE_S:
                raise Retry(
                    f"no node has begun the training in "
                    f"{self._settings.job_wait_minutes:g} minutes "
                    "(DRIFTLOOP_TRAINER_JOB_WAIT_MINUTES)"
                )
            return
        if now - attempt.heard_at > self._lease_s and attempt.fault is not None:
            raise attempt.fault
        if ended is not None and attempt.fault is None:
            raise Crashed(f"the training's node ended it: {ended}")
        if now - attempt.heard_at > self._lease_s:
            raise Crashed(f"the training's node is silent for {self._lease_s:g} s")
        if now - attempt.began_at > self._longest_s(timeout_s):
            raise LimitReached(
                f"not done after {timeout_s / MINUTE_S:g} minutes "
                "(train.timeout_minutes)"
            )

    def _answer(self, attempt: Attempt, end: End, folder: Path) -> Answer:
        if end.kind == "crashed":
            raise Crashed(end.error)
        if end.kind == "limit":
            raise LimitReached(end.error)
        if end.kind == "away":
            raise Retry(end.error)
        if end.kind == "trained":
            place = folder / PACKAGE
            place.mkdir(exist_ok=True)
            for name, digest in end.files.items():
                data = attempt.desk.file(attempt.name, digest)
                if data is None or Path(name).name != name:
                    raise Crashed(f"the package's {name} is not whole")
                (place / name).write_bytes(data)
        return Answer(end.kind, end.fields)

    def _end(self, attempt: Attempt) -> None:
        """End the node's program: by its lease, and by the launcher."""
        try:
            attempt.desk.withdraw(attempt.name)
        except Retry as error:
            logger.warning(
                "its lease runs out", job=attempt.launch.name, error=str(error)
            )
        try:
            self._launcher.end(attempt.launch.name)
        except Retry as error:
            logger.warning("not ended", job=attempt.launch.name, error=str(error))


def _launch_name(job_id: str, attempt: str) -> str:
    return f"training-{job_id}-{attempt}"


def _checkpoints(desk: Desk, tries: list[str]) -> tuple[str | None, dict[str, str]]:
    """Return the newest try that has left files, and these."""
    for name in reversed(tries):
        report = desk.report(name)
        if report is not None and report.files:
            return name, report.files
    return None, {}
