"""Messages for the data door, and what its handlers make of them."""

from collections.abc import Sequence

import orjson
from driftloop.contracts.events import BatchIngested, PipelineApplied
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.ingest.handlers import IngestDeps, Patience
from driftloop.ingest.keys import PrivacyKeys
from driftloop.ingest.tables import TABLES
from driftloop.runtime.database import open_database
from driftloop.runtime.handlers import Chunk, DeadLetter
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from sqlmodel import Session

SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, features: "
    "{temp: {min: 0, max: 1}, sky: {type: category}}}}"
)
KEYS = PrivacyKeys.from_secret(b"a secret of the tests, 32 characters")
APPLIED = PipelineApplied(pipeline="bikes", spec=SPEC, applied_by="ann")


def pipelines() -> StateView[PipelineApplied]:
    return StateView(PipelineApplied, {"bikes": APPLIED})


def row(number: int, **values: object) -> dict[str, object]:
    given = {
        "id": f"r{number}",
        "event_time": f"2011-01-01T00:{number % 60:02d}:00Z",
        "temp": 0.5,
        "sky": "clear",
    }
    return given | values


def message(
    value: object,
    offset: int = 0,
    key: str | None = "bikes/pump",
    topic: str = "observation-arrived",
    **headers: str,
) -> Message:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return Message(
        topic=topic,
        partition=0,
        offset=offset,
        key=None if key is None else key.encode(),
        value=data,
        headers=tuple(
            (name.replace("__", "-"), text.encode()) for name, text in headers.items()
        ),
    )


class Desk:
    """The handlers with a database of their own."""

    def __init__(self, grace_s: float = 0) -> None:
        self.engine = open_database("sqlite://", TABLES)
        self.session = Session(self.engine)
        self.deps = IngestDeps(
            session=self.session,
            pipelines=pipelines(),
            patience=Patience(grace_s),
            privacy_keys=KEYS,
        )

    def close(self) -> None:
        self.session.close()
        self.engine.dispose()

    def handle(
        self, chunk: Chunk, messages: Sequence[Message]
    ) -> tuple[list[BatchIngested], list[DeadLetter]]:
        """Return the batches and the dead letters of one chunk, committed."""
        outputs = list(chunk.function(messages, self.deps))
        self.session.commit()
        events = [x for x in outputs if isinstance(x, BatchIngested)]
        letters = [x for x in outputs if isinstance(x, DeadLetter)]
        assert len(events) + len(letters) == len(outputs)
        return events, letters
