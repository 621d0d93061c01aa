"""Mail by the installation's own server; pipeline files name receivers only."""

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Literal

TIMEOUT_S = 10.0
PERMANENT = range(500, 600)
"""Source: RFC 5321, 4.2.1: replies of 5yz."""
Security = Literal["starttls", "tls", "none"]


class MailError(OSError):
    """The server did not take a mail; ``is_final``: it never will."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


@dataclass(frozen=True)
class Server:
    """How mail leaves.

    Attributes
    ----------
    security : ``starttls`` refuses to go on where the server does not offer it.
    trust : certificates to check it by; None: the system's.
    """

    host: str
    port: int
    security: Security
    username: str = ""
    password: str = ""
    trust: str | None = None

    def send(self, message: EmailMessage, sender: str, to: Sequence[str]) -> None:
        """Hand a mail over; return once the server has it.

        Raises
        ------
        MailError
            When it does not take it for every receiver.
        """
        try:
            with self._connected() as smtp:
                if self.username:
                    smtp.login(self.username, self.password)
                refused = smtp.send_message(message, sender, list(to))
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(error.recipients, is_all=True) from error
        except smtplib.SMTPResponseException as error:
            code, text = error.smtp_code, error.smtp_error
            said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
            is_final = code in PERMANENT and not isinstance(
                error, smtplib.SMTPAuthenticationError
            )
            raise MailError(f"{code} {said}"[:300], is_final=is_final) from error
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            text = f"{self.host}:{self.port}: {type(error).__name__} {error}"
            raise MailError(text[:300]) from error
        if refused:
            raise _refused(refused, is_all=False)

    def _connected(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(
                self.host, self.port, timeout=TIMEOUT_S, context=self._tls()
            )
        smtp = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        if self.security == "starttls":
            try:
                smtp.starttls(context=self._tls())
            except BaseException:
                smtp.close()
                raise
        return smtp

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trust)


def _refused(recipients: dict[str, tuple[int, bytes]], *, is_all: bool) -> MailError:
    """Return the error for receivers that were refused.

    When the others have the mail it is final: sending again would tell them twice.
    """
    said = "; ".join(
        f"{name}: {code} {text.decode('utf-8', 'replace')}"
        for name, (code, text) in recipients.items()
    )
    every_code_is = all(code in PERMANENT for code, _ in recipients.values())
    return MailError(f"refused: {said}"[:300], is_final=every_code_is or not is_all)
