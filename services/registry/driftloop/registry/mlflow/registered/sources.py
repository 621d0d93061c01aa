"""Where a version's files are: what a client says, resolved to what the server keeps.

A client names a run, a logged model or another version, and a path among its files;
never a place. Whatever else it writes is refused, not looked up.
"""

import re
from dataclasses import dataclass
from typing import Any

from driftloop.registry.mlflow import logged_models
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.files import checked_path
from driftloop.registry.mlflow.places import check_owner, spot_of_uri
from driftloop.registry.mlflow.registered.rows import aliases_of, latest_of, version_of
from sqlalchemy import Connection, Row, text

PROMPTS = frozenset({"prompt-template", "dummy-source"})
"""What MLflow's client writes where there are no files."""
RUNS = re.compile(r"runs:/(?P<run>[\w\-]+)(?:/(?P<path>.*))?", re.ASCII)
PLACE = "mlflow-artifacts:"
LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{32})", re.ASCII)
VERSION = re.compile(
    r"models:/(?P<name>[^/@:]+)"
    r"(?:/(?P<version>\d{1,18})|/latest|@(?P<alias>[\w\-]+))"
)
FORMS = (
    "runs:/RUN_ID/PATH, models:/MODEL_ID, models:/NAME/VERSION, models:/NAME@ALIAS, or "
    "the mlflow-artifacts: URI of a run or logged model; log the files to a run first"
)
_RUN = text("SELECT run_id, artifact_uri FROM mlflow_run WHERE run_id = :run_id")


@dataclass(frozen=True, slots=True)
class Source:
    """What a version is made from.

    Attributes
    ----------
    source : as it is told; a copy names its version by number.
    location : where a client reads the files.
    owner, path : whose files they are, and the folder among them; an empty owner:
        there are none.
    copied : the version that it is a copy of.
    """

    source: str
    location: str
    run_id: str
    model_id: str
    owner: str = ""
    path: str = ""
    copied: Row[Any] | None = None


def resolve(
    connection: Connection, source: str, run_id: str | None, model_id: str | None
) -> Source:
    """Return what a source means.

    Parameters
    ----------
    run_id, model_id : as the request names them; None: it does not.

    Raises
    ------
    Refusal
        When it is of no form that is kept here, or of another run or model than the
        request says.
    """
    if match := RUNS.fullmatch(source):
        return _of_run(connection, source, match["run"], match["path"] or "", run_id)
    if source.startswith(PLACE):
        return _of_location(connection, source, run_id or "", model_id or "")
    if match := LOGGED.fullmatch(source):
        return _of_logged(connection, source, match["id"], run_id, model_id)
    if match := VERSION.fullmatch(source):
        return _of_version(connection, match, source, run_id, model_id)
    raise invalid(f"source: {source!r} is none of {FORMS}")


def _of_run(
    connection: Connection, source: str, run: str, path: str, run_id: str | None
) -> Source:
    if run != run_id:
        raise _other(source, "run_id", run_id)
    row = _run(connection, source, run)
    path = path.removesuffix("/")
    if path:
        checked_path(path, "source")
    return Source(source, source, run, "", row.run_id, path)


def _run(connection: Connection, source: str, run_id: str) -> Row[Any]:
    row = connection.execute(_RUN, {"run_id": run_id}).first()
    if row is None:
        raise invalid(f"source: {source!r}: there is no run {run_id!r}")
    return row


def _of_logged(
    connection: Connection,
    source: str,
    logged: str,
    run_id: str | None,
    model_id: str | None,
) -> Source:
    if logged != model_id:
        raise _other(source, "model_id", model_id)
    row = logged_models.of_id(connection, logged)
    run = run_id or row.source_run_id or ""
    return Source(source, row.artifact_location, run, logged, logged)


def _of_location(
    connection: Connection, source: str, run_id: str, model_id: str
) -> Source:
    """Read ``mlflow-artifacts:``: a place of the run or model that is named."""
    spot = spot_of_uri(source)
    check_owner(connection, spot, for_writing=False)
    field, named = ("model_id", model_id) if spot.is_model else ("run_id", run_id)
    if spot.owner != named:
        raise _other(source, field, named)
    return Source(source, source, run_id, model_id, spot.owner, spot.path)


def _of_version(
    connection: Connection,
    match: re.Match[str],
    source: str,
    run_id: str | None,
    model_id: str | None,
) -> Source:
    """Read ``models:/NAME/...``: the new version is a copy, with the same files."""
    name = match["name"]
    if match["version"]:
        number = int(match["version"])
    elif match["alias"]:
        found = aliases_of(connection, [name])[name].get(match["alias"])
        if found is None:
            raise invalid(f"source: {name!r} has no alias {match['alias']!r}")
        number = found
    else:
        rows = latest_of(connection, [name])
        if not rows:
            raise invalid(f"source: {name!r} has no version")
        number = max(int(row.version) for row in rows)
    row = version_of(connection, name, number)
    for field, given in (("run_id", run_id), ("model_id", model_id)):
        if given is not None and given != getattr(row, field):
            raise _other(source, field, given)
    return Source(
        source=f"models:/{name}/{number}",
        location=row.location,
        run_id=row.run_id,
        model_id=row.model_id,
        copied=row,
    )


def _other(source: str, field: str, given: str | None) -> Refusal:
    return invalid(
        f"{field}: {given or 'missing'}: it has to name what {source!r} belongs to"
    )


def owner_of(source: Source) -> tuple[str, str]:
    """Return whose files a source means, and the folder among them."""
    if source.copied is None:
        return source.owner, source.path
    if match := RUNS.fullmatch(source.location):
        return match["run"], (match["path"] or "").removesuffix("/")
    spot = spot_of_uri(source.location)
    return spot.owner, spot.path
