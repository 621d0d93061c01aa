"""The real load balancer with the file of the installation, and names that change."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx
from driftloop.local.processes import LOOPBACK, free_port

from tests.component.support import wait_until

HAPROXY = os.environ.get("HAPROXY") or shutil.which(
    "haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin"
)
NEEDED = "needs haproxy: apt-get install haproxy, or name one with HAPROXY"
FILE = Path(__file__).parents[2] / "infra/haproxy/haproxy.cfg"
PORTS = {"http": ":8000", "grpc": ":8001", "figures": ":8404"}
NAMESERVER = "127.0.0.11:53"
TYPE_A = 1
FIGURE = re.compile(r"^(haproxy_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def answer_of_names(query: bytes, addresses: list[str]) -> bytes:
    """Return a name server's answer: these addresses, whatever the name is.

    **Source**: RFC 1035, sections 4.1.1 to 4.1.3.
    """
    end = query.index(0, 12) + 5  # the name ends with 0; type and class follow
    question = query[12:end]
    (kind,) = struct.unpack("!H", question[-4:-2])
    found = addresses if kind == TYPE_A else []
    head = query[:2] + struct.pack("!5H", 0x8180, 1, len(found), 0, 0)
    same_name = b"\xc0\x0c"
    return head + question + b"".join(
        same_name + struct.pack("!HHIH", TYPE_A, 1, 1, 4) + socket.inet_aton(each)
        for each in found
    )  # fmt: skip


class Names:
    """A name server as Docker's own: the scorers that there are at the moment."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self._thread = threading.Thread(target=self._serve)
        self._stopping = False

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if self._stopping:
                return
            self._socket.sendto(answer_of_names(query, self.addresses), sender)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(60)
        self._socket.close()


def written(replaced: Mapping[str, str]) -> str:
    """Return the installation's file with other words for some of its own."""
    text = FILE.read_text("utf-8")
    for old, new in replaced.items():
        assert old in text, f"{old!r} is not in {FILE.name}"
        text = text.replace(old, new)
    return text


class Balancer:
    """HAProxy in front of scorers that listen at the ports of ``scorers``.

    Parameters
    ----------
    names : who answers for Docker's name server.
    scorer_ports : HTTP and gRPC, of each of them at its own address.
    changes : words of the file that are others in this test.
    """

    def __init__(
        self,
        folder: Path,
        names: Names,
        scorer_ports: tuple[int, int],
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.ports = {door: free_port() for door in PORTS}
        http, grpc = scorer_ports
        self._file = folder / "haproxy.cfg"
        self._log = folder / "haproxy.log"
        self._file.write_text(
            written(
                (changes or {})
                | {
                    f"bind {port}": f"bind {LOOPBACK}:{self.ports[door]}"
                    for door, port in PORTS.items()
                }
                | {
                    "scorer:8000": f"scorer:{http}",
                    "scorer:8001": f"scorer:{grpc}",
                    "connect port 8000": f"connect port {http}",
                    NAMESERVER: names.address,
                }
            ),
            encoding="utf-8",
        )

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['http']}"

    @property
    def grpc(self) -> str:
        return f"{LOOPBACK}:{self.ports['grpc']}"

    def figures(
        self, name: str, door: str = "http-scorers", state: str | None = None
    ) -> float:
        """Return the sum of a figure over what it is told for, of one of the doors."""
        wanted = [f'proxy="{door}"', *([f'state="{state}"'] if state else [])]
        text = httpx.get(
            f"http://{LOOPBACK}:{self.ports['figures']}/metrics", timeout=60
        ).text
        return sum(
            float(value)
            for found, labels, value in FIGURE.findall(text)
            if found == name and all(label in labels for label in wanted)
        )

    def is_ready(self) -> bool:
        """Whether it says that there is somebody to answer."""
        url = f"http://{LOOPBACK}:{self.ports['figures']}/readyz"
        return httpx.get(url, timeout=60).status_code == httpx.codes.OK

    def answering(self) -> int:
        """How many scorers it takes for ready, for either of the doors."""
        doors = ("http-scorers", "grpc-scorers")
        up = {self.figures("haproxy_backend_active_servers", door) for door in doors}
        return int(min(up))

    def said(self) -> str:
        """Return what it has logged, but for answers that came after a second try."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        answered = " - - ---- "
        return "\n".join(line for line in lines if answered not in line)[-3000:]

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(HAPROXY), "-db", "-f", str(self._file)], stdout=log, stderr=log
            )
        wait_until(self._listens, "HAProxy does not listen")
        return self

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.said()
        with socket.socket() as connection:
            return connection.connect_ex((LOOPBACK, self.ports["figures"])) == 0

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(60)
