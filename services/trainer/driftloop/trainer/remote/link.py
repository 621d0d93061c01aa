"""The node's side of a try: the lease, reports, and the job's folder in the store."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from driftloop.trainer.remote.desk import Desk, End, Report
from driftloop.trainer.worker import Abandoned

TURN_S = 0.5
"""Between two looks at the lease and the folder: what a kill costs at most, beside the
time between two checkpoints."""
PATIENCE = 2 / 3
"""Of the lease: a node has ended before the job's row may be taken by another one."""
LEAVING_S = 1.0
"""For a write that has begun: a launcher gives an ended program a few seconds."""
BEATS = 6
"""Reports in a lease, though there be no news."""
PACKAGE = "package"
DRAFT = ".draft"
logger = log(__name__)


class Link:
    """Keeps the store up to date in a thread of its own, while it is open.

    Attributes
    ----------
    folder : of the job; what it holds is put into the store when it changes.
    clock : seconds that only grow.
    """

    def __init__(
        self,
        desk: Desk,
        attempt: str,
        folder: Path,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._attempt, self._folder = desk, attempt, folder
        self._lease_s, self._clock = lease_s, clock
        self._lease: bytes | None = None
        self._renewed_at = clock()
        self._is_withdrawn = False
        self._report = Report(beat=0)
        self._reported_at = 0.0
        self._seen: dict[str, tuple[tuple[int, int], str]] = {}
        self._dropped: dict[str, float] = {}
        self._news: tuple[int, dict[str, Any] | None] = (0, None)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(LEAVING_S)
        self._leave_nothing()

    def is_ours(self) -> bool:
        """Return whether somebody still waits for this training."""
        age_s = self._clock() - self._renewed_at
        return not self._is_withdrawn and age_s < self._lease_s * PATIENCE

    def progress(self, fields: dict[str, Any]) -> None:
        """Take the child's newest progress."""
        self._news = (self._news[0] + 1, fields)

    def finish(self, end: End, cpu_seconds: float) -> None:
        """Put the package's files into the store, and say how it ended.

        Raises
        ------
        Abandoned
            When the lease ends first.
        """
        self._stopping.set()
        self._thread.join()
        while self.is_ours():
            try:
                self._look_at_lease()
                if end.kind == "trained":
                    end = end.model_copy(update={"files": self._package(end)})
                self._save_folder()
                self._send(cpu_seconds=cpu_seconds, end=end)
            except Retry as error:
                logger.warning("waiting", error=str(error))
                time.sleep(TURN_S)
            else:
                return
        raise Abandoned

    def _package(self, end: End) -> dict[str, str]:
        place = self._folder / PACKAGE
        return {
            name: self._desk.put_file(self._attempt, (place / name).read_bytes())
            for name in end.fields["files"]
        }

    def _loop(self) -> None:
        while not self._stopping.wait(TURN_S):
            try:
                self._turn()
            except Retry as error:
                logger.warning("the store is away", error=str(error))

    def _turn(self) -> None:
        self._look_at_lease()
        if self._is_withdrawn:
            return
        is_changed = self._save_folder()
        is_due = self._clock() - self._reported_at > self._lease_s / BEATS
        if is_changed or is_due or self._news[0] != self._report.progress_count:
            self._send()
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        """Remove what was written after the service had removed it."""
        try:
            if self._desk.is_removed(self._attempt):
                self._desk.clear(self._attempt)
        except Retry as error:
            logger.warning("something may be left", error=str(error))

    def _look_at_lease(self) -> None:
        found = self._desk.lease(self._attempt)
        if found is None:
            self._is_withdrawn = True
        elif found != self._lease:
            self._lease, self._renewed_at = found, self._clock()

    def _send(self, **changes: Any) -> None:
        count, fields = self._news
        report = self._report.model_copy(
            update={
                "beat": self._report.beat + 1,
                "progress": fields,
                "progress_count": count,
                "files": {name: digest for name, (_, digest) in self._seen.items()},
                **changes,
            }
        )
        self._desk.put_report(self._attempt, report)
        self._report, self._reported_at = report, self._clock()
        self._drop_old()

    def _save_folder(self) -> bool:
        """Put what is new or changed into the store; return whether anything was."""
        found: dict[str, tuple[tuple[int, int], str]] = {}
        for path in sorted(self._folder.iterdir()):
            if path.suffix == DRAFT or not path.is_file():
                continue
            try:
                at = path.stat()
                mark = (at.st_mtime_ns, at.st_size)
                known = self._seen.get(path.name)
                if known is None or known[0] != mark:
                    data = path.read_bytes()
                    known = (mark, self._desk.put_file(self._attempt, data))
            except FileNotFoundError:
                continue  # it is over: the fit has ended
            found[path.name] = known
        is_changed = found != self._seen
        now = self._clock()
        kept = {digest for _, digest in found.values()}
        for _, digest in self._seen.values():
            if digest not in kept:
                self._dropped[digest] = now
        for digest in kept:
            self._dropped.pop(digest, None)
        self._seen = found
        return is_changed

    def _drop_old(self) -> None:
        """Remove what no report of the last lease has named.

        Not sooner: another try may begin with what it read in such a report.
        """
        now = self._clock()
        for digest, since in list(self._dropped.items()):
            if now - since > self._lease_s:
                self._desk.drop_file(self._attempt, digest)
                del self._dropped[digest]
