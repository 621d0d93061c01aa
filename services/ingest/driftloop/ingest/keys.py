"""The installation's privacy key, and what is derived from it.

Only ingest holds it. Without it no hash can be recomputed by trying values, no token
or subject key that lies in the database can be read, and nobody can claim that rules
were applied.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.ingest.settings import IngestSettings
from driftloop.runtime.drawn import ExposedSecretError, drawn_secret

KEY_BYTES = 32
MIN_KEY_CHARACTERS = 32
PSEUDONYM_BYTES = 16
"""HMAC-SHA256 cut to 128 bits, the least that RFC 2104, section 5, advises."""
SUBJECT_KEY_BITS = 512
"""AES-256 in SIV mode takes two keys of 256 bits (RFC 5297)."""


class PrivacyKeyError(ValueError):
    """The privacy key is missing or unfit; the text says what to do."""


class UnreadableError(ValueError):
    """An encrypted value was made with another key, or altered."""


@dataclass(frozen=True, slots=True, repr=False)
class PrivacyKeys:
    """Keys for one purpose each, all from the installation's one secret.

    Examples
    --------
    >>> keys = PrivacyKeys.from_secret(b"s" * 32)
    >>> keys.pseudonym("shop", "customer_id", "17") == keys.pseudonym(
    ...     "shop", "customer_id", "17")
    True
    >>> keys.unwrapped(keys.wrapped(b"a value", "shop"), "shop")
    b'a value'
    """

    hashing: bytes
    sealing: bytes
    wrapping: bytes

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """Derive the keys with HMAC-SHA256, as HKDF's expand step does (RFC 5869)."""

        def derive(purpose: str) -> bytes:
            name = f"driftloop/privacy/{purpose}".encode()
            return hmac.digest(secret, name, "sha256")

        wrapping = derive("wrapping 1") + derive("wrapping 2")
        return cls(derive("hashing"), derive("sealing"), wrapping)

    def pseudonym(self, *parts: str) -> str:
        """Return 32 hexadecimal digits that stand for these texts."""
        text = "\0".join(parts).encode(errors="surrogatepass")
        return hmac.digest(self.hashing, text, "sha256")[:PSEUDONYM_BYTES].hex()

    def wrapped(self, value: bytes, bound_to: str) -> bytes:
        """Encrypt something that is to lie in the database."""
        return AESSIV(self.wrapping).encrypt(value, [bound_to.encode()])

    def unwrapped(self, value: bytes, bound_to: str) -> bytes:
        """Return what :meth:`wrapped` took.

        Raises
        ------
        UnreadableError
            When it was wrapped with another privacy key.
        """
        try:
            return AESSIV(self.wrapping).decrypt(value, [bound_to.encode()])
        except InvalidTag as error:
            raise UnreadableError(
                "the privacy key is not the one that this database was written with"
            ) from error

    def seal(
        self, topic: str, pipeline: str, columns: Iterable[str], value: bytes
    ) -> str:
        """Return what proves that the rules of these columns were applied."""
        digest = hashlib.sha256(value).hexdigest()
        text = json.dumps([topic, pipeline, sorted(columns), digest])
        return hmac.digest(self.sealing, text.encode(), "sha256").hex()

    def is_seal(
        self, seal: str, topic: str, pipeline: str, columns: Iterable[str], value: bytes
    ) -> bool:
        """Whether :meth:`seal` gave this for exactly these."""
        wanted = self.seal(topic, pipeline, columns, value)
        return hmac.compare_digest(seal.encode(), wanted.encode())


def open_keys(settings: IngestSettings) -> PrivacyKeys:
    """Return the keys; the local default is drawn at first start and kept.

    Raises
    ------
    PrivacyKeyError
        When the key is too short, or others may read its file.
    """
    if settings.privacy_key is not None:
        return _keys(settings.privacy_key.get_secret_value())
    try:
        secret = drawn_secret(settings.home / "secrets" / "privacy-key")
    except ExposedSecretError as error:
        raise PrivacyKeyError(f"others can read the privacy key; {error}") from None
    return _keys(secret.decode().strip())


def _keys(secret: str) -> PrivacyKeys:
    if len(secret) < MIN_KEY_CHARACTERS:
        raise PrivacyKeyError(
            f"the privacy key has less than {MIN_KEY_CHARACTERS} characters; draw one: "
            "openssl rand -hex 32"
        )
    return PrivacyKeys.from_secret(secret.encode())
