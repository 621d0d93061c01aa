"""Removes Delta tables that nobody needs, with their history."""

import shutil
from collections.abc import Mapping

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from driftloop.runtime.errors import Retry


def remove_table(uri: str, options: Mapping[str, str] | None) -> None:
    """Delete every file of a table; one that is not there is removed already.

    Killed in the middle, the next call does the rest.

    Raises
    ------
    Retry
        When the store is away, or refuses.
    """
    try:
        if "://" not in uri:
            shutil.rmtree(uri)
            return
        handler = DeltaStorageHandler(uri, dict(options) if options else None)
        files = pafs.PyFileSystem(handler)
        for found in files.get_file_info(pafs.FileSelector("", recursive=True)):
            if found.type == pafs.FileType.File:
                files.delete_file(found.path)
    except FileNotFoundError:
        return
    except (DeltaError, OSError) as error:
        raise Retry(f"{uri} cannot be removed: {error}") from error
