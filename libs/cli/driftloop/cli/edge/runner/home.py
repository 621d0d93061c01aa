"""Sends home what waits, whenever home answers; beside the answering, never in it."""

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import Refused
from .figures import Figures
from .spool import Spool, Waiting

TIMEOUT_S = 10.0
FIRST_WAIT_S = 1.0
MAX_WAIT_S = 300.0
FLUSH_S = 5.0
"""How old figures may be that a kill takes away."""
SIGN_S = 3600.0
"""Between two reports without figures, which only say that this runner is there."""
JSON, NDJSON = "application/json", "application/x-ndjson"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
FOR_GOOD = frozenset({400, 413, 415, 422})
"""Refusals of this content, whoever sends it and whenever."""
MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Door:
    """Where reports go, and who sends them.

    Attributes
    ----------
    url : of ingest's HTTP interface at home.
    edge : name of this runner, unique at home.
    token_file : read anew for each attempt, so that it may be changed.
    token : in its place.
    """

    url: str
    edge: str
    pipeline: str
    token_file: Path | None = None
    token: str | None = None
    ca_file: Path | None = None
    is_plain_allowed: bool = False

    def check(self) -> None:
        """Refuse an address that is none, or to which a token may not be sent.

        Raises
        ------
        Refused
            Says what to change.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"--home: {self.url!r} is no http:// or https:// address")
        is_near = parts.hostname in LOOPBACK
        if parts.scheme == "http" and not is_near and not self.is_plain_allowed:
            raise Refused(
                f"--home: {self.url} would send the token unencrypted; use https://, "
                "or say --plain-home where the network is safe"
            )

    def read_token(self) -> str | None:
        """Return the token; None: there is none.

        Raises
        ------
        OSError
            When its file cannot be read.
        """
        if self.token_file is None:
            return self.token
        return self.token_file.read_text(encoding="utf-8").strip()

    def opener(self) -> urllib.request.OpenerDirector:
        """Return what opens connections: no redirects, no proxy for this machine."""
        context = ssl.create_default_context(
            cafile=None if self.ca_file is None else str(self.ca_file)
        )
        handlers: list[urllib.request.BaseHandler] = [
            _NoRedirect(),
            urllib.request.HTTPSHandler(context=context),
        ]
        if urlsplit(self.url).hostname in LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        return urllib.request.build_opener(*handlers)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would take the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Reporter:
    """Keeps the figures on disk and sends them home, in a thread of its own.

    Parameters
    ----------
    about : what each report says beside its figures: version, digest, libraries.
    report_seconds : how long a report is counted.
    say : is told when home, or the disk, goes away or comes back.
    """

    def __init__(
        self,
        figures: Figures,
        spool: Spool,
        door: Door | None,
        about: Mapping[str, Any],
        report_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._figures, self._spool, self._door = figures, spool, door
        self._about = dict(about)
        self._report_seconds = report_seconds
        self._say = say
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="home")
        self._is_told = False
        self._unwritten: tuple[dict[str, Any], list[Any]] | None = None
        self.sent_count = 0
        self.refused_count = 0
        self.problem = ""

    def _note(self, problem: str) -> None:
        """Say what is in the way, once, and when nothing is any more."""
        is_another = problem.partition(":")[0] != self.problem.partition(":")[0]
        if self._is_told and is_another:
            self._say(problem or "home answers again")
        self.problem = problem

    def start(self, *, is_sending: bool) -> None:
        """Close what an earlier runner left, and begin to send if that is wanted.

        Raises
        ------
        Refused
            When the spool cannot be written.
        """
        try:
            self._spool.close_open()
        except OSError as error:
            raise Refused(f"the spool cannot be written: {error}") from error
        self._is_told = is_sending
        if is_sending:
            self._thread.start()

    def stop(self) -> None:
        """Close the open report; what waits is sent by the next runner."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S + FLUSH_S)
        try:
            self._close()
        except OSError as error:
            self._note(f"the spool cannot be written: {error}")
        self._spool.close()

    def send_all(self) -> int:
        """Send what waits, without waiting for a home that is away.

        Returns
        -------
        int
            How many are left.
        """
        waiting = self._spool.waiting()
        for done, one in enumerate(waiting):
            if self._stopping.is_set() or not self._send(one):
                return len(waiting) - done
        return 0

    def _run(self) -> None:
        last_report, last_sign = time.monotonic(), -SIGN_S
        next_try, wait_s = 0.0, FIRST_WAIT_S
        seen = -1
        while not self._stopping.wait(min(FLUSH_S, self._report_seconds)):
            now = time.monotonic()
            try:
                if self._unwritten is not None:
                    self._close()
                elif self._figures.is_empty:
                    if now - last_sign >= SIGN_S and not self._spool.waiting():
                        last_sign = now
                        self._close(is_sign=True)
                elif now - last_report >= self._report_seconds:
                    last_report = last_sign = now
                    self._close()
                elif self._figures.changes != seen:
                    seen = self._figures.changes
                    report, rows = self._figures.snapshot()
                    self._spool.keep_open(self._about | report, rows)
                if now < next_try or self._door is None:
                    continue
                if self.send_all():
                    next_try = now + wait_s
                    wait_s = min(2 * wait_s, MAX_WAIT_S)
                else:
                    wait_s = FIRST_WAIT_S
            except OSError as error:  # the disk is full, or gone: answering goes on
                self._note(f"the spool cannot be written: {error}")

    def _close(self, *, is_sign: bool = False) -> None:
        """Let the open report wait; one without figures only as a sign of life.

        Raises
        ------
        OSError
            When it cannot be written; it is kept, and written before another.
        """
        if self._unwritten is None and (is_sign or not self._figures.is_empty):
            report, rows = self._figures.close()
            self._unwritten = self._about | report, rows
        if self._unwritten is not None:
            self._spool.add(*self._unwritten)
            self._unwritten = None

    def _send(self, one: Waiting) -> bool:
        """Whether it is at home, or can never be; then it waits no longer."""
        assert self._door is not None  # noqa: S101 - the caller has looked
        try:
            content = json.loads(one.path.read_bytes())
        except ValueError:
            self._spool.done(one)  # not written by us
            return True
        try:
            with self._door.opener().open(
                self._request(one, content), timeout=TIMEOUT_S
            ) as answer:
                answer.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            words = error.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
            self._note(f"home answers {error.code}: {words:.300}")
            if error.code not in FOR_GOOD:
                return False
            self.refused_count += 1
            count = len(content) if one.kind == "rows" else 1
            self._figures.lost("row" if one.kind == "rows" else "report", count)
        except (OSError, ValueError) as error:
            self._note(f"home does not answer: {error!s:.300}")
            return False
        else:
            self._note("")
            self.sent_count += 1
        self._spool.done(one)
        return True

    def _request(self, one: Waiting, content: Any) -> urllib.request.Request:
        door = self._door
        assert door is not None  # noqa: S101 - the caller has looked
        base = f"{door.url.rstrip('/')}/v1/pipelines/{quote(door.pipeline)}"
        if one.kind == "report":
            url, kind = f"{base}/edge-reports", JSON
            body = json.dumps(content).encode()
        else:
            url, kind = f"{base}/observations?source=edge-{quote(door.edge)}", NDJSON
            body = b"\n".join(json.dumps(row).encode() for row in content)
        headers = {"Content-Type": kind}
        token = door.read_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - see check()
