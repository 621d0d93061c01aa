"""What follows from a report of a runner, and from a version that is taken back."""

from collections.abc import Iterator

from driftloop.contracts.events import AlertRaised, EdgeReported, ModelRolledBack
from driftloop.registry import tables
from driftloop.registry.edges.tables import answering, note, runners_of
from driftloop.registry.edges.warning import WHY, problem_with, warning
from driftloop.registry.tables import RegistryVersion
from sqlmodel import Session


def take_report(
    event: EdgeReported, session: Session, owner: str | None
) -> Iterator[AlertRaised]:
    """Remember a report; tell people once if its version should not answer.

    Told with a runner's first report of a version; what becomes of a version later is
    told by :func:`take_rollback`.
    """
    if not note(session, event):
        return
    name, version = event.pipeline, event.version
    standing = tables.ledger_of(session, name).standings.get(version)
    row = session.get(RegistryVersion, (name, version))
    why = problem_with(
        standing.state if standing else None,
        row.digest if row else None,
        event.package_digest,
    )
    if why is not None:
        yield warning(name, version, [event.edge], why, owner)


def take_rollback(
    event: ModelRolledBack, session: Session, owner: str | None
) -> Iterator[AlertRaised]:
    """Tell people which runners still answer with a version that was taken back."""
    edges = [
        row.edge
        for row in answering(runners_of(session, [event.pipeline]))
        if row.version == event.version
    ]
    if edges:
        yield warning(event.pipeline, event.version, edges, WHY["rolled_back"], owner)
