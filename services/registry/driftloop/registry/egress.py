"""The only way out: to hosts that the settings name, at addresses that are public.

A name is looked up once, its addresses are checked, and the connection is made to one
of those: there is no second look-up that could answer something else. TLS still checks
the certificate against the name. No redirect is followed, and no proxy of the
environment is used.
"""

import ipaddress
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_S, TIMEOUT_S = 5.0, 10.0
MAX_ANSWER_BYTES = 16 * 1024
MAX_URL = 2000
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Source: RFC 6052, section 2.1."""
ANY_HOST = "*"
PORTS = {"https": 443, "http": 80}
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedError(ValueError):
    """An address that nothing is sent to; the text says why."""


class UnreachableError(OSError):
    """Nobody answered."""


class Answer(NamedTuple):
    """What the receiver said; ``text`` is its beginning."""

    status: int
    text: str

    @property
    def is_success(self) -> bool:
        return httpx.codes.is_success(self.status)


class Target(NamedTuple):
    """An address taken apart; ``host`` is in small letters."""

    scheme: str
    host: str
    port: int
    path: str


def is_public(address: IP) -> bool:
    """Whether an address, or the one of IPv4 within it, is everybody's.

    >>> [is_public(ipaddress.ip_address(a)) for a in (
    ...     "1.1.1.1", "169.254.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1")]
    [True, False, False, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


@dataclass(frozen=True)
class Egress:
    """Sends to allowed receivers.

    Attributes
    ----------
    hosts : names, ``*.example.org`` for those below one, ``*`` for every name.
    schemes : ``https``, or also ``http``.
    with_private : whether addresses of this machine and of private networks are
        receivers, too.
    whose : what calls, for the text of a refusal.
    setting : beginning of the names of the settings that allow more.
    """

    hosts: Sequence[str]
    schemes: Sequence[str]
    with_private: bool = False
    whose: str = "webhooks"
    setting: str = "DRIFTLOOP_REGISTRY_WEBHOOK"

    def target_of(self, url: str) -> Target:
        """Take an address apart.

        Raises
        ------
        RefusedError
            When it is none that may be sent to.
        """
        if len(url) > MAX_URL or not url.isascii() or not url.isprintable():
            raise RefusedError(f"not a URL of at most {MAX_URL} plain characters")
        if "\\" in url or " " in url:
            raise RefusedError("a URL has neither backslash nor space")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise RefusedError(f"not a URL: {error}") from error
        if parts.scheme not in self.schemes:
            raise RefusedError(
                f"the scheme is {parts.scheme!r}, and may be "
                f"{' or '.join(self.schemes)} ({self.setting}_SCHEMES)"
            )
        if "@" in parts.netloc or parts.fragment:
            raise RefusedError("a URL with a user or a fragment is not sent to")
        host = (parts.hostname or "").rstrip(".")
        if not host or not self._is_listed(host):
            raise RefusedError(
                f"{host!r} is no host that {self.whose} may call; the operator lists "
                f"them in {self.setting}_HOSTS"
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port or PORTS[parts.scheme], path)

    def _is_listed(self, host: str) -> bool:
        for listed in (each.lower() for each in self.hosts):
            if listed in {ANY_HOST, host}:
                return True
            if listed.startswith("*.") and host.endswith(listed[1:]):
                return True
        return False

    def addresses_of(self, target: Target) -> list[str]:
        """Look a host up; return the addresses that may be connected to.

        Raises
        ------
        RefusedError
            When one of its addresses is not public: then none is used.
        UnreachableError
            When it has none.
        """
        try:
            found = socket.getaddrinfo(
                target.host, target.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"{target.host} has no address: {error}") from error
        addresses = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
        for address in addresses:
            if not (self.with_private or is_public(address)):
                raise RefusedError(
                    f"{target.host} is at {address}, which is not public; "
                    f"{self.setting}_PRIVATE_ADDRESSES=true allows it"
                )
        return [str(address) for address in addresses]

    def check(self, url: str) -> None:
        """Refuse an address as :meth:`post` would; one that is away may come."""
        try:
            self.addresses_of(self.target_of(url))
        except UnreachableError as error:
            raise RefusedError(str(error)) from error

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a body; return what was answered; see :meth:`request`."""
        return self.request("POST", url, body, headers)

    def request(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> Answer:
        """Send a request; return what was answered, whatever it was.

        Raises
        ------
        RefusedError
            When the address may not be sent to.
        UnreachableError
            When nobody answered in time.
        """
        target = self.target_of(url)
        problem: httpx.HTTPError | None = None
        for address in self.addresses_of(target):
            try:
                return _send(method, target, address, body, headers)
            except httpx.ConnectError as error:  # nothing was sent: try the next one
                problem = error
            except httpx.HTTPError as error:
                problem = error
                break
        said = f"{type(problem).__name__} {problem}".strip()
        raise UnreachableError(f"{target.host}: {said}") from problem


def _send(
    method: str, target: Target, address: str, body: bytes, headers: dict[str, str]
) -> Answer:
    place = f"[{address}]" if ":" in address else address
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != PORTS[target.scheme]:
        host += f":{target.port}"
    deadline = time.monotonic() + TIMEOUT_S
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with (
        httpx.Client(trust_env=False, timeout=timeout) as client,
        client.stream(
            method,
            f"{target.scheme}://{place}:{target.port}{target.path}",
            content=body,
            headers={**headers, "Host": host},
            extensions={"sni_hostname": target.host},
            follow_redirects=False,
        ) as answer,
    ):
        return Answer(answer.status_code, _beginning(answer, deadline))


def _beginning(answer: httpx.Response, deadline: float) -> str:
    found = bytearray()
    for part in answer.iter_raw(4096):
        found += part
        if len(found) >= MAX_ANSWER_BYTES or time.monotonic() > deadline:
            break
    return found[:MAX_ANSWER_BYTES].decode("utf-8", "replace")
