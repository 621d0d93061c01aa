"""Many HTTP clients at once, cheap enough that the server is what is measured.

Each client has one connection that it keeps, and sends its next request when the
answer to the last one is there: no request waits in the client.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

ANSWER_TIMEOUT_S = 60.0
CLOCK_TICKS_PER_S = 100
"""Of ``/proc/<pid>/stat`` on Linux."""
Request = Callable[[int], bytes]
"""The n-th request as it goes over the wire; see :func:`wire`."""


@dataclass(frozen=True)
class Load:
    """What some clients got in some time.

    Attributes
    ----------
    latencies_ms : of each answered request, ``(n_requests,)``.
    cpu_ms : processor time of the server's processes for one request.
    """

    seconds: float
    latencies_ms: np.ndarray
    cpu_ms: float

    @property
    def per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share))


class RefusedError(Exception):
    """A request was not answered with 200."""


def wire(
    method: str, url: str, token: str | None = None, body: bytes | None = None
) -> bytes:
    """Return a request of HTTP/1.1 that keeps its connection."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def answer_to(url: str, request: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return status and body."""

    async def ask() -> tuple[int, bytes]:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(request)
            return await _answer(reader)
        finally:
            writer.close()

    return asyncio.run(ask())


def load(
    url: str,
    request: Request,
    clients: int,
    seconds: float,
    pids: Callable[[], Iterable[int]],
    first: int = 0,
) -> Load:
    """Send requests from ``clients`` connections for some seconds.

    Parameters
    ----------
    pids : the server's processes, whose processor time is read before and after.
    first : number of the first request; numbers are not used twice.

    Raises
    ------
    RefusedError
        With the server's answer, when any request is not answered with 200.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before = cpu_seconds(pids())
        started = time.perf_counter()
        latencies = runner.run(_clients(url, request, clients, seconds, first))
        took = time.perf_counter() - started
        used_ms = (cpu_seconds(pids()) - before) * 1000
    return Load(took, np.array(latencies) * 1000, used_ms / max(len(latencies), 1))


async def _clients(
    url: str, request: Request, clients: int, seconds: float, first: int
) -> list[float]:
    until = time.perf_counter() + seconds
    latencies: list[float] = []
    number = first

    async def client() -> None:
        nonlocal number
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while time.perf_counter() < until:
                number += 1
                content = request(number)
                sent = time.perf_counter()
                writer.write(content)
                status, body = await asyncio.wait_for(_answer(reader), ANSWER_TIMEOUT_S)
                latencies.append(time.perf_counter() - sent)
                if status != 200:
                    raise RefusedError(f"{status}: {body[:300].decode()}")
        finally:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return status, await reader.readexactly(int(value))
    raise RefusedError(f"{status}: an answer without content-length")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used so far, in s."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
        except FileNotFoundError:
            continue  # it ended meanwhile
        fields = stat.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS_PER_S


def tree_of(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for each in found:
        for tasks in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, tasks.read_text("utf-8").split())
    return found
