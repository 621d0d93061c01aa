"""Whose payloads are whose, so that erasing a person deletes theirs.

Only where a pipeline file names an attachment's ``subject``. Like tokens and keys this
belongs into the backup of ingest's database: once privacy rules have hidden a person's
id, no topic says it.
"""

from collections.abc import Iterable

from driftloop.ingest.keys import PrivacyKeys
from driftloop.ingest.privacy import subject_of
from driftloop.ingest.vault import DatabaseVault
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlmodel import Field, Session, SQLModel, col

NOBODY = ""
"""Owner of a payload that a row without a subject refers to: it stays."""


class PayloadOwner(SQLModel, table=True):
    """A person, by pseudonym, and a payload that a row of theirs refers to."""

    __tablename__ = "ingest_payload_owner"
    pipeline: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)


class Owners:
    """The owners within one transaction."""

    def __init__(self, session: Session, keys: PrivacyKeys) -> None:
        self._session = session
        self._keys = keys

    def subjects(self, pipeline: str, names: list[str | None]) -> list[str | None]:
        """Return each person's pseudonym; None where the person was erased."""
        known = {n: subject_of(self._keys, pipeline, n) for n in names if n}
        vault = DatabaseVault(self._session, self._keys)
        held = vault.subject_keys(pipeline, known.values())
        return [
            NOBODY if not name else known[name] if held[known[name]] else None
            for name in names
        ]

    def note(self, pipeline: str, pairs: Iterable[tuple[str, str]]) -> None:
        """Remember pairs of subject and digest."""
        rows = [
            {"pipeline": pipeline, "sha256": sha256, "subject": subject}
            for subject, sha256 in sorted(set(pairs))  # one order: no deadlocks
        ]
        if not rows:
            return
        connection = self._session.connection()
        is_sqlite = connection.dialect.name == "sqlite"
        insert = sqlite_insert if is_sqlite else postgresql_insert
        connection.execute(insert(PayloadOwner).on_conflict_do_nothing(), rows)

    def release(self, pipeline: str, subject: str) -> list[str]:
        """Forget a person; return the digests that nobody else refers to."""
        run = self._session.connection().execute
        here, digest = col(PayloadOwner.pipeline) == pipeline, col(PayloadOwner.sha256)
        theirs = col(PayloadOwner.subject) == subject
        others = select(digest).where(here, ~theirs)
        alone = select(digest).where(here, theirs, digest.not_in(others))
        found = sorted(run(alone).scalars())
        run(delete(PayloadOwner).where(here, theirs))
        return found
