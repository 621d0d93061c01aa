"""Webhooks' secrets lie encrypted in the log; the key lies elsewhere.

AES-256-GCM, bound to the webhook's id, so that no secret can be put under another one.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from driftloop.runtime.drawn import ExposedSecretError, drawn_secret
from pydantic import SecretStr

MIN_KEY_CHARACTERS = 32
KEY_BYTES, NONCE_BYTES = 32, 12
PURPOSE = b"driftloop/registry/webhooks/secrets 1"


class WebhookKeyError(ValueError):
    """The key is unfit, or not the one of this log; the text says what to do."""


class Sealer:
    """Encrypts and decrypts secrets of webhooks.

    Examples
    --------
    >>> sealer = Sealer("k" * 32)
    >>> sealer.opened(sealer.sealed("secret", "w-1"), "w-1")
    'secret'
    """

    def __init__(self, key: str) -> None:
        if len(key) < MIN_KEY_CHARACTERS:
            raise WebhookKeyError(
                f"the webhook key has less than {MIN_KEY_CHARACTERS} characters; draw "
                "one: openssl rand -hex 32"
            )
        derived = hmac.new(key.encode(), PURPOSE, hashlib.sha256).digest()
        self._cipher = AESGCM(derived)

    def sealed(self, secret: str, webhook_id: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        text = self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())
        return base64.b64encode(nonce + text).decode()

    def opened(self, sealed: str, webhook_id: str) -> str:
        """Return what :meth:`sealed` took.

        Raises
        ------
        WebhookKeyError
            When it was sealed with another key, or for another webhook.
        """
        try:
            data = base64.b64decode(sealed, validate=True)
            nonce, text = data[:NONCE_BYTES], data[NONCE_BYTES:]
            return self._cipher.decrypt(nonce, text, webhook_id.encode()).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise WebhookKeyError(
                "the webhook key is not the one that this secret was kept with; set "
                "DRIFTLOOP_REGISTRY_WEBHOOK_KEY to it, or give the webhook its secret "
                "anew"
            ) from error


def open_sealer(home: Path, given: SecretStr | None) -> Sealer:
    """Return the sealer; the local default's key is drawn at first start and kept.

    Raises
    ------
    WebhookKeyError
        When the key is too short, or others may read its file.
    """
    if given is not None:
        return Sealer(given.get_secret_value())
    try:
        secret = drawn_secret(home / "secrets" / "webhook-key")
    except ExposedSecretError as error:
        raise WebhookKeyError(f"others can read the webhook key; {error}") from None
    return Sealer(secret.decode().strip())
