"""What is known of one pipeline, before it is put into words for the page."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.console.datasets import Versions
from driftloop.console.measured import Tally
from driftloop.console.quality import Quality
from driftloop.console.standing import Windows
from driftloop.contracts import alerts as a
from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.contracts.base import Event

DECISIONS: dict[type[Event], str] = {
    e.PipelineApplied: "plain",
    e.MaintenanceRequested: "person",
    e.DatasetMaintained: "quiet",
    e.SchemaProposed: "person",
    e.SchemaAccepted: "plain",
    e.DriftDetected: "warn",
    e.VerdictOverruled: "person",
    e.DriftEnded: "quiet",
    e.AlertRaised: "warn",
    a.AlertResolved: "good",
    a.AlertAcknowledged: "person",
    a.AlertsSilenced: "person",
    a.AlertDelivered: "quiet",
    e.LabelsWanted: "person",
    e.RetrainRequested: "person",
    e.TrainingCancelRequested: "person",
    e.ModelSubmitted: "person",
    e.FederationRequested: "person",
    e.FederatedRoundClosed: "quiet",
    e.TrainingStarted: "plain",
    e.TrainingSkipped: "quiet",
    e.TrainingFailed: "bad",
    e.TrainingCancelled: "warn",
    e.TrainingCancelRefused: "quiet",
    e.ModelTrained: "plain",
    e.ModelRegistered: "quiet",
    e.ApprovalRequested: "person",
    e.ApprovalReminded: "warn",
    e.ApprovalExpired: "warn",
    e.ApprovalRenewed: "person",
    e.ApprovalGiven: "person",
    e.ModelApproved: "plain",
    e.ModelRejected: "bad",
    e.RollbackRequested: "person",
    e.RolloutSteered: "person",
    e.PromotionSteered: "person",
    e.ShadowReplayed: "plain",
    e.RolloutAdvanced: "quiet",
    e.ModelDeployed: "good",
    e.ModelRolledBack: "bad",
    s.ScoringRequested: "person",
    s.ScoringStarted: "plain",
    s.ScoringCancelRequested: "person",
    s.DatasetScored: "good",
    s.ScoringFailed: "bad",
    s.ScoringCancelled: "warn",
    e.ErasureProposed: "person",
    e.CommentChanged: "person",
    e.ErasureRequested: "person",
    e.SubjectErased: "quiet",
    e.ErasureTraced: "quiet",
    e.SettlementRequested: "person",
    e.ErasureSettled: "person",
    e.ErasureCompleted: "good",
    e.ValueRevealed: "person",
}
"""Events of the timeline, with the tone in which the page shows them. Their order is
that of a chain: what one handler tells has one time, and then this order holds."""
RANKS = {event: rank for rank, event in enumerate(DECISIONS)}


@dataclass
class Pipeline:
    """What is known of one pipeline."""

    applied: e.PipelineApplied | None = None
    desired: dict[str, e.ServingDesired] = field(default_factory=dict)
    datasets: Versions = field(default_factory=Versions)
    quality: Quality = field(default_factory=Quality)
    windows: Windows = field(default_factory=Windows)
    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, tuple[int, Event]] = field(default_factory=dict)
    points: dict[str, tuple[int, e.PerformanceMeasured]] = field(default_factory=dict)
    clock: list[tuple[datetime, datetime]] = field(default_factory=list)
    progress: dict[str, e.TrainingProgressed] = field(default_factory=dict)
    spans: list[tuple[datetime, datetime, float]] = field(default_factory=list)
    recent: dict[str, None] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    revision: int = 0
    """Of the last change of anything but counts, points and what is of the data."""

    def event_time_at(self, moment: datetime) -> datetime | None:
        """Return the event time that the data had reached at a moment."""
        position = bisect_right(self.clock, moment, key=lambda pair: pair[0])
        return self.clock[position - 1][1] if position else None

    def events(self) -> list[Event]:
        """Return the decisions, oldest first."""
        return sorted((x for _, x in self.decisions.values()), key=order)


def order(event: Event) -> tuple[datetime, int, str]:
    return (event.meta.time, RANKS.get(type(event), 0), event.meta.id)
