"""Where the installation is: the local stack's own notes, or the environment."""

import os
import ssl
from dataclasses import dataclass
from functools import cache
from getpass import getuser
from pathlib import Path
from typing import Any

import httpx
from driftloop.local.stack import status as stack_status
from driftloop.runtime.artifacts import ArtifactStore, open_store
from driftloop.runtime.identity import tokens
from driftloop.runtime.settings import Settings, load_settings

HTTP_TIMEOUT_S = 30.0
JWT_DOTS = 2


class CommandError(Exception):
    """A command cannot do what was asked; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class Installation:
    """How to reach one installation."""

    home: Path
    bootstrap: str
    registry_url: str
    token: str
    settings: Settings
    ingest_url: str = ""
    monitor_url: str = ""

    def speaker(self, by: str | None) -> str | None:
        """Return the name to send with what a person asks for.

        With a credential of their own the credential says it. The installation's own
        token is nobody's: then it is who was named, or the user of this machine.
        """
        if by is None and not is_personal(self.token):
            return getuser()
        return by

    @property
    def store(self) -> ArtifactStore:
        return open_store(self.settings)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Call the registry's REST interface and return its JSON.

        Raises
        ------
        CommandError
            With the server's own explanation.
        """
        return self.fetch(method, path, **options).json()

    def fetch(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the registry's REST interface and return its good answer.

        Raises
        ------
        CommandError
            With the server's own explanation.
        """
        try:
            response = httpx.request(
                method,
                f"{self.registry_url}/api/v1{path}",
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=HTTP_TIMEOUT_S,
                verify=_tls(),
                **options,
            )
        except httpx.HTTPError as error:
            raise CommandError(
                f"the registry at {self.registry_url} does not answer ({error}); "
                "look at: driftloop status"
            ) from error
        if response.is_error:
            raise CommandError(problem_of(response))
        return response

    def door(self, timeout_s: float = HTTP_TIMEOUT_S) -> httpx.Client:
        """Return a client of ingest's HTTP interface.

        Raises
        ------
        CommandError
            When nobody has said where it is.
        """
        return self._client("ingest", self.ingest_url, timeout_s)

    def watcher(self) -> httpx.Client:
        """Return a client of the monitor's HTTP interface.

        Raises
        ------
        CommandError
            When nobody has said where it is.
        """
        return self._client("monitor", self.monitor_url, HTTP_TIMEOUT_S)

    def _client(self, service: str, url: str, timeout_s: float) -> httpx.Client:
        if not url:
            variable = f"DRIFTLOOP_{service.upper()}_URL"
            raise CommandError(f"set {variable} to {service}'s HTTP interface")
        return httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=timeout_s,
        )


@cache
def _tls() -> ssl.SSLContext:
    """Return what a request checks servers by; to make it takes longer than to ask."""
    return httpx.create_ssl_context()


def is_personal(token: str) -> bool:
    """Whether a token proves somebody: a service token, or an access token (JWT)."""
    return tokens.id_of(token) is not None or token.count(".") == JWT_DOTS


def problem_of(response: httpx.Response) -> str:
    """Return an error answer's own explanation."""
    try:
        body = response.json()
    except ValueError:
        return f"{response.status_code}: {response.text[:300]}"
    details = "; ".join(
        f"{item.get('field')}: {item.get('problem')}" for item in body.get("errors", [])
    )
    title = body.get("detail") or body.get("title") or response.reason_phrase
    return f"{title}{': ' + details if details else ''}"


def default_home() -> Path:
    """Return DRIFTLOOP_HOME or ``./.driftloop``."""
    return Path(os.environ.get("DRIFTLOOP_HOME", ".driftloop"))


def connect(home: Path) -> Installation:
    """Find the running local stack, or what the environment names.

    ``DRIFTLOOP_BROKER``, ``DRIFTLOOP_API_TOKEN`` and ``DRIFTLOOP_REGISTRY_URL``,
    ``_INGEST_URL`` and ``_MONITOR_URL`` lead to an installation elsewhere.

    Raises
    ------
    CommandError
        When there is neither.
    """
    settings = load_settings(Settings, "cli", home=home)
    registry_url = os.environ.get("DRIFTLOOP_REGISTRY_URL")
    ingest_url = os.environ.get("DRIFTLOOP_INGEST_URL")
    monitor_url = os.environ.get("DRIFTLOOP_MONITOR_URL")
    token = settings.api_token.get_secret_value() if settings.api_token else ""
    if "DRIFTLOOP_BROKER" in os.environ:
        return Installation(
            home, settings.broker, registry_url or "", token, settings,
            ingest_url or "", monitor_url or "",
        )  # fmt: skip
    report = stack_status(home)
    if report["state"] == "stopped":
        raise CommandError(
            f"nothing runs in {home}; start it: driftloop up (or name another: --home)"
        )
    token_file = Path(report["token_file"])
    return Installation(
        home=home,
        bootstrap=report["broker"],
        registry_url=registry_url or report["urls"].get("registry", ""),
        token=token or token_file.read_text(encoding="utf-8").strip(),
        settings=settings,
        ingest_url=ingest_url or report["urls"].get("ingest", ""),
        monitor_url=monitor_url or report["urls"].get("monitor", ""),
    )


def every(installation: Installation, path: str, **wanted: Any) -> list[dict[str, Any]]:
    """Return all items of a list that the registry gives in pages.

    Parameters
    ----------
    wanted : of the query; what is None is left out.

    Raises
    ------
    CommandError
        With the server's own explanation.
    """
    query = {name: value for name, value in wanted.items() if value is not None}
    found: list[dict[str, Any]] = []
    while True:
        page = installation.request("GET", path, params=query)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
