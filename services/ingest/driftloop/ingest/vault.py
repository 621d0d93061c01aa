"""Tokens and the keys of subjects, in ingest's database.

They are drawn at random, so no topic can give them back: unlike everything else in
ingest's database they belong into its backup (docs/privacy.md). They lie there
encrypted by the privacy key, and values only as pseudonyms.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from driftloop.ingest.keys import SUBJECT_KEY_BITS, PrivacyKeys
from driftloop.ingest.privacy import subject_of
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlmodel import Field, Session, SQLModel, col

TOKEN_BYTES = 16
LOOKUP_KEYS = 5_000


class Token(SQLModel, table=True):
    """What stands for one value of one column."""

    __tablename__ = "ingest_token"
    pipeline: str = Field(primary_key=True)
    field: str = Field(primary_key=True)
    value_id: str = Field(primary_key=True)
    token: str = Field(index=True)
    wrapped_value: bytes


class SubjectKey(SQLModel, table=True):
    """The key of one person's values; without it they cannot be read any more."""

    __tablename__ = "ingest_subject_key"
    pipeline: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    wrapped_key: bytes | None
    erased_at: datetime | None = None


VAULT_TABLES = (Token, SubjectKey)


class DatabaseVault:
    """The vault within one transaction; see :class:`privacy.Vault`."""

    def __init__(self, session: Session, keys: PrivacyKeys) -> None:
        self._session = session
        self._keys = keys

    def tokens(
        self, pipeline: str, column: str, values: Iterable[str]
    ) -> dict[str, str]:
        by_id = {subject_of(self._keys, pipeline, value): value for value in values}
        known = self._known_tokens(pipeline, column, by_id)
        missing = sorted(by_id.keys() - known.keys())  # one order: no deadlocks
        if missing:
            rows = [
                {
                    "pipeline": pipeline,
                    "field": column,
                    "value_id": value_id,
                    "token": f"tok_{secrets.token_urlsafe(TOKEN_BYTES)}",
                    "wrapped_value": self._keys.wrapped(
                        by_id[value_id].encode(errors="surrogatepass"),
                        f"{pipeline}/{column}",
                    ),
                }
                for value_id in missing
            ]
            self._insert(Token, rows)
            known |= self._known_tokens(pipeline, column, missing)
        return {by_id[value_id]: token for value_id, token in known.items()}

    def _known_tokens(
        self, pipeline: str, column: str, value_ids: Iterable[str]
    ) -> dict[str, str]:
        query = select(Token.value_id, Token.token).where(  # type: ignore[call-overload]  # SQLModel's columns
            col(Token.pipeline) == pipeline, col(Token.field) == column
        )
        found: dict[str, str] = {}
        for part in _parts(value_ids):
            rows = self._session.connection().execute(
                query.where(col(Token.value_id).in_(part))
            )
            found |= {row.value_id: row.token for row in rows}
        return found

    def subject_keys(
        self, pipeline: str, subjects: Iterable[str]
    ) -> dict[str, bytes | None]:
        wanted = list(dict.fromkeys(subjects))
        known = self._known_keys(pipeline, wanted)
        missing = sorted(set(wanted) - known.keys())
        if missing:
            rows = [
                {
                    "pipeline": pipeline,
                    "subject": subject,
                    "wrapped_key": self._keys.wrapped(
                        AESSIV.generate_key(SUBJECT_KEY_BITS), f"{pipeline}/{subject}"
                    ),
                }
                for subject in missing
            ]
            self._insert(SubjectKey, rows)
            known |= self._known_keys(pipeline, missing)
        return known

    def _known_keys(
        self, pipeline: str, subjects: Iterable[str]
    ) -> dict[str, bytes | None]:
        query = select(SubjectKey.subject, SubjectKey.wrapped_key).where(  # type: ignore[call-overload]  # SQLModel's columns
            col(SubjectKey.pipeline) == pipeline
        )
        found: dict[str, bytes | None] = {}
        for part in _parts(subjects):
            rows = self._session.connection().execute(
                query.where(col(SubjectKey.subject).in_(part))
            )
            found |= {
                subject: self._key(pipeline, subject, key) for subject, key in rows
            }
        return found

    def _key(self, pipeline: str, subject: str, wrapped: bytes | None) -> bytes | None:
        if wrapped is None:
            return None
        return self._keys.unwrapped(wrapped, f"{pipeline}/{subject}")

    def known_key(self, pipeline: str, subject: str) -> bytes | None:
        """Return a subject's key; None: there is none, or it was erased."""
        return self._known_keys(pipeline, [subject]).get(subject)

    def value_of(self, pipeline: str, token: str) -> tuple[str, str] | None:
        """Return the column and the value that a token stands for."""
        row = (
            self._session.connection()
            .execute(
                select(Token.field, Token.wrapped_value).where(  # type: ignore[call-overload]  # SQLModel's columns
                    col(Token.pipeline) == pipeline, col(Token.token) == token
                )
            )
            .first()
        )
        if row is None:
            return None
        value = self._keys.unwrapped(row[1], f"{pipeline}/{row[0]}")
        return row[0], value.decode(errors="surrogatepass")

    def erase(self, pipeline: str, subject: str) -> tuple[int, list[str]]:
        """Delete a subject's key and the tokens of its id; return keys and tokens.

        A mark stays, so that a row which comes later is not encrypted anew.
        """
        self.subject_keys(pipeline, [subject])  # a mark also for one not seen yet
        row = self._session.get_one(SubjectKey, (pipeline, subject))
        was_there = row.wrapped_key is not None
        row.wrapped_key = None
        row.erased_at = row.erased_at or datetime.now(UTC)
        self._session.add(row)
        theirs = col(Token.pipeline) == pipeline, col(Token.value_id) == subject
        run = self._session.connection().execute
        tokens = sorted(run(select(col(Token.token)).where(*theirs)).scalars())
        run(delete(Token).where(*theirs))
        self._session.flush()
        return int(was_there), tokens

    def _insert(
        self, table: type[SQLModel], rows: Sequence[Mapping[str, object]]
    ) -> None:
        """Insert what is missing; another transaction may have been first."""
        dialect = self._session.connection().dialect.name
        insert = sqlite_insert if dialect == "sqlite" else postgresql_insert
        self._session.connection().execute(
            insert(table).on_conflict_do_nothing(), [*map(dict, rows)]
        )


def _parts(values: Iterable[str]) -> Iterable[list[str]]:
    wanted = list(values)
    for start in range(0, len(wanted), LOOKUP_KEYS):
        yield wanted[start : start + LOOKUP_KEYS]
