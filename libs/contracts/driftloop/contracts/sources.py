"""Where ingest fetches rows by itself: folders, S3 prefixes, SQL tables."""

from typing import Literal

from driftloop.contracts.base import NAME_PATTERN, Section
from pydantic import Field, model_validator

SECRET_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"  # noqa: S105 - the form of a name


class SqlTable(Section):
    """A table, or view, that is read by a column that only grows."""

    url_secret: str = Field(
        pattern=SECRET_PATTERN,
        description="name of the secret with the SQLAlchemy URL: NAME is the file "
        "driftloop_source_NAME in the secrets' folder, or DRIFTLOOP_SOURCE_NAME",
    )
    table: str = Field(min_length=1, description="table or view, also schema.table")
    cursor: str = Field(
        min_length=1,
        description="column that grows with every new or changed row, such as a "
        "number or a time of change; rows may share a value",
    )


class PullSource(Section):
    """One place that ingest looks at again and again."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="becomes the rows' source; a new name begins anew",
    )
    folder: str | None = Field(
        default=None,
        description="folder, or s3://bucket/prefix; below a root that ingest allows",
    )
    pattern: str = Field(
        default="*", description="of the names of files, such as `*.parquet`"
    )
    sql: SqlTable | None = Field(default=None, description="a table instead")
    rows: Literal["observations", "labels"] = Field(
        default="observations", description="what its rows are"
    )
    every_seconds: float = Field(
        default=10, ge=0.1, description="between two looks, by the wall clock"
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "PullSource":
        if (self.folder is None) == (self.sql is None):
            raise ValueError("name either folder or sql, and not both")
        return self


def check_names(sources: list[PullSource]) -> list[PullSource]:
    """Return the sources.

    Raises
    ------
    ValueError
        When two have the same name: they would share one position.
    """
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"source {', '.join(twice)} is there twice; rename one")
    return sources
