"""Exports of small real packages, and their runner as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from driftloop.cli.edge.folder import Forced, Origin
from driftloop.cli.edge.work import write_export
from driftloop.contracts.events import PackageRef
from driftloop.models.package import read_package, read_signed
from driftloop.models.signing import TrustedKeys

from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

VERSION = 3
SPEC = {"data": {"id": "id", "time": "event_time"}}
START_S = 60
ADDRESS = re.compile(r"answering at (http://\S+)")


def origin_of(
    factory: Factory,
    ref: PackageRef,
    spec: Mapping[str, Any] | None = None,
    forced: Forced | None = None,
) -> Origin:
    trusted = TrustedKeys.from_folder(factory.home / "keys" / "trusted")
    manifest, signature = read_signed(ref, factory.store, trusted)
    return Origin(
        package=read_package(ref, factory.store, trusted, is_served=True),
        version=VERSION,
        manifest=manifest,
        signature=signature,
        signer_pem=trusted.pem_of(ref.signer),
        spec=spec or SPEC,
        forced=forced,
    )


def export(factory: Factory, folder: Path, ref: PackageRef, **more: Any) -> Path:
    """Write an export, as ``driftloop export`` does, its own trial included."""
    write_export(origin_of(factory, ref, **more), folder, is_container=True)
    return folder


def environment(**settings: object) -> dict[str, str]:
    """Return an environment without anything of ours but these settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DRIFTLOOP_")}
    kept.pop("PYTHONPATH", None)
    named = {f"DRIFTLOOP_EDGE_{k}": str(v) for k, v in settings.items()}
    return kept | named


def run(folder: Path, *words: str, **settings: object) -> tuple[int, str]:
    """Run the runner to its end; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "runner.py", *words],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr + done.stdout


class Runner:
    """``runner.py serve``, to be asked and killed."""

    def __init__(self, folder: Path, *words: str, **settings: object) -> None:
        self._said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "runner.py", "serve", *words],
            cwd=folder,
            env=environment(**{"PORT": 0, **settings}),
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        wait_until(self._is_known, START_S)
        self.client = httpx.Client(base_url=self.url, timeout=100)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self._said.extend(self.process.stderr)

    def _is_known(self) -> bool:
        assert self.process.poll() is None, self.said
        return ADDRESS.search(self.said) is not None

    @property
    def said(self) -> str:
        return "".join(self._said)

    @property
    def url(self) -> str:
        found = ADDRESS.search(self.said)
        assert found is not None
        return found[1]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self._end(signal.SIGTERM)
        return self.process.returncode

    def _end(self, number: signal.Signals) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(120)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
