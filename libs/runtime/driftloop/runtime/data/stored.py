"""Tables of answers as the store has them: which there are, and how they go."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from driftloop.runtime.datasets import answers_uri, storage_options
from driftloop.runtime.errors import Retry
from driftloop.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """The table of one scoring job.

    Attributes
    ----------
    put_at : when its newest file was written.
    """

    pipeline: str
    job_id: str
    uri: str
    size_bytes: int
    put_at: datetime


def stored_answers(settings: Settings, pipeline: str) -> Iterator[StoredAnswers]:
    """Return the tables of answers that a pipeline has, whole or not.

    Raises
    ------
    Retry
        When the store is away.
    """
    place = answers_uri(settings, pipeline, "").rstrip("/")
    found: dict[str, list[pafs.FileInfo]] = {}
    wanted = pafs.FileSelector("", recursive=True, allow_not_found=True)
    try:
        for file in _files(place, storage_options(settings)).get_file_info(wanted):
            job_id, _, rest = file.path.lstrip("/").partition("/")
            if file.type == pafs.FileType.File and rest:
                found.setdefault(job_id, []).append(file)
    except (DeltaError, OSError) as error:
        raise Retry(f"{place} cannot be listed: {error}") from error
    for job_id, files in sorted(found.items()):
        yield StoredAnswers(
            pipeline,
            job_id,
            answers_uri(settings, pipeline, job_id),
            sum(file.size for file in files),
            max(file.mtime for file in files),
        )


def remove_table(uri: str, options: Mapping[str, str] | None) -> None:
    """Delete every file of a table; one that is not there is removed already.

    Killed in the middle, the next call does the rest.

    Raises
    ------
    Retry
        When the store is away, or refuses.
    """
    wanted = pafs.FileSelector("", recursive=True, allow_not_found=True)
    try:
        if options is None:
            shutil.rmtree(uri)
            return
        files = _files(uri, options)
        for found in files.get_file_info(wanted):
            if found.type == pafs.FileType.File:
                files.delete_file(found.path)
    except FileNotFoundError:
        return
    except (DeltaError, OSError) as error:
        raise Retry(f"{uri} cannot be removed: {error}") from error


def _files(uri: str, options: Mapping[str, str] | None) -> pafs.FileSystem:
    if options is None:
        return pafs.SubTreeFileSystem(uri, pafs.LocalFileSystem())
    return pafs.PyFileSystem(DeltaStorageHandler(uri, dict(options)))
