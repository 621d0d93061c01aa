"""Whether a runner answers with a version that home would not serve; pure.

Home cannot take a version back that runs elsewhere: it can only tell people.
"""

from collections.abc import Sequence

from driftloop.contracts.events import AlertRaised
from driftloop.registry.ledger import State

WHY: dict[State, str] = {
    "rejected": "was rejected",
    "rolled_back": "was taken back",
    "expired": "was not approved in time",
    "registered": "is not approved",
    "awaiting_approval": "is not approved",
}
"""What is wrong with a version in each state that is not one of service."""
REMEDY = "export another version and start it there: driftloop export"


def problem_with(
    state: State | None, registered_digest: str | None, digest: str
) -> str | None:
    """Say why a version should not answer; None: it may.

    Parameters
    ----------
    state : None: the registry knows no such version.
    registered_digest : of the package that the version has here.

    >>> problem_with("rolled_back", "a", "a"), problem_with("deployed", "a", "a")
    ('was taken back', None)
    >>> problem_with("deployed", "a", "b")
    'is another package than the one that is registered'
    """
    if state is None:
        return "is not known here"
    if registered_digest != digest:
        return "is another package than the one that is registered"
    return WHY.get(state)


def warning(
    pipeline: str, version: int, edges: Sequence[str], why: str, owner: str | None
) -> AlertRaised:
    """Return what people are told of runners with such a version."""
    named = ", ".join(sorted(edges))
    return AlertRaised(
        pipeline=pipeline,
        condition=f"edge/{version}/{why}/{named}"[:500],
        severity="warning",
        title=f"v{version} {why} and answers at the edge",
        detail=f"{named}: {REMEDY} {pipeline} --to FOLDER",
        owner=owner,
    )
