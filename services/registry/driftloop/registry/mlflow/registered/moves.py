"""Who moved an alias or a stage, as lines of a history."""

from datetime import UTC, datetime

from driftloop.contracts.events import TrackingChanged
from driftloop.registry.ledger import Entry
from sqlalchemy import Connection, text

BY = "by {by}, a client of MLflow"
_MOVES = text(
    "SELECT * FROM mlflow_model_move WHERE name = :name ORDER BY revision, version"
)


def moves_of(
    connection: Connection, name: str, until: datetime | None = None
) -> list[Entry]:
    """Return what clients moved of a registered model, oldest first; None: to now.

    An entry's event is named by its topic and revision, which no other event has.
    """
    found = [
        Entry(
            at=datetime.fromtimestamp(row.at_ms / 1000, UTC),
            event_id=f"{TrackingChanged.topic()}/{row.revision}",
            version=row.version,
            subject=row.subject,
            before=row.before,
            after=row.after,
            detail=BY.format(by=row.by),
        )
        for row in connection.execute(_MOVES, {"name": name})
    ]
    return [entry for entry in found if until is None or entry.at <= until]
