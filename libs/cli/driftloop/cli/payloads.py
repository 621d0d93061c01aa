"""Payloads from files, uploaded before the rows that name them, and to files."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from driftloop.cli.context import CommandError, Installation, problem_of
from driftloop.cli.door import TIMEOUT_S, patiently
from driftloop.cli.publish import Part, PublishFileError
from driftloop.contracts.payloads import (
    SUFFIXES,
    Reference,
    read_reference,
    to_reference,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.artifacts import AbsentError
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.payloads import PayloadStore


class Uploads:
    """Uploads the files that rows name, each once, and puts references in their place.

    A value that is a reference already, or holds its payload itself, stays.

    Parameters
    ----------
    folder : what names of files are relative to, and must not lead out of.
    on_upload : told after each upload.
    """

    def __init__(
        self,
        installation: Installation,
        spec: PipelineSpec,
        folder: Path,
        on_upload: Callable[[], None] = lambda: None,
    ) -> None:
        self._installation = installation
        self._spec = spec
        self._folder = folder.resolve()
        self._on_upload = on_upload
        self._done: dict[tuple[str, str], str] = {}

    def names(self, parts: Iterable[Part]) -> dict[str, set[str]]:
        """Return the files that rows name, by column.

        Raises
        ------
        PublishFileError
            When one of them is not there.
        """
        found: dict[str, set[str]] = {}
        for part in parts:
            for column in self._columns(part):
                values = part.rows[column].drop_nulls().unique().to_list()
                found.setdefault(column, set()).update(filter(self._is_name, values))
        for column, names in found.items():
            for name in sorted(names):
                self._path(column, name)
        return found

    def sent(self, part: Part) -> Part:
        """Return a part whose rows refer to what is uploaded now.

        Raises
        ------
        CommandError, PublishError
            When ingest refuses a payload, or does not answer.
        """
        rows = part.rows
        for column in self._columns(part):
            values = [
                self._uploaded(column, value) if self._is_name(value) else value
                for value in rows[column].to_list()
            ]
            rows = rows.with_columns(pl.Series(column, values, pl.String))
        return replace(part, rows=rows)

    def _columns(self, part: Part) -> list[str]:
        return [
            name
            for name in self._spec.data.attachments
            if name in part.rows.columns
            and part.rows.schema[name] == pl.String
            and name not in self._spec.data.privacy  # dropped
        ]

    def _is_name(self, value: str | None) -> bool:
        if not value or value[:5].lower() == "data:":
            return False
        return to_reference(self._spec.name, value) is None

    def _path(self, column: str, name: str) -> Path:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise PublishFileError(
                f"{column}: {name!r} leads out of {self._folder}; name another folder "
                "with --payloads"
            )
        if not path.is_file():
            raise PublishFileError(
                f"{column}: {name!r} is neither a reference nor a file below "
                f"{self._folder}; name the folder with --payloads"
            )
        return path

    def _uploaded(self, column: str, name: str) -> str:
        if (column, name) not in self._done:
            self._done[column, name] = self._upload(column, name)
            self._on_upload()
        return self._done[column, name]

    def _upload(self, column: str, name: str) -> str:
        path = self._path(column, name)
        url = f"/v1/pipelines/{self._spec.name}/payloads"
        with self._installation.door(timeout_s=TIMEOUT_S) as client:

            def send() -> Any:
                with path.open("rb") as file:
                    return client.post(url, params={"column": column}, content=file)

            response = patiently(send)
        if response.is_error:
            raise CommandError(f"ingest refuses {path}: {problem_of(response)}")
        return f"sha256:{response.json()['sha256']}"


def references_of(rows: pl.DataFrame) -> list[tuple[Reference, str]]:
    """Return what rows refer to, once each, and its media type."""
    found: dict[Reference, str] = {}
    for column in rows:
        if isinstance(column.dtype, pl.Struct):
            for value in column.drop_nulls().to_list():
                reference = read_reference(value["uri"] or "")
                if reference is not None:
                    found[reference] = value["media_type"]
    return sorted(found.items())


def write_payloads(
    store: PayloadStore,
    rows: pl.DataFrame,
    folder: Path,
    on_file: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the payloads that rows refer to as files named by digest.

    Each is verified, and written whole or not at all; one that is there stays.

    Returns
    -------
    dict
        How many were written, how many were there, and the digests that the store
        does not have (any more).

    Raises
    ------
    CommandError
        When the store is away, holds other bytes, or a file cannot be written.
    """
    written, there, missing = 0, 0, []
    for reference, media_type in references_of(rows):
        file = folder / f"{reference.sha256}{SUFFIXES.get(media_type, '')}"
        on_file()
        if file.exists():
            there += 1
            continue
        partial = file.with_name(f".{file.name}.partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as output:
                for piece in store.parts(reference):
                    output.write(piece)
            partial.replace(file)
            written += 1
        except AbsentError:
            missing.append(reference.sha256)
        except (Reject, Retry, OSError) as error:
            raise CommandError(f"cannot write {file}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return {"written": written, "already_there": there, "missing": missing}


def flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows for CSV, whose columns have no parts: references as publish reads."""
    structs = [c for c in rows.columns if isinstance(rows.schema[c], pl.Struct)]
    return rows.with_columns(
        ("sha256:" + pl.col(c).struct.field("sha256")).alias(c) for c in structs
    )
