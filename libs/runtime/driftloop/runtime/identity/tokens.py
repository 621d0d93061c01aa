"""Service tokens: 256 random bits, of which only the SHA-256 is kept.

A slow hash protects words that people choose. Here there is nothing to guess: whoever
holds the hash would have to try 2^256 values, with any hash.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from driftloop.contracts.identity import TokenChanged

PREFIX = "dlt"
"""So that scanners for secrets, and people, know what it is."""
ID_BYTES = 8
SECRET_BYTES = 32
FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_[\w-]{{43}}", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class NewToken:
    """A token at its birth, the only moment when it is known here."""

    token_id: str
    token: str

    @property
    def sha256(self) -> str:
        return digest(self.token)


def mint() -> NewToken:
    """Return a new token.

    >>> new = mint()
    >>> id_of(new.token) == new.token_id
    True
    """
    token_id = secrets.token_hex(ID_BYTES)
    return NewToken(
        token_id, f"{PREFIX}_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    )


def id_of(text: str) -> str | None:
    """Return the id of what has the form of a token; None: it has not."""
    found = FORM.fullmatch(text)
    return found[1] if found else None


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def problem_with(known: TokenChanged | None, token: str, now: datetime) -> str | None:
    """Return why a token proves nothing; None: it is good."""
    if known is None or not hmac.compare_digest(known.sha256, digest(token)):
        return "this token is not known here"
    if known.revoked_at is not None:
        return f"the token {known.name!r} was revoked"
    if known.expires_at is not None and known.expires_at <= now:
        return f"the token {known.name!r} has expired"
    return None
