"""Privacy rules at the HTTP door: what goes to the raw topic is treated already."""

from collections import deque
from dataclasses import dataclass, field, replace

from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.discreet import TRACEPARENT, UUID
from driftloop.ingest.formats import Parsed
from driftloop.ingest.keys import PrivacyKeys
from driftloop.ingest.privacy import treat
from driftloop.ingest.records import rewritten
from driftloop.ingest.vault import DatabaseVault
from driftloop.runtime.envelope import Attributes
from driftloop.runtime.transport import Record
from fastapi import HTTPException
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

RETRY_AFTER_S = 5
COLUMN_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class PrivacyDoor:
    """The keys and the database that tokens and subject keys lie in.

    Attributes
    ----------
    proposed_here : ids of erasures that were proposed in this process lately: they
        may not have been read yet.
    """

    engine: Engine
    keys: PrivacyKeys
    proposed_here: deque[str] = field(default_factory=lambda: deque(maxlen=1000))

    def treated(self, parsed: Parsed, spec: PipelineSpec) -> Parsed:
        """Return rows with the pipeline's rules applied; new tokens are stored.

        Raises
        ------
        HTTPException
            When the database is away or busy.
        """
        try:
            with Session(self.engine) as session:
                vault = DatabaseVault(session, self.keys)
                result = treat(parsed, spec, self.keys, vault)
                session.commit()
        except OperationalError as error:
            raise HTTPException(
                503,
                "the database of tokens and keys does not answer; send the rows again",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        return result

    def own_attributes(self, attributes: Attributes, parsed: Parsed) -> Attributes:
        """Return the attributes of a message that holds the treated rows.

        Nothing that the sender wrote stays but a trace context of the right form;
        an id that is no UUID is replaced by a keyed hash, equal for equal ones.
        """
        values = {}
        event_id = attributes.get("id")
        if event_id:
            is_uuid = UUID.fullmatch(event_id)
            values["id"] = (
                event_id if is_uuid else self.keys.pseudonym("\0message", event_id)
            )
        traceparent = attributes.get("traceparent")
        if traceparent and TRACEPARENT.fullmatch(traceparent):
            values["traceparent"] = traceparent
        return rewritten(values, parsed)

    def sealed(self, record: Record, spec: PipelineSpec) -> Record:
        """Return the record with the proof that the rules were applied."""
        columns = sorted({*spec.data.privacy, *spec.data.attachments})
        seal = self.keys.seal(record.topic, spec.name, columns, record.value or b"")
        return replace(
            record,
            headers=(
                *record.headers,
                ("ce_privacycolumns", COLUMN_SEPARATOR.join(columns).encode()),
                ("ce_privacyseal", seal.encode()),
            ),
        )
