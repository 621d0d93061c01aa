"""One line of plain words for each event, for the terminal and the web page."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from driftloop.contracts import alerts as a
from driftloop.contracts import estimates as est
from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.contracts.approval import in_words, seats_of
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PRODUCTION


def percent(ratio: float) -> str:
    return f"{ratio * 100:.0f} %"


def compared(evaluation: e.Evaluation) -> str:
    """Candidate against champion (or no-skill baseline) on the same hold-out."""
    other = (
        f"champion v{evaluation.champion_version} {evaluation.champion:.4g}"
        if evaluation.champion is not None
        else f"baseline {evaluation.baseline:.4g}"
    )
    return (
        f"{evaluation.metric} {evaluation.candidate:.4g} against {other} "
        f"on {evaluation.holdout_row_count:,} hold-out rows"
    )


ROW_LOSS = {"mae": "absolute error", "rmse": "squared error", "log_loss": "log loss"}
"""What the metrics are the mean (or its root) of, row by row."""


def compared_in_words(evaluation: e.Evaluation, confidence: float = 0.95) -> str:
    """Say what was compared, by how much they differ, and how sure that is."""
    comparison, span = evaluation.comparison, evaluation.holdout_span
    low, high = comparison.interval(confidence)
    verdict = "better" if high < 0 else "worse" if low > 0 else "could be chance"
    p_value = comparison.p_value
    chance = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return (
        f"{compared(evaluation)} from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}; "
        f"{ROW_LOSS.get(evaluation.metric, 'loss')} a row "
        f"{comparison.mean_difference:+.4g} ({confidence:.0%} interval {low:+.4g} to "
        f"{high:+.4g}, {chance} for being better): {verdict}"
    )


def _registered(event: e.ModelRegistered) -> str:
    """Name the checks; what only warns is marked as such."""
    marks = [
        f"{c.name} {'✓' if c.passed else '!' if c.severity == 'warn' else '✗'}"
        for c in event.gate
    ]
    return f"v{event.version}, gate: {', '.join(marks)}"


def _refused(event: e.ModelRejected) -> str:
    why = "; ".join(event.reasons)
    compared = f" ({event.comparison})" if event.comparison else ""
    return f"v{event.version}: {why}{compared}"


def _asked(event: e.ApprovalRequested) -> str:
    again = "again " if event.request > 1 else ""
    who = f"v{event.version} waits {again}for {in_words(seats_of(event))}"
    return who + _until(event.expires_at)


def _until(moment: datetime | None) -> str:
    return f", until {moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _rows(event: Any) -> str:
    return f"{event.row_count:,} {event.kind} {event.span.start:%Y-%m-%d %H:%M}"


def _rejected(event: e.BatchRejected) -> str:
    why = "; ".join(f"{r.field}: {r.check} ({r.row_count})" for r in event.reasons[:3])
    what = f"{event.row_count:,} of {event.batch_row_count:,} rows quarantined: {why}"
    return what + _warnings(event.warnings)


def _validated(event: e.BatchValidated) -> str:
    return _rows(event) + _warnings(event.warnings)


def _warnings(found: Sequence[e.BatchWarning]) -> str:
    """Name what failed; that there was not enough data to tell is no news here."""
    failed = [warning for warning in found if warning.verdict == "failed"]
    shown = ", ".join(f"{w.field}: {w.check} ({w.row_count})" for w in failed[:3])
    return f"; warnings: {shown}" if failed else ""


def _proposed(event: e.SchemaProposed) -> str:
    why = "; ".join(f"{c.column}: {c.detail}" for c in event.changes[:3])
    first = f"{len(event.columns)} columns from the first {event.row_count:,} rows"
    return f"schema {event.version}: {why or first}"


def _performance(event: e.PerformanceMeasured) -> str:
    parts = [f"v{m.version} {m.metric} {m.value:.4g}" for m in event.measurements]
    return f"{', '.join(parts)} on {event.row_count:,} labelled rows"


def _estimated(event: est.PerformanceEstimated) -> str:
    words = event.verdict.replace("_", " ")
    return f"v{event.version} on {event.row_count:,} rows: {words}; {event.reason}"


def _settled(event: est.PerformanceSettled) -> str:
    first = event.metrics[0]
    text = f"v{event.version} {first.metric} {first.value:.4g}"
    if first.estimate is not None:
        text += f", {first.estimate.value:.4g} was estimated"
    return f"{text}, on {event.labelled_count:,} of {event.kept_count:,} rows"


def _desired(event: e.ServingDesired) -> str:
    champion = f"v{event.champion.version}" if event.champion else "none"
    if event.candidate is None:
        return f"champion {champion}"
    role = percent(event.candidate_share) if event.candidate_share else "shadow"
    if event.ahead:
        role = f"on {', '.join(event.ahead)}"
    return f"champion {champion}, candidate v{event.candidate.version} ({role})"


def _replayed(event: e.ShadowReplayed) -> str:
    parts = [f"v{m.version} {m.metric} {m.value:.4g}" for m in event.measurements]
    count, wanted = event.labelled_count, event.wanted_count
    left_out = f"{event.learned_count:,} rows left out as learned"
    enough = "" if event.is_enough else f", too few of {wanted:,}: live shadow goes on"
    return (
        f"{', '.join([*parts, f'{count:,} recorded rows with a label'])}{enough}; "
        f"{left_out}, {event.error_count:,} of {event.row_count:,} failed"
    )


def _edge(event: e.EdgeReported) -> str:
    """Name what is out of the ordinary; a runner that only tells it is there: so."""
    parts = [f"{event.edge} answered {event.row_count:,} rows by v{event.version}"]
    if event.error_count:
        parts.append(f"{event.error_count:,} failed")
    if event.unfamiliar_row_count and event.row_count:
        share = percent(event.unfamiliar_row_count / event.row_count)
        parts.append(f"{share} with unfamiliar values")
    if event.lost_report_count:
        parts.append(f"{event.lost_report_count:,} earlier reports lost")
    return ", ".join(parts)


def _progress(event: e.TrainingProgressed) -> str:
    parts = [f"{percent(event.done_ratio)} {event.step}"]
    if event.candidate:
        parts.append(event.candidate.replace("_", " "))
    if event.iteration is not None:
        parts.append(f"{event.iteration:,} of {event.iteration_count:,}")
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4g}")
    if event.resumed_from is not None:
        parts.append(f"resumed from {event.resumed_from:,}")
    if event.eta_seconds is not None:
        parts.append(f"{duration(event.eta_seconds)} left")
    return " · ".join([*parts, event.detail] if event.detail else parts)


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(4.2), duration(95), duration(7260)
    ('4 s', '1 min 35 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _scoring(event: s.ScoringRequested) -> str:
    version = "the champion" if event.version is None else f"v{event.version}"
    why = f": {event.reason}" if event.reason else ""
    return f"dataset {event.dataset} by {version}, for {event.requested_by}{why}"


def _scoring_progress(event: s.ScoringProgressed) -> str:
    parts = [
        f"{percent(event.done_ratio)}",
        f"{event.done_count:,} of {event.row_count:,} rows",
    ]
    if event.resumed_from:
        parts.append(f"resumed from {event.resumed_from:,}")
    if event.eta_seconds is not None:
        parts.append(f"{duration(event.eta_seconds)} left")
    return " · ".join(parts)


def _scored(event: s.DatasetScored) -> str:
    failed = f", {event.error_count:,} without an answer" if event.error_count else ""
    return (
        f"{event.row_count:,} rows of dataset {s.name_of(event.dataset)} by "
        f"v{event.version}{failed}, in {event.answers.uri} version "
        f"{event.answers.version}"
    )


def _drift(event: e.DriftDetected) -> str:
    advice = "retrain" if event.retrain_advised else "no retrain"
    sure = "" if event.confidence is None else f", {event.confidence:.0%}"
    carried = [*event.features, *(f"from {name}" for name in event.sources)]
    by = f" by {', '.join(carried)}" if carried else ""
    cause = event.cause.replace("_", " ")
    return f"{cause}{by} ({advice}{sure}): {event.explanation}"


def _overruled(event: e.VerdictOverruled) -> str:
    was, now = (c.replace("_", " ") for c in (event.verdict_cause, event.cause))
    if event.mended:
        return f"{event.overruled_by} says that the {now} is mended: {event.reason}"
    return f"{event.overruled_by} says {now}, not {was}: {event.reason}"


def stretch_in_words(stretch: e.FaultyStretch) -> str:
    """Return whose rows of which time a training leaves out, and by which verdict."""
    whose = f" of {', '.join(stretch.sources)}" if stretch.sources else ""
    until = f"to {stretch.end:%Y-%m-%d %H:%M}" if stretch.end else "on"
    return (
        f"{stretch.faulty}{whose} from {stretch.start:%Y-%m-%d %H:%M} {until} "
        f"({stretch.cause.replace('_', ' ')}, verdict {stretch.verdict_id})"
    )


def left_out_in_words(found: e.LeftOut) -> str:
    """Return the same, with how many rows that were."""
    return f"{found.row_count:,} {stretch_in_words(found)}"


def _drift_ended(event: e.DriftEnded) -> str:
    cause, columns = event.cause.replace("_", " "), ", ".join(event.features)
    return (
        f"{cause} of {columns} is over, from {event.since:%Y-%m-%d %H:%M} to about "
        f"{event.until:%Y-%m-%d %H:%M}"
    )


def _maintained(event: e.DatasetMaintained) -> str:
    tables = [event.observations, *([event.labels] if event.labels else [])]
    rows = sum(table.dropped_count for table in tables)
    files = sum(table.vacuumed_count for table in tables)
    freed = sum(table.freed_bytes for table in tables)
    since = f" before {event.cutoff:%Y-%m-%d}" if event.cutoff else ""
    return f"{rows:,} rows{since} dropped, {files:,} files ({freed:,} bytes) deleted"


def _labels_wanted(event: e.LabelsWanted) -> str:
    drifted = f", {', '.join(event.drifted)} drifted" if event.drifted else ""
    return (
        f"{len(event.wanted):,} of {event.candidate_count:,} rows without a label "
        f"({event.strategy}{drifted})"
    )


def _closed(event: e.FederatedRoundClosed) -> str:
    clipped = sum(share.is_clipped for share in event.took_part)
    return (
        f"round {event.round} {event.outcome}: {len(event.took_part)} sites, "
        f"{clipped} clipped, {len(event.refused)} refused; {event.detail}"
    )


def _versions(versions: Sequence[int]) -> str:
    return ", ".join(f"v{version}" for version in versions)


def _erased(event: e.ErasureCompleted) -> str:
    settled = ", ".join(
        f"v{m.version} {m.settlement.replace('_', ' ')}" for m in event.models
    )
    return f"{event.subject}: {settled or 'no model has seen it'}"


DESCRIPTIONS: dict[type[Event], Callable[[Any], str]] = {
    e.PipelineApplied: lambda x: f"by {x.applied_by}",
    e.BatchIngested: _rows,
    e.BatchValidated: _validated,
    e.BatchScored: lambda x: f"{_rows(x)} by v{x.champion_version}",
    e.RequestsAnswered: lambda x: (
        f"{x.row_count:,} of {x.asked_count:,} rows asked of v{x.version} ({x.role})"
    ),
    e.BatchRejected: _rejected,
    e.DatasetVersioned: lambda x: (
        f"version {x.dataset.observations.version}: {x.observation_count:,} rows, "
        f"{x.label_count:,} labelled"
    ),
    e.MaintenanceRequested: lambda x: f"by {x.requested_by}",
    e.DatasetMaintained: _maintained,
    e.SchemaProposed: _proposed,
    e.SchemaAccepted: lambda x: (
        f"schema {x.version} with {len(x.columns)} columns by {x.accepted_by}"
    ),
    e.DriftDetected: _drift,
    e.VerdictOverruled: _overruled,
    e.DriftEnded: _drift_ended,
    e.PerformanceMeasured: _performance,
    est.PerformanceEstimated: _estimated,
    est.PerformanceSettled: _settled,
    e.AlertRaised: lambda x: f"{x.severity}: {x.title}",
    a.AlertResolved: lambda x: f"{x.condition}: {x.why}",
    a.AlertAcknowledged: lambda x: (
        f"{x.condition} by {x.by}" + (f": {x.note}" if x.note else "")
    ),
    a.AlertsSilenced: lambda x: (
        f"{x.condition} until {x.until:%Y-%m-%d %H:%M} UTC by {x.by}: {x.reason}"
        if x.change == "begun"
        else f"{x.condition}: no longer, by {x.by}: {x.reason}"
    ),
    a.AlertDelivered: lambda x: (
        f"{x.condition} {x.outcome.replace('_', ' ')}"
        + (f" by {x.channel}" if x.channel else "")
        + (f": {x.detail}" if x.detail else "")
    ),
    e.LabelsWanted: _labels_wanted,
    e.RetrainRequested: lambda x: f"by {x.requested_by}: {x.reason}",
    e.TrainingStarted: lambda x: (
        f"because of {x.trigger.reason.replace('_', ' ')}, rows from "
        f"{x.train_span.start:%Y-%m-%d} to {x.train_span.end:%Y-%m-%d}"
        + (f"; {x.explanation}" if x.explanation else "")
        + "".join(f"; left out: {stretch_in_words(each)}" for each in x.left_out)
    ),
    e.TrainingSkipped: lambda x: f"{x.reason.replace('_', ' ')}: {x.detail}",
    e.TrainingCancelRequested: lambda x: f"by {x.requested_by}: {x.reason}",
    e.TrainingProgressed: _progress,
    e.TrainingFailed: lambda x: x.error,
    e.TrainingCancelled: lambda x: f"by {x.cancelled_by}: {x.reason}",
    e.TrainingCancelRefused: lambda x: x.detail,
    e.ModelTrained: lambda x: (
        f"{x.algorithm}: {compared(x.evaluation)}"
        + "".join(f"; left out: {left_out_in_words(each)}" for each in x.left_out)
    ),
    e.ModelSubmitted: lambda x: (
        f"version {x.version} by {x.submitted_by}, from {x.source}"
    ),
    e.FederationRequested: lambda x: (
        f"{x.rules.rounds} rounds of {x.rules.site_count} sites by {x.requested_by}: "
        f"{x.reason}"
    ),
    e.FederatedRoundOpened: lambda x: (
        f"round {x.round} of {x.rules.rounds}, until {x.deadline:%Y-%m-%d %H:%M}"
    ),
    e.FederatedUpdateSubmitted: lambda x: (
        f"round {x.round}: {x.site}, {x.row_count:,} rows"
    ),
    e.FederatedRoundClosed: _closed,
    e.ModelRegistered: _registered,
    e.ApprovalRequested: _asked,
    e.ApprovalReminded: lambda x: (
        f"v{x.version} still waits for {in_words(seats_of(x))}, "
        f"{len(x.said_yes)} said yes" + _until(x.expires_at)
    ),
    e.ApprovalExpired: lambda x: (
        f"v{x.version}: {len(x.said_yes)} said yes in time, "
        f"{in_words(seats_of(x))} had to"
    ),
    e.ApprovalRenewed: lambda x: f"v{x.version} by {x.requested_by}: {x.reason}",
    e.ApprovalGiven: lambda x: f"v{x.version}: {x.decision} by {x.by}: {x.reason}",
    e.ModelApproved: lambda x: f"v{x.version} by {', '.join(x.approved_by)}",
    e.ModelRejected: _refused,
    e.ServingDesired: _desired,
    e.ScorerReported: lambda x: (
        ", ".join(f"v{v.version} {v.state}" for v in x.versions)
        or f"{x.replica} has no version in memory"
    ),
    e.ShadowReplayed: _replayed,
    e.EdgeReported: _edge,
    e.ErasureProposed: lambda x: f"{x.subject} by {x.proposed_by}: {x.reason}",
    e.ErasureRequested: lambda x: (
        f"{x.subject} by {' and '.join(filter(None, (x.requested_by, x.confirmed_by)))}"
        f": {x.reason}"
    ),
    e.SubjectErased: lambda x: (
        f"{x.subject}: {x.key_count} key, {x.token_count} tokens are gone"
    ),
    e.ErasureTraced: lambda x: (
        f"{x.subject}: {len(x.versions)} dataset versions, {len(x.jobs)} trainings"
    ),
    e.SettlementRequested: lambda x: (
        f"{x.subject}: retrain or waive {_versions(x.versions)}"
    ),
    e.ErasureSettled: lambda x: (
        f"{x.decision} {_versions(x.versions)} by {x.by}: {x.reason}"
    ),
    e.ErasureCompleted: _erased,
    e.CommentChanged: lambda x: f"{x.change} by {x.by} on {x.kind} {x.which}: {x.text}",
    e.LineageReported: lambda x: f"{x.job.get('name')} {x.eventType}",
    e.ValueRevealed: lambda x: f"{x.field} to {x.revealed_to}: {x.reason}",
    e.RollbackRequested: lambda x: f"by {x.requested_by}: {x.reason}",
    e.RolloutSteered: lambda x: (
        f"{x.action} v{x.version} by {x.requested_by}: {x.reason}"
    ),
    e.PromotionSteered: lambda x: f"{x.action} v{x.version} by {x.by}: {x.reason}",
    e.RolloutAdvanced: lambda x: f"v{x.version} {x.step} {x.verdict}: {x.detail}",
    e.ModelDeployed: lambda x: f"v{x.version} answers all requests",
    s.ScoringRequested: _scoring,
    s.ScoringStarted: lambda x: (
        f"{x.plan.row_count:,} rows of dataset {s.name_of(x.plan.dataset)} by "
        f"v{x.plan.version}"
    ),
    s.ScoringProgressed: _scoring_progress,
    s.DatasetScored: _scored,
    s.ScoringFailed: lambda x: f"{x.error}; {x.remedy}",
    s.ScoringCancelRequested: lambda x: f"by {x.requested_by}: {x.reason}",
    s.ScoringCancelled: lambda x: f"by {x.cancelled_by}: {x.reason}",
    e.ModelRolledBack: lambda x: f"v{x.version}: {x.reason}",
}


def describe(event: Event) -> str:
    """Return what happened, in one line without the event's name.

    What is about an environment before production says so first.
    """
    describe_it = DESCRIPTIONS.get(type(event))
    text = describe_it(event) if describe_it else ""
    environment = getattr(event, "environment", PRODUCTION)
    return text if environment == PRODUCTION else f"{environment}: {text}"
