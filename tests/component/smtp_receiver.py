"""A receiver of mail: an SMTP server with STARTTLS and a login, of its own kind."""

from __future__ import annotations

import base64
import ssl
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOGIN = ("loop", "a password of the tests")


class Taken(NamedTuple):
    """A mail, for whom, and how it came."""

    to: list[str]
    message: EmailMessage
    is_encrypted: bool
    is_logged_in: bool


class MailReceiver:
    """Keeps mails; ``reply`` is what it says to their content.

    It knows nobody whose name begins with ``gone``.

    Parameters
    ----------
    tls : ``starttls``, ``first`` (from the first byte) or ``none``.
    """

    def __init__(self, folder: Path, tls: str = "starttls") -> None:
        self.offers = tls
        self.taken: list[Taken] = []
        self.refused: list[EmailMessage] = []
        self.reply = "250 taken"
        self.certificate = folder / "mail.pem"
        key = folder / "mail.key"
        _write_certificate(self.certificate, key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate, key)
        receiver = self

        class Handler(StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # the client is gone
                    dialogue = _Dialogue(self, receiver)
                    with closing(dialogue):
                        dialogue.run()

        class Server(ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(120)
        self._server.server_close()


class _Dialogue:
    """One connection. Source: RFC 5321, 3207 (STARTTLS), 4954 (AUTH PLAIN, LOGIN)."""

    def __init__(self, handler: StreamRequestHandler, receiver: MailReceiver) -> None:
        self._socket: Any = handler.connection
        self._lines: Any = handler.rfile
        self._receiver = receiver
        self._is_encrypted = self._is_logged_in = False
        self._to: list[str] = []
        if receiver.offers == "first":
            self._encrypt()

    def _encrypt(self) -> None:
        self._socket = self._receiver.tls.wrap_socket(self._socket, True)
        self._lines = self._socket.makefile("rb")
        self._is_encrypted = True

    def run(self) -> None:
        self._say("220 here")
        while line := self._lines.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._answer(verb.upper(), rest)

    def _answer(self, verb: str, rest: str) -> None:
        if verb in ("EHLO", "HELO"):
            offers_tls = self._receiver.offers == "starttls" and not self._is_encrypted
            offer = "250 STARTTLS" if offers_tls else "250 AUTH PLAIN LOGIN"
            self._say(f"250-here\r\n{offer}")
        elif verb == "STARTTLS":
            self._say("220 go on")
            self._encrypt()
        elif verb == "AUTH":
            said = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
            self._is_logged_in = tuple(said[1:]) == LOGIN
            self._say("235 welcome" if self._is_logged_in else "535 who are you")
        elif verb == "RCPT":
            name = rest.partition("<")[2].partition(">")[0]
            if name.startswith("gone"):
                self._say("550 nobody of that name")
            else:
                self._to.append(name)
                self._say("250 ok")
        elif verb == "DATA":
            self._say("354 tell")
            self._take()
        else:
            self._say("250 ok")

    def _take(self) -> None:
        lines = iter(self._lines.readline, b".\r\n")
        text = b"".join(line.removeprefix(b".") for line in lines)
        message = message_from_bytes(text, policy=policy.default)
        reply = self._receiver.reply
        if reply.startswith("2"):
            self._receiver.taken.append(
                Taken(self._to, message, self._is_encrypted, self._is_logged_in)
            )
        else:
            self._receiver.refused.append(message)
        self._to = []
        self._say(reply)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _say(self, text: str) -> None:
        self._socket.sendall(f"{text}\r\n".encode())


def _write_certificate(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
