"""A real Prometheus beside an installation, with the rules of the repository."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from driftloop.local.processes import LOOPBACK, free_port

ROOT = Path(__file__).parents[1]
RULES = ROOT / "infra/prometheus"
FETCHED = ROOT / ".venv-prometheus/usr/bin"
"""Where `make setup-prometheus` puts it."""
NEEDED = "needs Prometheus: make setup-prometheus, or its folder in PROMETHEUS"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SCRAPE_S = 2


def _found(name: str) -> Path | None:
    places = [
        os.environ.get("PROMETHEUS", ""),
        str(FETCHED),
        os.environ.get("PATH", ""),
    ]
    found = shutil.which(name, path=os.pathsep.join(filter(None, places)))
    return Path(found) if found else None


PROMETHEUS, PROMTOOL = _found("prometheus"), _found("promtool")


class Prometheus:
    """Scrapes services on this machine under the names that they have in containers.

    Parameters
    ----------
    ports : of each service's HTTP interface.
    """

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self._folder = folder
        self._config = folder / "prometheus.yml"
        config = yaml.safe_load((RULES / "prometheus.yml").read_text("utf-8"))
        config["global"] = {
            "scrape_interval": f"{SCRAPE_S}s",
            "evaluation_interval": f"{SCRAPE_S}s",
        }
        config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
        targets = [
            {"targets": [f"{LOOPBACK}:{port}"], "labels": {"instance": f"{name}:8000"}}
            for name, port in ports.items()
        ]
        config["scrape_configs"] = [
            {"job_name": "driftloop", "static_configs": targets}
        ]
        self._config.write_text(yaml.safe_dump(config), "utf-8")
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        log = (self._folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                str(PROMETHEUS),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self._port}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError((self._folder / "prometheus.log").read_text())
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT_S)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self._url("/-/ready")).is_success
        except httpx.TransportError:
            return False

    def _url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self._port}{path}"

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of its API."""
        answer = httpx.get(self._url(f"/api/v1/{path}"), params=parameters, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def points(self, expression: str, start: float, end: float) -> int:
        """Return how many numbers an expression has over a stretch of time."""
        step = max(5.0, (end - start) / 200)
        found = self.ask(
            "query_range", query=expression, start=start, end=end, step=step
        )
        return sum(
            value != "NaN" for line in found["result"] for _, value in line["values"]
        )
