"""How calls to others are signed, so that a receiver knows who calls.

Source: Standard Webhooks 1.0 (github.com/standard-webhooks), symmetric signatures;
MLflow's webhooks are signed in the same way under other headers.
"""

import base64
import hashlib
import hmac

SIGNATURE_VERSION = "v1"
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, and none itself


def signature(key: bytes, message_id: str, now_s: int, body: bytes) -> str:
    """Return ``v1,`` and the HMAC-SHA256 of ``id.time.body`` in base64."""
    signed = f"{message_id}.{now_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"{SIGNATURE_VERSION},{base64.b64encode(digest).decode()}"


def key_of(secret: str) -> bytes:
    """Return the bytes that a secret signs with.

    Those that ``whsec_`` says in base64, or else the text's own.

    >>> key_of("whsec_a2V5"), key_of("key")
    (b'key', b'key')
    """
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()
