"""The one topic table: event, producers, consumers, partitions, retention.

Topic creation, access rights, the AsyncAPI document, dead-letter topics and the
picture of the chain are derived from it. ``people`` stands for the command line
and the registry's REST callers, ``upstream`` for systems that publish data. The
console reads every topic and writes none, so it is not named in the lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from driftloop.contracts import alerts as a
from driftloop.contracts import estimates as est
from driftloop.contracts import events as e
from driftloop.contracts import identity as i
from driftloop.contracts import scoring as s
from driftloop.contracts.base import Event

SERVICES = (
    "ingest", "validator", "scorer", "monitor", "trainer", "registry", "deployer",
    "console",
)  # fmt: skip

FOR_EVER = None
ROWS_RETENTION = timedelta(days=7)
RAW_RETENTION = timedelta(days=3)
"""Of what upstream publishes: it may hold personal data as it came, and is needed only
until ingest has read it. Longer than a long weekend without ingest."""
PROGRESS_RETENTION = timedelta(days=1)
DEAD_LETTER_RETENTION = FOR_EVER
PARTITIONS = 4
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Above the 1 MiB from which rows travel by claim check, with room for headers."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One line of the table.

    Attributes
    ----------
    event : the class that travels here; its kebab case is the topic's name.
    producers, consumers : services (or ``people``, ``upstream``).
    retention : how long messages are kept; None: for ever.
    compacted : only the last event of a key is kept (it carries whole state).
    readers : services that look into it beside those that handle it.
    """

    event: type[Event]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    retention: timedelta | None = FOR_EVER
    compacted: bool = False
    partitions: int = PARTITIONS
    readers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.event.topic()


EVERY_SERVICE = SERVICES
WITH_DOOR = ("ingest", "scorer", "monitor", "registry", "console")
"""Services with an HTTP interface for people and programs."""

