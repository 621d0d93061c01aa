"""What every event has in common: its name, its key, where it came from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID, uuid5

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

EVENT_NAMESPACE = UUID("6f2f3f55-2a6c-5f0e-9b3e-5d0c1a3f7e10")
"""Root of all derived event ids; changing it would rename every event."""

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
Ratio = Annotated[float, Field(ge=0, le=1)]
PipelineName = Annotated[str, Field(pattern=NAME_PATTERN, examples=["bike-demand"])]


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2011-01-01T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time has to be of the years 1 to 9999 in UTC") from error


UtcTime = Annotated[datetime, AfterValidator(_utc)]


def topic_name(class_name: str) -> str:
    """Kebab case of an event's class name.

    >>> topic_name("DriftDetected")
    'drift-detected'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


def derived_id(cause_id: str, event_type: str, position: int) -> str:
    """Return the id of an event made from a cause: a repeat gives the same id.

    >>> derived_id("a", "model-trained", 0) == derived_id("a", "model-trained", 0)
    True
    """
    return str(uuid5(EVENT_NAMESPACE, f"{cause_id}/{event_type}/{position}"))


class Value(BaseModel):
    """A part of an event. Unknown fields from a newer producer are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")


class Section(BaseModel):
    """A part of the pipeline file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Chain:
    """The causal chain an event belongs to.

    Attributes
    ----------
    id : the ``chainid`` of the chain's first event.
    traceparent : W3C trace context of the span that made the event.
    """

    id: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a received event came from (CloudEvents attributes and Kafka's)."""

    id: str
    time: datetime
    source: str
    chain: Chain
    causation_id: str | None = None
    topic: str = ""
    partition: int = -1
    offset: int = -1


class Event(Value):
    """Something that happened; the class name in kebab case is its topic.

    A handler returns events without :attr:`meta`; the runtime derives id, time,
    chain and trace when it stores them.
    """

    major: ClassVar[int] = 1
    """Version of the schema; additive changes keep it."""
    key_fields: ClassVar[tuple[str, ...]] = ("pipeline",)
    has_rows: ClassVar[bool] = False

    pipeline: PipelineName

    _meta: Meta | None = PrivateAttr(default=None)
    _rows: pa.RecordBatch | None = PrivateAttr(default=None)
    _follows: Meta | None = PrivateAttr(default=None)

    @classmethod
    def topic(cls) -> str:
        return topic_name(cls.__name__)

    @classmethod
    def type_name(cls) -> str:
        """CloudEvents ``type``, for example ``io.driftloop.model-trained.v1``."""
        return f"io.driftloop.{cls.topic()}.v{cls.major}"

    @property
    def key(self) -> str:
        """Kafka key: what must stay in order shares it."""
        return "/".join(str(getattr(self, name)) for name in self.key_fields)

    @property
    def sequence(self) -> int | None:
        """Number in a count of its topic without gaps, for events that have one.

        CloudEvents' extension of that name: readers tell repeats by it, undecoded.
        """
        return None

    @property
    def meta(self) -> Meta:
        """Origin of a received event.

        Raises
        ------
        LookupError
            When the event was made here and has not been published yet.
        """
        if self._meta is None:
            raise LookupError(f"{type(self).__name__} has not been published yet")
        return self._meta

    @property
    def rows(self) -> pa.RecordBatch:
        """The event's rows, columns as in the pipeline plus id, event_time, source.

        Raises
        ------
        LookupError
            When the event carries no rows.
        """
        if self._rows is None:
            raise LookupError(f"{type(self).__name__} carries no rows")
        return self._rows

    @property
    def follows(self) -> Meta | None:
        return self._follows

    def with_rows(self, rows: pa.RecordBatch) -> Self:
        """Return a copy that carries ``rows`` (n_rows, n_columns)."""
        copy = self.model_copy()
        copy._rows = rows
        return copy

    def with_meta(self, meta: Meta) -> Self:
        copy = self.model_copy()
        copy._meta = meta
        return copy

    def following(self, origin: Meta) -> Self:
        """Return a copy that continues the chain of ``origin``.

        For an event whose trigger belongs to another chain: a rollout step that
        a scorer's report sets off belongs to the chain of the approved model.
        """
        copy = self.model_copy()
        copy._follows = origin
        return copy


def chain_of(origin: Meta) -> dict[str, Any]:
    """Return ``origin`` as plain values, to be stored in a database row."""
    return {
        "id": origin.id,
        "time": origin.time.isoformat(),
        "source": origin.source,
        "chain_id": origin.chain.id,
        "traceparent": origin.chain.traceparent,
    }


def origin_from(stored: dict[str, Any]) -> Meta:
    """Return the :class:`Meta` that :func:`chain_of` wrote down."""
    return Meta(
        id=stored["id"],
        time=datetime.fromisoformat(stored["time"]),
        source=stored["source"],
        chain=Chain(stored["chain_id"], stored["traceparent"]),
    )


def numbered(events: Iterable[Event], cause_id: str) -> list[tuple[str, Event]]:
    """Pair each event with its derived id; positions count per event type."""
    counts: dict[str, int] = {}
    result = []
    for event in events:
        name = event.topic()
        position = counts.get(name, 0)
        counts[name] = position + 1
        result.append((derived_id(cause_id, name, position), event))
    return result


__all__ = [
    "EVENT_NAMESPACE",
    "NAME_PATTERN",
    "Chain",
    "Event",
    "Meta",
    "PipelineName",
    "UtcTime",
    "Value",
    "chain_of",
    "derived_id",
    "numbered",
    "origin_from",
    "topic_name",
]
