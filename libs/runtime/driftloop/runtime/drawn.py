"""Secrets that an installation draws for itself, where nobody gives it one."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 32


class ExposedSecretError(ValueError):
    """Others can read a secret's file; the text says what to do."""


def drawn_secret(path: Path) -> bytes:
    """Return the secret in a file; the first call draws it, 256 bits in hex digits.

    Whoever is killed while drawing leaves no file, and of several at once one draws.

    Raises
    ------
    ExposedSecretError
        When others than its owner may read the file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _draw(path)
    if path.stat().st_mode & 0o077:
        raise ExposedSecretError(f"run: chmod 600 {path}")
    return path.read_bytes()


def _draw(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
