"""The pipelines as registered models: which there are, and what may be asked of them.

The loop alone decides about its versions. A client that moves ``champion`` therefore
asks: its wish is an approval, or a request to bring an earlier version back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from driftloop.registry.ledger import ALIASES
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.registered.shown import PREFIX
from sqlalchemy import Connection, text

if TYPE_CHECKING:  # it reads rows, which belong to pipelines
    from driftloop.contracts.events import BlobRef
    from driftloop.registry.mlflow.registered.sources import Source
    from driftloop.runtime.identity.routing import Who

Times = Mapping[str, tuple[int, int]]
"""Of each pipeline: made, and last changed, in ms."""
Promote = Callable[[str, int, str], None]
"""Pipeline, version, who asks."""
ModelOf = Callable[[Connection, str, "Source"], "BlobRef"]
CHAMPION = "champion"
_SHOWN = (
    "SELECT name, min(created_ms) AS created_ms, max(updated_ms) AS updated_ms "
    "FROM registry_shown_version"
)
_IS_SHOWN = text("SELECT 1 FROM registry_shown_version WHERE name = :name LIMIT 1")
_JUDGED = text(
    "SELECT 1 FROM registry_shown_version WHERE name = :name AND version = :version "
    "UNION ALL SELECT 1 FROM mlflow_model_version "
    "WHERE name = :name AND version = :version AND job_id <> ''"
)
_RESERVED = text(
    "SELECT version FROM mlflow_model_version WHERE name = :name AND job_id = :job_id"
)
_NEWEST = text(  # two searches at an index's end; over a union it would be a scan
    "SELECT max(version) FROM ("
    "SELECT max(version) AS version FROM mlflow_model_version WHERE name = :name "
    "UNION ALL "
    "SELECT max(version) FROM registry_shown_version WHERE name = :name) x"
)


def next_version(connection: Connection, name: str) -> int:
    """Return the number of a model's next version; deleted ones count."""
    return int(connection.execute(_NEWEST, {"name": name}).scalar() or 0) + 1


def version_for_job(connection: Connection, name: str, job_id: str) -> int | None:
    """Return the version that was registered for a job; None: the job is no such."""
    values = {"name": name, "job_id": job_id}
    found: int | None = connection.execute(_RESERVED, values).scalar()
    return found


def _nobody(*_: object) -> NoReturn:
    raise LookupError("there are no pipelines")


@dataclass(frozen=True)
class Pipelines:
    """What the registered models' calls know of the loop.

    Attributes
    ----------
    applied : each applied pipeline, with when that was in ms.
    newest : highest version that the log knew at the start; 0: none.
    promote : asks that a version goes into service; see ``promotion.py``.
    ask_as : gives ``promote`` for who asks.
    model_of : finds the model of a source that a pipeline can serve; see
        ``submission.py``.
    """

    applied: Callable[[], Mapping[str, int]] = dict
    newest: Callable[[str], int] = lambda _: 0
    promote: Promote = _nobody
    model_of: ModelOf = _nobody
    ask_as: Callable[["Who"], Promote] | None = None

    def asked_by(self, who: "Who") -> "Pipelines":
        """Return the same, where wishes are those of ``who``."""
        return self if self.ask_as is None else replace(self, promote=self.ask_as(who))

    def times(self, connection: Connection, name: str | None = None) -> Times:
        """Return each pipeline, or one, with when it was made and last changed."""
        applied = self.applied()
        names = applied if name is None else [name] if name in applied else []
        found = {each: (applied[each], applied[each]) for each in names}
        where = "" if name is None else " WHERE name = :name"
        query = text(f"{_SHOWN}{where} GROUP BY name")
        values = {} if name is None else {"name": name}
        for row in connection.execute(query, values):
            created, updated = found.get(row.name, (row.created_ms, 0))
            found[row.name] = (
                min(created, row.created_ms),
                max(updated, row.updated_ms),
            )
        return found

    def has(self, connection: Connection, name: str) -> bool:
        if name in self.applied():
            return True
        return connection.execute(_IS_SHOWN, {"name": name}).first() is not None

    def is_judged(self, connection: Connection, name: str, version: int) -> bool:
        """Whether the loop decides about a version, not whoever registered it."""
        values = {"name": name, "version": version}
        return connection.execute(_JUDGED, values).first() is not None

    def next_version(self, connection: Connection, name: str) -> int:
        """Return the number of a model's next version; deleted ones count."""
        return max(next_version(connection, name), self.newest(name) + 1)

    def check_not_ours(self, connection: Connection, name: str, what: str) -> None:
        """Refuse to do to a pipeline what would take it out of the loop."""
        if self.has(connection, name):
            raise Refusal(
                "RESOURCE_CONFLICT",
                f"name: {name!r} is a pipeline, which cannot be {what}; apply another "
                "pipeline file, or copy a version with copy_model_version",
            )

    def check_tag(self, connection: Connection, name: str, key: str) -> None:
        if key.startswith(PREFIX) and self.has(connection, name):
            raise invalid(
                f"key: {key!r}: tags that begin with {PREFIX!r} say what the loop "
                "knows of a pipeline; choose another key"
            )

    def check_alias(self, connection: Connection, name: str, alias: str) -> None:
        """Refuse to set, or take away, what follows from what is in service."""
        if alias in ALIASES and self.has(connection, name):
            raise Refusal(
                "RESOURCE_CONFLICT",
                f"alias: {alias!r} of a pipeline follows from what is in service; set "
                f"{CHAMPION!r} to ask for a version, roll back with driftloop "
                "rollback, or choose another alias",
            )


NO_PIPELINES = Pipelines()
