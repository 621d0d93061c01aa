"""Where clients believe files to lie: ``mlflow-artifacts:/<place>/<path>``.

A place names an owner, nothing else: ``<experiment>/<run>/artifacts`` or
``<experiment>/models/<logged model>/artifacts``. The server made each of them up; one
that it did not make up belongs to nobody.
"""

import re
from typing import NamedTuple

from driftloop.registry.mlflow import experiments, logged_models, runs
from driftloop.registry.mlflow.errors import absent, invalid
from driftloop.registry.mlflow.files import checked_path
from sqlalchemy import Connection

PLACE = re.compile(
    r"(?P<experiment>\d{1,19})/(?:models/(?P<model>m-[0-9a-f]{32})|(?P<run>[0-9a-f]{32}))"
    r"/artifacts(?:/(?P<path>.*))?",
    re.ASCII | re.DOTALL,
)
SCHEME = experiments.ROOT


class Spot(NamedTuple):
    """An owner, and a path of its files; an empty path: all of them."""

    experiment_id: int
    owner: str
    path: str

    @property
    def is_model(self) -> bool:
        return self.owner.startswith("m-")


def spot_of(place: str) -> Spot:
    """Return whose files a place names, and which.

    Raises
    ------
    Refusal
        When it is none of the server's places, or the path none of a file's.

    Examples
    --------
    >>> spot_of(f"0/{'a' * 32}/artifacts/model/MLmodel").path
    'model/MLmodel'
    >>> spot_of("0/../../etc/passwd")
    Traceback (most recent call last):
    driftloop.registry.mlflow.errors.Refusal: path: '0/../../etc/passwd' is none of ...
    """
    match = PLACE.fullmatch(place.removesuffix("/"))
    if match is None:
        raise invalid(
            f"path: {place!r} is none of this server's places; it begins with the "
            "artifact_uri of a run, or the artifact_location of a logged model, "
            f"without {SCHEME!r}"
        )
    path = match["path"] or ""
    if path:
        checked_path(path)
    return Spot(int(match["experiment"]), match["model"] or match["run"], path)


def spot_of_uri(uri: str) -> Spot:
    """Return the spot of an ``mlflow-artifacts:/`` URI; see :func:`spot_of`."""
    if not uri.startswith(SCHEME) or uri.startswith(f"{SCHEME}/"):
        raise invalid(f"{uri!r} does not begin with {SCHEME!r} and a place")
    return spot_of(uri.removeprefix(SCHEME))


def check_owner(connection: Connection, spot: Spot, *, for_writing: bool) -> None:
    """Refuse a spot whose owner is not there, or, for a write, is put away."""
    if spot.is_model:
        model = logged_models.of_id(
            connection, spot.owner, with_deleted=not for_writing
        )
        experiment_id = model.experiment_id
    else:
        run = runs.of_id(connection, spot.owner)
        if for_writing:
            runs.check_active(run)
        experiment_id = run.experiment_id
    if experiment_id != spot.experiment_id:
        raise absent(f"path: {spot.owner} is none of experiment {spot.experiment_id}")