TOPICS: tuple[Topic, ...] = (
    Topic(e.PipelineApplied, ("people", "registry"), EVERY_SERVICE, compacted=True),
    # data
    Topic(e.ObservationArrived, ("upstream", "ingest"), ("ingest",), RAW_RETENTION),
    Topic(e.LabelArrived, ("upstream", "ingest"), ("ingest",), RAW_RETENTION),
    Topic(e.BatchIngested, ("ingest",), ("validator",), ROWS_RETENTION),
    Topic(
        e.BatchValidated,
        ("validator",),
        ("scorer", "monitor"),
        ROWS_RETENTION,
        readers=("validator",),
    ),
    Topic(
        e.BatchRejected,
        ("validator",),
        ("monitor", "registry"),
        ROWS_RETENTION,
        readers=("validator",),
    ),
    Topic(
        e.DatasetVersioned,
        ("validator",),
        ("trainer", "registry"),
        readers=("validator", "scorer", "trainer"),
    ),
    Topic(e.MaintenanceRequested, ("people",), ("validator",)),
    Topic(e.DatasetMaintained, ("validator",), (), readers=("validator",)),
    Topic(e.SchemaProposed, ("validator",), (), readers=("validator",)),
    Topic(e.SchemaAccepted, ("people", "validator"), ("validator",), compacted=True),
    Topic(e.BatchScored, ("scorer",), ("monitor",), ROWS_RETENTION),
    Topic(e.RequestsAnswered, ("scorer",), ("monitor",), ROWS_RETENTION),
    # privacy
    Topic(e.ErasureProposed, ("ingest",), ("ingest",)),
    Topic(e.ErasureRequested, ("ingest",), ("ingest",)),
    Topic(e.SubjectErased, ("ingest",), ("validator",)),
    Topic(e.ErasureTraced, ("validator",), ("registry",), readers=("validator",)),
    Topic(e.SettlementRequested, ("registry",), (), readers=("registry",)),
    Topic(e.ErasureSettled, ("registry",), ("registry",)),
    Topic(e.ErasureCompleted, ("registry",), (), readers=("registry",)),
    Topic(e.ValueRevealed, ("ingest",), ()),
    # watching
    Topic(e.DriftDetected, ("monitor",), ("trainer", "registry"), readers=("scorer",)),
    Topic(e.VerdictOverruled, ("registry",), ("trainer", "monitor", "registry")),
    Topic(e.DriftEnded, ("monitor",), ("trainer",), readers=("scorer",)),
    Topic(e.PerformanceMeasured, ("monitor",), ("trainer", "deployer")),
    Topic(est.PerformanceEstimated, ("monitor",), ()),
    Topic(est.PerformanceSettled, ("monitor",), ()),
    Topic(
        e.AlertRaised,
        ("validator", "monitor", "trainer", "registry", "deployer"),
        ("registry",),
        readers=("validator", "trainer", "deployer"),
    ),
    Topic(
        a.AlertResolved,
        ("validator", "monitor", "registry", "deployer"),
        ("registry",),
        readers=("validator", "deployer"),
    ),
    Topic(a.AlertAcknowledged, ("registry",), ("registry",)),
    Topic(a.AlertsSilenced, ("registry",), ("registry",)),
    Topic(a.AlertDelivered, ("registry",), ("registry",)),
    Topic(e.LabelsWanted, ("monitor",), ()),
    # training
    Topic(
        e.RetrainRequested, ("people", "registry"), ("trainer",), readers=("registry",)
    ),
    Topic(e.TrainingCancelRequested, ("people",), ("trainer",)),
    Topic(
        e.TrainingStarted, ("trainer",), ("validator", "registry"), readers=("trainer",)
    ),
    Topic(e.TrainingSkipped, ("trainer",), ("registry",), readers=("trainer",)),
    Topic(
        e.TrainingProgressed, ("trainer",), (), PROGRESS_RETENTION, readers=("trainer",)
    ),
    Topic(
        e.TrainingFailed, ("trainer",), ("validator", "registry"), readers=("trainer",)
    ),
    Topic(
        e.TrainingCancelled,
        ("trainer",),
        ("validator", "registry"),
        readers=("trainer",),
    ),
    Topic(e.TrainingCancelRefused, ("trainer",), (), readers=("trainer",)),
    Topic(
        e.ModelTrained, ("trainer",), ("registry", "validator"), readers=("trainer",)
    ),
    Topic(e.ModelSubmitted, ("registry",), ("trainer",)),
    # training by sites
    Topic(e.FederationRequested, ("people",), ("trainer",)),
    Topic(e.FederatedRoundOpened, ("trainer",), (), readers=("trainer",)),
    Topic(e.FederatedUpdateSubmitted, ("people",), ("trainer",)),
    Topic(e.FederatedRoundClosed, ("trainer",), (), readers=("trainer",)),
    # registry
    Topic(e.ModelRegistered, ("registry",), (), readers=("registry", "scorer")),
    Topic(e.ApprovalRequested, ("registry",), (), readers=("registry",)),
    Topic(e.ApprovalReminded, ("registry",), ("registry",)),
    Topic(e.ApprovalExpired, ("registry",), ("registry",)),
    Topic(e.ApprovalRenewed, ("registry",), ("registry",)),
    Topic(e.ApprovalGiven, ("registry",), ("registry",)),
    Topic(e.ModelApproved, ("registry",), ("deployer",), readers=("registry",)),
    Topic(e.ModelRejected, ("registry",), (), readers=("registry", "scorer")),
    Topic(e.CommentChanged, ("registry",), ("registry",)),
    Topic(e.TrackingChanged, ("registry",), ("registry",), partitions=1),
    Topic(e.LineageReported, ("registry",), (), partitions=1, readers=("registry",)),
    # serving
    Topic(e.ServingDesired, ("deployer",), ("scorer", "deployer"), compacted=True),
    Topic(e.ScorerReported, ("scorer",), ("deployer",), ROWS_RETENTION),
    Topic(e.ShadowReplayed, ("scorer",), ("deployer",)),
    Topic(e.EdgeReported, ("ingest",), ("registry",)),
    Topic(e.RollbackRequested, ("registry",), ("deployer",), readers=("registry",)),
    Topic(e.RolloutSteered, ("registry",), ("deployer",), readers=("registry",)),
    Topic(e.PromotionSteered, ("registry",), ("deployer",), readers=("registry",)),
    Topic(e.RolloutAdvanced, ("deployer",), ("registry",), readers=("deployer",)),
    Topic(
        e.ModelDeployed,
        ("deployer",),
        ("trainer", "registry", "monitor"),
        readers=("scorer", "deployer"),
    ),
    Topic(
        e.ModelRolledBack,
        ("deployer",),
        ("trainer", "registry", "monitor"),
        readers=("scorer", "deployer"),
    ),
    # scoring of whole datasets
    Topic(s.ScoringRequested, ("people", "upstream"), ("scorer",)),
    Topic(s.ScoringCancelRequested, ("people",), ("scorer",)),
    Topic(s.ScoringStarted, ("scorer",), (), readers=("scorer",)),
    Topic(s.ScoringProgressed, ("scorer",), (), PROGRESS_RETENTION),
    Topic(s.DatasetScored, ("scorer",), (), readers=("scorer",)),
    Topic(s.ScoringFailed, ("scorer",), (), readers=("scorer",)),
    Topic(s.ScoringCancelled, ("scorer",), (), readers=("scorer",)),
    # who may, and who did
    Topic(i.TokenChanged, ("registry",), WITH_DOOR, compacted=True, partitions=1),
    Topic(i.AuditNoted, ("registry", "ingest"), ("registry",), partitions=1),
    Topic(i.AuditAnchored, ("registry",), (), partitions=1, readers=("registry",)),
)

