"""Kafka's jars: exactly those of `kafka-jars.lock`, fetched once into the user's cache.

Each jar is compared with its committed SHA-256 whenever it is about to be used; one
that differs is never run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

KAFKA_VERSION = "4.3.1"
REPOSITORY_VARIABLE = "DRIFTLOOP_MAVEN_REPOSITORY"

_DOWNLOADS_AT_ONCE = 8
_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_HTTP_TIMEOUT_S = 30

Progress = Callable[[str], None]


class JarError(RuntimeError):
    """A jar of the lock could not be had, or is not the jar that was locked."""


@dataclass(frozen=True)
class Jar:
    """One locked Maven artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""

    @property
    def file_name(self) -> str:
        ending = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{ending}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    def is_intact(self, path: Path) -> bool:
        """Say whether the file exists and holds the locked bytes."""
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def locked_jars() -> list[Jar]:
    """Read the committed lock.

    Raises
    ------
    ValueError
        When a line is not `group:artifact:version sha256`.
    """
    lock = resources.files("driftloop.local") / "kafka-jars.lock"
    jars = []
    for line in lock.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split(" ")
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def cache_folder(name: str = f"kafka-{KAFKA_VERSION}") -> Path:
    """Return a folder of the user's cache: that of Kafka's jars, or another one."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "driftloop" / name


def class_path(folder: Path) -> str:
    """Join the locked jars to a class path; other files of the folder are left out."""
    return os.pathsep.join(str(folder / jar.file_name) for jar in locked_jars())


def ensure_jars(progress: Progress | None = None) -> Path:
    """Have all locked jars, verified, in the user's cache.

    Missing and damaged jars are downloaded from Maven's central repository, or from
    the one that the variable `DRIFTLOOP_MAVEN_REPOSITORY` names. An interrupted
    download goes on where it stopped; concurrent callers wait for one another.

    Parameters
    ----------
    progress
        Is called with a line of text for each jar that arrives.

    Returns
    -------
    Path
        The folder with the jars.

    Raises
    ------
    JarError
        When a jar cannot be downloaded or does not have its locked digest.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder):
        missing = [j for j in locked_jars() if not j.is_intact(folder / j.file_name)]
        if missing:
            _fetch_all(missing, folder, progress or _silent)
    return folder


def ensure_jar(jar: Jar) -> Path:
    """Have one jar that is no part of Kafka, verified, in the user's cache.

    Returns
    -------
    Path
        The jar.

    Raises
    ------
    JarError
        When it cannot be downloaded or does not have its digest.
    """
    folder = cache_folder(f"{jar.artifact}-{jar.version}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / jar.file_name
    with _exclusive(folder):
        if not jar.is_intact(path):
            with tempfile.TemporaryDirectory(dir=folder) as incoming:
                _fetch(jar, folder, Path(incoming), threading.Event())
    return path


def _silent(_line: str) -> None:
    pass


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, also at kill -9
        yield


def _fetch_all(missing: list[Jar], folder: Path, progress: Progress) -> None:
    total = len(locked_jars())
    progress(f"Kafka {KAFKA_VERSION}: {len(missing)} of {total} jars to download")
    for left_over in folder.glob("incoming-*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="incoming-", dir=folder) as incoming,
        ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool,
    ):
        work = {pool.submit(_fetch, j, folder, Path(incoming), stop) for j in missing}
        try:
            megabytes = 0.0
            for count, done in enumerate(as_completed(work), start=1):
                megabytes += done.result() / 1e6
                have = total - len(missing) + count
                progress(
                    f"Kafka {KAFKA_VERSION}: {have} of {total} jars, {megabytes:.0f} MB"
                )
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(jar: Jar, folder: Path, incoming: Path, stop: threading.Event) -> int:
    """Download one jar, verify it, move it in place; return its size in bytes."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            path = _download(jar, incoming / f"{jar.file_name}.{attempt}")
            break
        except Exception as error:
            # Whatever the library raises: no network, no such file, refused.
            if attempt == _ATTEMPTS or stop.wait(_FIRST_PAUSE_S * 2**attempt):
                raise JarError(
                    f"{jar} could not be downloaded ({error}). Check the network, or "
                    f"set {REPOSITORY_VARIABLE} to a Maven repository that can be "
                    "reached; what has come already is kept."
                ) from error
    if not jar.is_intact(path):
        raise JarError(
            f"{jar} was refused: the downloaded file does not have the locked SHA-256 "
            f"{jar.sha256}. The repository serves another file under this name."
        )
    size = path.stat().st_size
    path.replace(folder / jar.file_name)
    return size


def _download(jar: Jar, target: Path) -> Path:
    from jgo.maven import MavenContext

    mirror = os.environ.get(REPOSITORY_VARIABLE)
    context = MavenContext(
        repo_cache=target,
        local_repos=[],
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=_HTTP_TIMEOUT_S,
    )
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact(classifier=jar.classifier).resolve())
