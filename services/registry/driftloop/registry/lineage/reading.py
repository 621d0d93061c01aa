"""The facts of a pipeline's lineage, read from the registry's tables."""

from collections.abc import Collection
from dataclasses import fields, replace

from driftloop.registry import tables
from driftloop.registry.lineage.graph import (
    ApprovalFact,
    DatasetFact,
    DeploymentFact,
    DriftFact,
    Facts,
    Graph,
    ModelFact,
    Node,
    TrainingFact,
)
from driftloop.registry.lineage.tables import (
    RegistryDataset,
    RegistryTraining,
    drifts_of,
    pipeline_of,
    trainings_of,
    trigger_of,
)
from driftloop.registry.tables import utc
from sqlalchemy import select as sa_select
from sqlmodel import Session, col

KINDS = frozenset(
    {"batch", "validated", "dataset", "training", "model", "deployment", "drift",
     "approval", "request"}
)  # fmt: skip


class UnknownThingError(LookupError):
    """There is no such thing; the text says how things are named."""


def find(session: Session, thing: str) -> tuple[Graph, Node]:
    """Return what is meant, and the graph that it is in.

    ``bikes/3`` and ``model/bikes/3`` are a version, ``bikes`` and ``bikes@champion``
    the one in service, ``dataset/bikes/730.365`` a dataset version; an id of an event
    or of a training stands for what it tells of.

    Raises
    ------
    UnknownThingError
        When there is none.
    """
    parts = thing.strip().strip("/").replace("@", "/").split("/")
    place: tuple[str, str, str] | None = None
    if len(parts) == 3 and parts[0] in KINDS:
        place = parts[0], parts[1], parts[2]
    elif len(parts) == 2:
        aliases = tables.ledger_of(session, parts[0]).aliases
        place = "model", parts[0], str(aliases.get(parts[1], parts[1]))
    elif len(parts) == 1:
        champion = tables.ledger_of(session, parts[0]).aliases.get("champion")
        known = pipeline_of(session, parts[0])
        if known is not None:
            place = *known, parts[0]
        elif champion is not None:
            place = "model", parts[0], str(champion)
    if place is not None:
        graph = Graph(facts_of(session, place[1]))
        node = graph.find(place[0], place[2])
        if node is not None:
            return graph, node
    raise UnknownThingError(
        f"nothing is known of {thing!r}; name a version (bikes/3, or bikes for the one "
        "in service), a dataset version (dataset/bikes/730.365), or the id of an event "
        "or a training"
    )


def facts_of(session: Session, pipeline: str) -> Facts:
    """Return all that the tables hold of a pipeline."""
    book = tables.ledger_of(session, pipeline)
    versions = tables.versions_of(session, pipeline)
    jobs = {row.job_id for row in versions}
    return Facts(
        pipeline,
        _datasets(session, pipeline),
        [_training(row, jobs) for row in trainings_of(session, pipeline)],
        [
            ModelFact(
                row.version, row.job_id, row.event_id, row.fact().at,
                book.standings[row.version].state, row.trained["algorithm"], row.digest,
            )
            for row in versions
        ],
        [
            ApprovalFact(
                row.event_id, row.version, utc(row.at), row.decision, row.by, row.reason
            )
            for row in tables.decisions_of(session, pipeline)
        ],
        [
            DeploymentFact(
                row.event_id, row.version, utc(row.at), row.kind, row.restored,
                row.reason,
            )
            for row in tables.changes_of(session, pipeline)
        ],
        [
            DriftFact(
                row.event_id, utc(row.at), row.cause, row.retrain_advised,
                row.explanation, row.model_version,
            )
            for row in drifts_of(session, pipeline)
        ],
    )  # fmt: skip


def _datasets(session: Session, pipeline: str) -> list[DatasetFact]:
    """Return versions, oldest first; columns alone, as there are many."""
    table = RegistryDataset
    query = (
        sa_select(*(col(getattr(table, each.name)) for each in fields(DatasetFact)))
        .where(col(table.pipeline) == pipeline)
        .order_by(col(table.observations), col(table.labels))
    )
    found = [DatasetFact(*row) for row in session.connection().execute(query)]
    return [
        replace(fact, at=utc(fact.at), start=utc(fact.start), end=utc(fact.end))
        for fact in found
    ]


def _training(row: RegistryTraining, jobs: Collection[str]) -> TrainingFact:
    """Return a training; one whose model is registered has given it."""
    trigger = trigger_of(row)
    return TrainingFact(
        row.job_id,
        "trained" if row.job_id in jobs else row.state,
        utc(row.at),
        trigger.event_type,
        trigger.event_id,
        trigger.reason,
        trigger.requested_by,
        row.observations,
        row.labels,
        utc(row.start) if row.start else None,
        utc(row.end) if row.end else None,
        row.detail,
    )
