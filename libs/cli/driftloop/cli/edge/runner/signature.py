"""Who signed the package: Ed25519 without a library.

Only public values are worked with here, so that the time it takes tells nothing.

Source: RFC 8032, sections 5.1.3 and 5.1.7; keys as in RFC 8410; the signed bytes are
DSSE's pre-authentication encoding.
"""

import base64
import binascii
import hashlib

from .errors import Refused

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
KEY_BYTES, SIGNATURE_BYTES = 32, 64
KEY_ID_DIGITS = 16
PEM_BEGIN, PEM_END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""Of every Ed25519 public key: algorithm 1.3.101.112, then 32 bytes."""

Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z."""
NEUTRAL: Point = (0, 1, 1, 0)


def key_in(pem: bytes) -> bytes:
    """Return the 32 bytes of a public key in PEM.

    Raises
    ------
    Refused
        When it is none.
    """
    try:
        lines = [line.strip() for line in pem.decode("ascii").strip().splitlines()]
        der = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused(f"the signer's key is not PEM: {error}") from error
    is_pem = len(lines) > 2 and (lines[0], lines[-1]) == (PEM_BEGIN, PEM_END)
    if not is_pem or not der.startswith(DER_PREFIX) or len(der) != 44:
        raise Refused("the signer's key is no Ed25519 public key")
    return der[len(DER_PREFIX) :]


def key_id(key: bytes) -> str:
    """Return the first 16 hexadecimal digits of a public key's sha256."""
    return hashlib.sha256(key).hexdigest()[:KEY_ID_DIGITS]


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """Return what is signed for a payload."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def is_signed(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the owner of a public key has signed exactly these bytes."""
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    public = _point(key)
    scalar = int.from_bytes(signature[KEY_BYTES:], "little")
    if public is None or scalar >= ORDER:
        return False
    drawn = hashlib.sha512(signature[:KEY_BYTES] + key + data).digest()
    factor = int.from_bytes(drawn, "little") % ORDER
    minus_public = (P - public[0], public[1], public[2], P - public[3])
    found = _sum(_times(scalar, BASE), _times(factor, minus_public))
    return _encoded(found) == signature[:KEY_BYTES]


def _point(data: bytes) -> Point | None:
    """Return the point that 32 bytes encode; None: they encode none."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _sum(one: Point, other: Point) -> Point:
    """Return the sum of two points; the formula holds for equal ones too."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a = (y1 - x1) * (y2 - x2) % P
    b = (y1 + x1) * (y2 + x2) % P
    c = 2 * D * t1 * t2 % P
    d = 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(factor: int, point: Point) -> Point:
    result = NEUTRAL
    while factor:
        if factor & 1:
            result = _sum(result, point)
        point = _sum(point, point)
        factor >>= 1
    return result


def _encoded(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(KEY_BYTES, "little")


_BASE_Y = 4 * pow(5, -1, P) % P
_BASE = _point(_BASE_Y.to_bytes(KEY_BYTES, "little"))
if _BASE is None:  # pragma: no cover - a constant
    raise AssertionError
BASE: Point = _BASE
