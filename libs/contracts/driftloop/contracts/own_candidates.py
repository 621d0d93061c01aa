"""Candidates of the pipeline's own package, beside those that the trainer has."""

from collections.abc import Iterable
from typing import Annotated

from driftloop.contracts.base import Section
from driftloop.contracts.checks import ImportPath
from pydantic import ConfigDict, Field, JsonValue

OwnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""It names files of a job, and stands beside the trainer's own names."""


class OwnCandidate(Section):
    """A model of your own package: a function that gives an estimator.

    >>> OwnCandidate.model_validate({"import": "bikes.models:make", "name": "mine"})
    OwnCandidate(path='bikes.models:make', name='mine', parameters={})
    """

    model_config = ConfigDict(
        validate_by_name=False, validate_by_alias=True, serialize_by_alias=True
    )

    path: ImportPath = Field(alias="import", description="`package.module:name`")
    name: OwnName = Field(description="under which it is tried and shown")
    parameters: dict[str, JsonValue] = Field(
        default={}, description="keyword arguments of what is imported"
    )


OWN_KEYS = tuple(f.alias or name for name, f in OwnCandidate.model_fields.items())


def kind_of_candidate(value: object) -> str:
    """Say whether an entry is a name or a mapping, so that errors are of that alone."""
    return "own" if isinstance(value, dict | OwnCandidate) else "name"


def check_own_names(entries: Iterable[object], taken: Iterable[str]) -> None:
    """Refuse an own candidate with the name of another.

    Parameters
    ----------
    taken : names that are not free.

    Raises
    ------
    ValueError
        Names the name that is not free.
    """
    seen = set(taken)
    for entry in entries:
        if isinstance(entry, OwnCandidate):
            if entry.name in seen:
                raise ValueError(
                    f"the name {entry.name!r} is not free; give the candidate of "
                    f"{entry.path} another one"
                )
            seen.add(entry.name)
