"""No caller takes all of a service's time: requests a second, for each who asks."""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from driftloop.runtime.problems import problem
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_CALLERS = 10_000
"""That are remembered; of more, those who asked longest ago may ask again."""
AUTHORIZATION = b"authorization"


class Allowances:
    """How many requests each caller may make now.

    The generic cell rate algorithm: of each caller one moment is kept, at which its
    allowance is whole again. Source: ITU-T I.371 (2004), annex A.

    Parameters
    ----------
    a_second : requests that a caller may make for ever.
    burst : requests that it may make at once.
    """

    def __init__(
        self, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gap_s, self._clock = 1 / a_second, clock
        self._slack_s = (burst - 1) * self._gap_s
        self._whole_at: OrderedDict[bytes, float] = OrderedDict()

    def take(self, caller: bytes) -> float:
        """Return 0 if the caller may ask now, else for how many seconds it may not."""
        now = self._clock()
        whole_at = max(self._whole_at.pop(caller, now), now)
        wait_s = whole_at - now - self._slack_s
        if wait_s <= 0:
            wait_s, whole_at = 0.0, whole_at + self._gap_s
        self._whole_at[caller] = whole_at
        if len(self._whole_at) > MAX_CALLERS:
            self._whole_at.popitem(last=False)
        return wait_s


class LimitedCallers:
    """Middleware: 429 with ``Retry-After`` for who asks too often.

    Callers are told apart by what they show who they are with, and those who show
    nothing by their address.
    """

    def __init__(
        self, app: ASGIApp, allowances: Allowances, free: frozenset[str]
    ) -> None:
        self._app, self._allowances, self._free = app, allowances, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._free:
            wait_s = self._allowances.take(_caller(scope))
            if wait_s:
                answer = problem(
                    429, "too many requests of this caller: wait, then go on"
                )
                answer.headers["Retry-After"] = str(math.ceil(wait_s))
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _caller(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == AUTHORIZATION:
            return hashlib.sha256(value).digest()  # credentials are not kept
    client = scope.get("client")
    return client[0].encode() if client else b""