DOOR_TOPICS = frozenset(
    event.topic() for event in (e.ObservationArrived, e.LabelArrived)
)
"""What upstream writes in forms of its own; it may hold personal data as it came."""

BESIDE_THE_CHAIN = frozenset(
    event.topic()
    for event in (
        e.TrackingChanged,
        e.LineageReported,
        e.EdgeReported,
        i.TokenChanged,
        i.AuditNoted,
        i.AuditAnchored,
    )
)
"""Topics whose events neither cause nor follow from others, and may be millions: who
shows the chain leaves them out."""

BY_NAME = {topic.name: topic for topic in TOPICS}

STATE_TOPICS = tuple(topic for topic in TOPICS if topic.compacted)
"""Followed from their beginning by every reader, without a consumer group."""


def dead_letter_topic(service: str) -> str:
    """Return where ``service`` puts messages it cannot handle.

    >>> dead_letter_topic("trainer")
    'trainer-dead-letter'
    """
    return f"{service}-dead-letter"


def consumed_by(service: str) -> tuple[Topic, ...]:
    """Topics a service handles, without the state topics that it only follows."""
    if service == "console":
        return tuple(t for t in TOPICS if not t.compacted)
    return tuple(t for t in TOPICS if service in t.consumers and not t.compacted)


def produced_by(service: str) -> tuple[Topic, ...]:
    """Topics a service may write."""
    return tuple(t for t in TOPICS if service in t.producers)


def settings_of(topic: Topic) -> dict[str, str]:
    """Kafka's topic configuration for a line of the table."""
    retention_ms = (
        -1 if topic.retention is None else int(topic.retention.total_seconds() * 1000)
    )
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": str(retention_ms),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }


def all_topics() -> Iterator[tuple[str, int, dict[str, str]]]:
    """Name, partitions and configuration of every topic, dead letters included."""
    for topic in TOPICS:
        yield topic.name, topic.partitions, settings_of(topic)
    for service in SERVICES:
        if not produced_by(service):
            continue  # the console only reads
        yield (
            dead_letter_topic(service),
            1,
            {
                "cleanup.policy": "delete",
                "retention.ms": "-1",
                "max.message.bytes": str(2 * MAX_MESSAGE_BYTES),
            },
        )
