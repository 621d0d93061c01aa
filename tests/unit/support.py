"""What tests of several services need."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import httpx
from fastapi import FastAPI

POLL_S = 0.02
MAX_POLL_S = 0.25
FUZZ = int(os.environ.get("DRIFTLOOP_FUZZ", "0"))
"""How many times its examples a property test tries, at random; 0: always the same."""


def examples(count: int) -> int:
    """Return how many examples a property test tries in place of ``count``."""
    return count * max(FUZZ, 1)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 120) -> None:
    """Return once ``is_so()``; fail when it does not come to that in time."""
    until = time.monotonic() + timeout_s
    looked_at = time.monotonic()
    while not is_so():
        assert time.monotonic() < until, f"not so after {timeout_s:g} s"
        rest(looked_at)
        looked_at = time.monotonic()


def rest(looked_at: float) -> None:
    """Sleep as long as a look has taken: what is waited for needs the processor too."""
    took_s = time.monotonic() - looked_at
    time.sleep(min(max(POLL_S, took_s), MAX_POLL_S))


class HttpClient:
    """Calls an application in this process, without a socket."""

    def __init__(self, app: FastAPI, headers: dict[str, str] | None = None) -> None:
        self._app = app
        self._headers = headers or {}

    def request(self, method: str, url: str, **fields: Any) -> httpx.Response:
        """Send one request; ``content`` may be bytes or an iterator of bytes."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers=self._headers
            ) as client:
                return await client.request(method, url, **fields)

        return asyncio.run(send())

    def get(self, url: str, **fields: Any) -> httpx.Response:
        return self.request("GET", url, **fields)

    def post(self, url: str, **fields: Any) -> httpx.Response:
        return self.request("POST", url, **fields)
