"""REST: versions of datasets, as the log tells of them."""

from datetime import datetime
from typing import Annotated

from driftloop.registry.lineage.tables import RegistryDataset
from driftloop.registry.resources.listing import (
    After,
    Listed,
    OfPipeline,
    cut,
    newest,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit, Name
from driftloop.registry.tables import utc
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Path
from pydantic import BaseModel, Field
from sqlmodel import Session, col, select

VERSION_PATTERN = r"^\d{1,9}\.\d{1,9}$"
DatasetKey = Annotated[str, Path(pattern=VERSION_PATTERN, examples=["730.365"])]


class DatasetVersion(BaseModel):
    """Rows or labels were added; the dataset has a new version."""

    pipeline: str = Field(examples=["bike-demand"])
    version: str = Field(
        description="of the observations and, after the dot, of the labels",
        examples=["730.365"],
    )
    kind: str = Field(description="what was added", examples=["observations"])
    at: datetime
    event_id: str
    batch_id: str = Field(description="id of its `batch-ingested`")
    source: str | None = Field(description="who sent the batch")
    added_count: int
    quarantined_count: int = Field(description="rows of the batch that did not go on")
    observation_count: int | None = Field(
        description="of this version; null: not known, read before it was kept"
    )
    label_count: int | None = Field(description="rows of this version with a target")
    start: datetime = Field(description="event time of the first row that was added")
    end: datetime


def dataset_routes(context: Context) -> GuardedRouter:
    """Return the routes about datasets; they change nothing."""
    router = ApiRouter(
        prefix="/datasets", tags=["datasets"], dependencies=[needs("read")]
    )

    @router.get("")
    def datasets(
        who: AskedBy,
        pipeline: OfPipeline = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[DatasetVersion]:
        """List versions of datasets, newest first."""
        table, after = RegistryDataset, place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            wanted = [col(table.pipeline).in_(names)]
            found = newest(session, table, "event_id", wanted, after, limit + 1)
            return cut(found, limit, after, _view)

    @router.get("/{pipeline}/{version}")
    def dataset(pipeline: Name, version: DatasetKey) -> DatasetVersion:
        """Show one version; where it came from and went to, lineage says."""
        with context.session() as session:
            context.ledger(session, pipeline)
            return _view(dataset_row(session, pipeline, version))

    return router


def dataset_row(session: Session, pipeline: str, version: str) -> RegistryDataset:
    """Return a version's row.

    Raises
    ------
    HTTPException
        404, naming the newest one there is.
    """
    table = RegistryDataset
    observations, labels = map(int, version.split("."))
    mine = select(table).where(table.pipeline == pipeline)
    row = session.exec(
        mine.where(table.observations == observations, table.labels == labels)
    ).first()
    if row is None:
        by_number = (col(table.observations).desc(), col(table.labels).desc())
        last = session.exec(mine.order_by(*by_number)).first()
        there_is = f"the newest is {_version(last)}" if last else "it has none yet"
        raise HTTPException(
            404, f"{pipeline} has no dataset version {version}; {there_is}"
        )
    return row


def _version(row: RegistryDataset) -> str:
    return f"{row.observations}.{row.labels}"


def _view(row: RegistryDataset) -> DatasetVersion:
    fields = row.model_dump(
        include=set(DatasetVersion.model_fields) - {"version", "at", "start", "end"}
    )
    return DatasetVersion(
        **fields,
        version=_version(row),
        at=utc(row.at),
        start=utc(row.start),
        end=utc(row.end),
    )
