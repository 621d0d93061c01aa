"""The folder of a local installation: what lies where, its secrets, its record."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftloop.local.processes import identity

_TOKEN_BYTES = 32


class StackError(RuntimeError):
    """The local stack cannot do what was asked; the text says what to do."""


@dataclass(frozen=True)
class Home:
    """Paths below one installation's folder."""

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def token_file(self) -> Path:
        return self.path / "secrets" / "api-token"

    @property
    def signing_key_file(self) -> Path:
        """Private key that the trainer signs model packages with."""
        return self.path / "keys" / "trainer.pem"

    @property
    def trusted_keys(self) -> Path:
        """Folder of the public keys whose signatures are believed."""
        return self.path / "keys" / "trusted"

    def create(self) -> None:
        """Make the folders, readable by the user only, and the missing secrets."""
        for folder in (self.path, self.token_file.parent, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        if not self.token_file.exists():
            write_private(self.token_file, secrets.token_urlsafe(_TOKEN_BYTES))
        if not self.signing_key_file.exists():
            from driftloop.models.signing import generate_key

            generate_key(self.signing_key_file, self.trusted_keys / "trainer.pem")

    def read_record(self) -> dict[str, Any]:
        """Return the stack's record; empty when it never ran here."""
        try:
            record: dict[str, Any] = json.loads(self.record_file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StackError(f"{self.record_file} is damaged: {error}") from error
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record in one step; readers see the old or the new one."""
        fresh = self.record_file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        write_private(fresh, json.dumps(record, indent=1))
        fresh.replace(self.record_file)

    def supervisor_pid(self) -> int | None:
        """Return the pid of the supervisor that runs this stack; None if none does."""
        supervisor = self.read_record().get("supervisor") or {}
        pid = supervisor.get("pid")
        if pid is None or identity(pid) != supervisor.get("identity"):
            return None
        return int(pid)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only supervisor of this home; a killed one holds no lock.

        Raises
        ------
        StackError
            When another one runs.
        """
        with (self.path / "stack.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"the stack of {self.path} runs already") from None
            yield

    def wipe(self) -> None:
        """Delete the folder with all data.

        Raises
        ------
        StackError
            When it does not look like an installation's own folder.
        """
        if not self.record_file.exists():
            raise StackError(
                f"{self.path} holds no stack.json, so it is not deleted; delete it by "
                "hand if it is really an installation's folder"
            )
        here = Path.cwd()
        if (
            self.path in (Path.home(), here, *here.parents)
            or (self.path / ".git").exists()
        ):
            raise StackError(
                f"{self.path} holds more than an installation; not deleted"
            )
        for inner in self.path.glob("*/stack.json"):
            if Home(inner.parent).supervisor_pid():
                raise StackError(
                    f"another stack runs in {inner.parent}; stop it first: "
                    f"driftloop down --home {inner.parent}"
                )
        shutil.rmtree(self.path)


def write_private(path: Path, text: str) -> None:
    """Write a new file that only the user can read.

    Raises
    ------
    FileExistsError
        When it exists: what is secret is never overwritten.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
