"""A site's part in a federation: which rounds wait for it, and its update of one."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid5

import pyarrow as pa
from driftloop.cli.context import CommandError
from driftloop.cli.log import Entry
from driftloop.cli.publish import read_file
from driftloop.contracts.base import EVENT_NAMESPACE
from driftloop.contracts.events import (
    FederatedRoundClosed,
    FederatedRoundOpened,
    FederatedUpdateSubmitted,
)
from driftloop.models.federated import (
    RowsRefused,
    matrix_of,
    seed_of,
    target_of,
    trained,
)

TOPICS = (FederatedRoundOpened.topic(), FederatedRoundClosed.topic())


def rows_of(file: Path) -> pa.Table:
    """Return a file's rows.

    Raises
    ------
    PublishFileError
        When it cannot be read.
    """
    return read_file(file).to_arrow()


def update_of(
    opened: FederatedRoundOpened, site: str, rows: pa.Table
) -> FederatedUpdateSubmitted:
    """Train on a site's rows for one round; return what that changed.

    The same again when repeated.

    Raises
    ------
    CommandError
        When the rows lack a column, or none has a target.
    """
    encoding = opened.encoding
    try:
        matrix = matrix_of(rows, encoding)
        target, known = target_of(rows, encoding)
    except RowsRefused as error:
        raise CommandError(f"the rows do not fit the round: {error}") from error
    if not known.any():
        raise CommandError(f"no row has a {encoding.target}; a site learns from labels")
    seed = seed_of(opened.seed, opened.federation_id, site, opened.round)
    weights = trained(
        opened.weights,
        matrix[known],
        target[known],
        encoding,
        opened.rules.local,
        seed,
    )
    return FederatedUpdateSubmitted(
        pipeline=opened.pipeline,
        federation_id=opened.federation_id,
        round=opened.round,
        site=site,
        row_count=int(known.sum()),
        update=(weights - opened.weights).tolist(),
    )


def event_id_of(update: FederatedUpdateSubmitted) -> str:
    """Return an id that a site started again gives to its repeated update."""
    name = f"{update.federation_id}/{update.round}/{update.site}"
    return str(uuid5(EVENT_NAMESPACE, f"federated-update/{name}"))


@dataclass
class Rounds:
    """A pipeline's rounds as the log tells of them; topics may come in any order."""

    pipeline: str
    opened: dict[tuple[str, int], FederatedRoundOpened] = field(default_factory=dict)
    closed: dict[tuple[str, int], FederatedRoundClosed] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        event = entry.event
        if event.pipeline != self.pipeline:
            return
        if isinstance(event, FederatedRoundOpened):
            self.opened[event.federation_id, event.round] = event
        elif isinstance(event, FederatedRoundClosed):
            self.closed[event.federation_id, event.round] = event

    def waiting(self, now: datetime) -> list[FederatedRoundOpened]:
        """Return the rounds that an update sent now would count for."""
        return [
            opened
            for key, opened in self.opened.items()
            if key not in self.closed and opened.deadline > now
        ]

    def end_of(self, federation_id: str) -> FederatedRoundClosed | None:
        """Return a federation's last round once that is closed."""
        return next(
            (
                closed
                for (name, _), closed in self.closed.items()
                if name == federation_id and closed.is_last
            ),
            None,
        )
