"""Ed25519 keys of model packages: who signed, and who is believed."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

KEY_ID_DIGITS = 16
PRIVATE_KEY_MODE = 0o600


class KeyFileError(ValueError):
    """A key file is missing or not an Ed25519 key; the text says what to do."""


class SignatureRefused(ValueError):  # noqa: N818 - says what happened
    """A signature is missing, wrong, or by a key that is not trusted."""


def key_id(public_key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the raw public key's sha256."""
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_DIGITS]


class Signer:
    """A private key and its id.

    Examples
    --------
    >>> signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    >>> signer.key_id, len(signer.sign(b"text"))
    ('139e3940e64b5491', 64)
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a PKCS#8 PEM file as :func:`generate_key` writes it.

        Raises
        ------
        KeyFileError
            When it cannot be read, is no Ed25519 key, or others may read it.
        """
        try:
            mode = path.stat().st_mode & 0o777
            data = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"cannot read the signing key: {error}") from error
        if mode & 0o077:
            raise KeyFileError(
                f"{path} has mode {mode:o}: others can read the signing key; "
                f"run: chmod 600 {path}"
            )
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path} is no private key in PEM: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path} is no Ed25519 key")
        return cls(key)

    @property
    def public_pem(self) -> bytes:
        return self._key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature; the same data gives the same one."""
        return self._key.sign(data)


class TrustedKeys:
    """Public keys whose signatures are believed."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id(key): key for key in keys}

    @classmethod
    def from_pems(cls, pems: Iterable[bytes]) -> Self:
        """Read public keys.

        Raises
        ------
        KeyFileError
            When one is no Ed25519 public key in PEM.
        """
        keys = []
        for pem in pems:
            try:
                key = load_pem_public_key(pem)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise KeyFileError(f"no public key in PEM: {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise KeyFileError("a trusted key is no Ed25519 key")
            keys.append(key)
        return cls(keys)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read each ``*.pem`` file of a folder; a missing folder trusts nobody."""
        paths = sorted(folder.glob("*.pem"))
        return cls.from_pems(path.read_bytes() for path in paths)

    @property
    def key_ids(self) -> frozenset[str]:
        return frozenset(self._keys)

    def pem_of(self, signer: str) -> bytes:
        """Return a trusted key in PEM.

        Raises
        ------
        SignatureRefused
            When it is not trusted.
        """
        key = self._keys.get(signer)
        if key is None:
            raise SignatureRefused(f"key {signer!r} is not trusted")
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signer: str, data: bytes, signature: bytes) -> None:
        """Return if ``signer`` is trusted and signed exactly ``data``.

        Raises
        ------
        SignatureRefused
            Otherwise, with the reason.
        """
        key = self._keys.get(signer)
        if key is None:
            raise SignatureRefused(
                f"signed by key {signer!r}, which is not trusted; "
                f"trusted: {', '.join(sorted(self._keys)) or 'none'}"
            )
        try:
            key.verify(signature, data)
        except InvalidSignature:
            raise SignatureRefused(
                f"the signature by {signer} does not fit the content"
            ) from None


def generate_key(private_path: Path, public_path: Path) -> Signer:
    """Create a key pair; the private file is readable by its owner only.

    Raises
    ------
    FileExistsError
        When there is a private key already: it is never overwritten.
    """
    signer_key = Ed25519PrivateKey.generate()
    pem = signer_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private_path.parent.mkdir(parents=True, exist_ok=True)
    public_path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(private_path, flags, PRIVATE_KEY_MODE), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    signer = Signer(signer_key)
    public_path.write_bytes(signer.public_pem)
    return signer
