"""When to train, and on which stretch of event time: pure functions of values.

Each trigger has its own function; all of them answer with :class:`Start`,
:class:`SkipWith` or nothing. The clock of every rule is event time.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    CURED_BY_TRAINING,
    DatasetVersioned,
    DriftDetected,
    FaultyStretch,
    PerformanceMeasured,
    RetrainRequested,
    Span,
    Trigger,
    VerdictOverruled,
)
from driftloop.contracts.pipeline import PipelineSpec, TrainSection
from driftloop.trainer.budget import budget_end, cost_text
from driftloop.trainer.facts import (
    Data,
    Hold,
    LastJob,
    Pending,
    SkipReason,
    SkipWith,
    Spent,
    Start,
    State,
)
from driftloop.trainer.faults import good_parts, within
from driftloop.trainer.worth import weigh

__all__ = [
    "Data", "Hold", "LastJob", "Pending", "SkipReason", "SkipWith", "Spent", "Start",
    "State",
]  # fmt: skip
OPEN_STATES = ("waiting", "running")
Refusal = tuple[Literal["already_ended", "unknown_job"], str]
UNKNOWN_JOB: Final[Refusal] = (
    "unknown_job",
    "the pipeline has no such job; driftloop jobs list shows them",
)
RESOLUTION = timedelta(microseconds=1)
NEVER_CURED: frozenset[str] = frozenset({"seasonality"})
"""Causes of verdicts that no training cures, whatever the verdict advises."""


def job_id_of(trigger: Trigger) -> str:
    """Return the id of the job that a trigger leads to; a repeat has the same."""
    return derived_id(trigger.event_id, "job", 0)


def with_data(data: Data | None, event: DatasetVersioned) -> Data:
    """Return what is known after a new dataset version.

    The labelled stretch grows by the event's span when the event brought targets:
    a batch of labels, or of rows that carry their target.
    """
    before = data.label_count if data else 0
    labelled = data.labelled if data else None
    if event.kind == "labels" or event.label_count > before:
        labelled = _hull(labelled, event.span)
    return Data(event.dataset, event.observation_count, event.label_count, labelled)


def _hull(first: Span | None, second: Span) -> Span:
    if first is None:
        return second
    return Span(start=min(first.start, second.start), end=max(first.end, second.end))


def plan(
    labelled: Span, train: TrainSection, left_out: tuple[FaultyStretch, ...] = ()
) -> tuple[Span, Span]:
    """Return the training span and the hold-out span right after it.

    The window is the newest ``window_days`` (or everything), the hold-out its
    newest ``holdout_ratio`` by time, ``holdout_days`` at most. Time whose rows are
    all left out counts for neither length, and the window ends before such a stretch.
    """
    parts = good_parts(labelled, left_out) or [labelled]
    start, end = labelled.start, parts[-1].end
    if train.window_days is not None:
        start = max(start, end - timedelta(days=train.window_days))
    parts = [
        Span(start=max(each.start, start), end=each.end)
        for each in parts
        if each.end > start
    ] or parts[-1:]
    lengths = [each.end - each.start for each in parts]
    length = sum(lengths, timedelta()) * train.holdout_ratio
    if train.holdout_days is not None:
        length = min(length, timedelta(days=train.holdout_days))
    cut = parts[0].start
    for each in reversed(parts):
        if length <= each.end - each.start:
            cut = each.end - length
            break
        length -= each.end - each.start
    return Span(start=start, end=cut), Span(start=min(cut + RESOLUTION, end), end=end)


def after_data(
    event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith | None:
    """Decide after a new dataset version.

    A trigger that waits, the first model, every n rows, or the schedule. One that
    is due while another one waits joins that one without a word.
    """
    started = after_job(state, spec)
    if started:
        return started
    data, last = state.data, state.last_job
    if not _has_rows(data, spec) or spec.automation == "advise":
        return None
    assert data is not None  # noqa: S101 - it has rows
    assert data.labelled is not None  # noqa: S101 - it has rows
    reason = _due(data, data.labelled, state, spec)
    if reason is None or (reason != "first_model" and (state.pending or state.asked)):
        return None
    trigger = Trigger(
        event_id=event_id, event_type=DatasetVersioned.topic(), reason=reason
    )
    if reason == "first_model":
        # Looked at anew with each version, so that it needs no place to wait.
        is_busy = last is not None and last.is_running
        is_free = not is_busy and _budget_end(state, spec) is None
        return _start(trigger, state, spec) if is_free else None
    pending = Pending(trigger, data.labelled.end)
    obstacle, hold = _obstacle(pending, state, spec), _hold(state, spec)
    if obstacle is None and hold:
        covers = last.id if last and not last.has_failed else None
        covers = None if hold.reason == "budget" else covers
        obstacle = SkipWith(trigger, hold.reason, hold.detail, covers, pending)
    obstacle = obstacle or _not_worth(pending, state, spec)
    return obstacle or _start(trigger, state, spec)


def _due(
    data: Data, labelled: Span, state: State, spec: PipelineSpec
) -> Literal["first_model", "new_data", "schedule"] | None:
    """Return why the data themselves ask for a training."""
    last, how = state.last_job, spec.retrain
    new_rows = data.label_count - (last.label_count if last else 0)
    if state.champion_version is None:
        # A first model may be on its way through gate and rollout, or have been worse
        # than no skill: another try needs twice the rows of the one before.
        wanted = max(how.first_rows, last.label_count if last else 0)
        return "first_model" if new_rows >= wanted else None
    if how.every_rows is not None and new_rows >= how.every_rows:
        return "new_data"
    due = how.schedule.due_after(last.data_end if last else labelled.start)
    return "schedule" if due is not None and labelled.end >= due else None


def after_job(state: State, spec: PipelineSpec) -> Start | None:
    """Decide whether a trigger that waits can be trained for now."""
    if not _has_rows(state.data, spec) or (
        state.last_job and state.last_job.is_running
    ):
        return None
    for waiting in (state.asked, state.pending):
        if waiting and (waiting.since is None or _may_start(waiting, state, spec)):
            return _start(waiting.trigger, state, spec, answers_pending=True)
    return None


def still_waits(pending: Pending | None, started: Start) -> bool:
    """Whether a waiting trigger is about something that a new job cannot know yet."""
    if pending is None or pending.since is None:
        return False
    if started.trigger.event_id == pending.trigger.event_id:
        return False
    return pending.since > started.data_end


def after_drift(
    event: DriftDetected, event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith:
    """Decide what a drift verdict leads to."""
    trigger = Trigger(
        event_id=event_id,
        event_type=event.topic(),
        reason=event.cause,
        since=event.since,
    )
    if not event.retrain_advised or event.cause in NEVER_CURED:
        known = event.cause == "not_enough_data"
        reason: SkipReason = (
            "not_enough_data" if known else "cause_not_cured_by_training"
        )
        return SkipWith(
            trigger,
            reason,
            f"the monitor advises against training: {event.explanation}",
        )
    if not spec.retrain.on_drift:
        return _advice(trigger, "retrain.on_drift: false")
    pending = Pending(trigger, event.detected_at)
    return _after_alarm(pending, event.model_version, state, spec)


def after_overruling(
    event: VerdictOverruled, event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith | None:
    """Decide what it leads to that a person says another cause.

    As the verdict would have done, if training cures this cause and not the other; the
    person is named, and may not approve the result. None: it changes nothing.
    """
    cures = event.cause in CURED_BY_TRAINING
    if not cures or event.verdict_cause in CURED_BY_TRAINING:
        return None
    trigger = Trigger(
        event_id=event_id,
        event_type=event.topic(),
        reason=event.cause,
        requested_by=event.overruled_by,
        since=event.since,
    )
    if not spec.retrain.on_drift:
        return _advice(trigger, "retrain.on_drift: false")
    pending = Pending(trigger, event.detected_at)
    return _after_alarm(pending, event.model_version, state, spec)


def is_called_off(event: VerdictOverruled) -> bool:
    """Whether what a verdict led to has lost its reason: training is no cure."""
    was_cured = event.verdict_cause in CURED_BY_TRAINING
    return was_cured and event.cause not in CURED_BY_TRAINING


def after_floor(
    event: PerformanceMeasured,
    event_id: str,
    version: int,
    state: State,
    spec: PipelineSpec,
) -> Start | SkipWith:
    """Decide what it leads to that a version is below the accuracy floor."""
    trigger = Trigger(
        event_id=event_id, event_type=event.topic(), reason="accuracy_floor"
    )
    return _after_alarm(Pending(trigger, event.span.end), version, state, spec)


def _after_alarm(
    pending: Pending, version: int | None, state: State, spec: PipelineSpec
) -> Start | SkipWith:
    """Decide what a sign leads to that a version is not right any more."""
    trigger = pending.trigger
    if spec.automation == "advise":
        return _advice(trigger, "automation: advise")
    obstacle = _obstacle(pending, state, spec)
    if obstacle:
        return obstacle
    hold, last = _hold(state, spec), state.last_job
    if hold is None or last is None:
        return _not_worth(pending, state, spec) or _start(trigger, state, spec)
    # The model that the last job made has to go into service before its worth is
    # known; if that one is not right already, the sign of it waits. So does one
    # that comes after the cooldown, when only the budget is used up.
    is_about_newer = last.has_failed or version not in (None, last.champion_version)
    in_cooldown = _cooldown_end(state, spec) is not None
    names_job = not last.has_failed and (
        in_cooldown if hold.reason == "cooldown" else in_cooldown and not is_about_newer
    )
    return SkipWith(
        trigger,
        hold.reason,
        hold.detail,
        last.id if names_job else None,
        pending if is_about_newer or not in_cooldown else None,
    )


def _may_start(waiting: Pending, state: State, spec: PipelineSpec) -> bool:
    """Whether nothing holds a trigger back that waits."""
    return _hold(state, spec) is None and _not_worth(waiting, state, spec) is None


def _not_worth(pending: Pending, state: State, spec: PipelineSpec) -> SkipWith | None:
    """Return why a training is not worth it yet; the trigger waits until one is."""
    worth = weigh(state.losses, spec.retrain.cost)
    if worth is None or worth.is_worth_it:
        return None
    return SkipWith(pending.trigger, "not_worth_it", worth.text, keep=pending)


def _advice(trigger: Trigger, setting: str) -> SkipWith:
    return SkipWith(
        trigger,
        "automation_advise",
        f"the pipeline says {setting}; driftloop retrain starts one by hand",
    )


def after_request(
    event: RetrainRequested, event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith:
    """Decide what a person's wish leads to: no cooldown or budget holds it back."""
    trigger = Trigger(
        event_id=event_id,
        event_type=event.topic(),
        reason=event.reason,
        requested_by=event.requested_by,
    )
    obstacle = _obstacle(Pending(trigger, None), state, spec)
    return obstacle or _start(trigger, state, spec)


def cancel_refusal(job_state: str | None) -> Refusal | None:
    """Return why a job cannot be cancelled; None: it can."""
    if job_state is None:
        return UNKNOWN_JOB
    if job_state in OPEN_STATES:
        return None
    became = {
        "done": "it gave a model; driftloop models shows what became of that",
        "failed": "it failed; its training-failed says why",
        "cancelled": "it was cancelled before",
    }
    return "already_ended", f"the job has ended: {became[job_state]}"


def cancelled_text(by: str, reason: str) -> str:
    """Return how a job ended that a person did not want any more."""
    return f"cancelled by {by}: {reason}"


def _obstacle(pending: Pending, state: State, spec: PipelineSpec) -> SkipWith | None:
    """Return why nothing can start now: too few rows, or a job that runs."""
    trigger, data, last = pending.trigger, state.data, state.last_job
    if data is None or data.label_count < spec.train.min_rows:
        have = data.label_count if data else 0
        return SkipWith(
            trigger,
            "not_enough_data",
            f"{have} labelled rows; train.min_rows is {spec.train.min_rows}. "
            "Training starts when they are there",
            keep=pending,
        )
    if last and last.is_running:
        is_newer = pending.since is None or pending.since > last.data_end
        return SkipWith(
            trigger,
            "joined_running_job",
            f"job {last.id} runs, with data up to {_text(last.data_end)}"
            + ("; another training follows" if is_newer else ""),
            last.id,
            pending if is_newer else None,
        )
    return None


def _has_rows(data: Data | None, spec: PipelineSpec) -> bool:
    return (
        data is not None
        and data.labelled is not None
        and data.label_count >= spec.train.min_rows
    )


def _hold(state: State, spec: PipelineSpec) -> Hold | None:
    """Return what holds the system's own triggers back, the longest of it."""
    if state.data is None or state.data.labelled is None:
        return None
    now, holds = state.data.labelled.end, []
    until, last = _cooldown_end(state, spec), state.last_job
    if until and last:
        detail = f"job {last.id} learned from data up to {_text(last.learned_end)}"
        newest = _newest_good(state)
        if newest is not None and newest < now:
            detail += f", rows from {_text(newest)} on are of a fault and left out"
        holds.append(Hold("cooldown", until, detail))
    until = _budget_end(state, spec)
    if until:
        detail = cost_text(state.spent, spec.retrain.budget, now)
        holds.append(Hold("budget", until, detail))
    if not holds:
        return None
    longest = max(holds, key=lambda hold: hold.until)
    text = f"the next training may use data from {_text(longest.until)} on"
    return Hold(longest.reason, longest.until, f"{longest.detail}; {text}")


def _budget_end(state: State, spec: PipelineSpec) -> datetime | None:
    """Return when the budget allows a training if it does not now."""
    if state.data is None or state.data.labelled is None:
        return None
    return budget_end(state.spent, spec.retrain.budget, state.data.labelled.end)


def _cooldown_end(state: State, spec: PipelineSpec) -> datetime | None:
    """Return when the cooldown ends if it still lasts at the newest labelled row.

    However short it is, the same rows are not learned from twice; those that are left
    out are no new ones.
    """
    data, last, newest = state.data, state.last_job, _newest_good(state)
    if last is None or data is None or data.labelled is None or newest is None:
        return None
    until = last.data_end + timedelta(days=spec.retrain.cooldown_days)
    is_nothing_new = (
        not last.has_failed
        and newest <= last.learned_end
        and (data.label_count <= last.label_count or newest < data.labelled.end)
    )
    return until if data.labelled.end < until or is_nothing_new else None


def _newest_good(state: State) -> datetime | None:
    """Return the newest event time of labelled rows that a training would read."""
    if state.data is None or state.data.labelled is None:
        return None
    parts = good_parts(state.data.labelled, state.left_out)
    return parts[-1].end if parts else state.data.labelled.start


def read_of(
    data: Data, spec: PipelineSpec, left_out: tuple[FaultyStretch, ...]
) -> tuple[Span, Span, tuple[FaultyStretch, ...]]:
    """Return both spans of a training now, and which faults meet them.

    A row may be as much older than its label as labels are waited for.
    """
    assert data.labelled is not None  # noqa: S101 - callers checked
    train_span, holdout_span = plan(data.labelled, spec.train, left_out)
    wait = timedelta(days=spec.data.label_horizon_days)
    start = train_span.start - (wait if data.dataset.labels else timedelta())
    read = Span(start=start, end=data.labelled.end)
    return train_span, holdout_span, within(left_out, read)


def _start(
    trigger: Trigger,
    state: State,
    spec: PipelineSpec,
    *,
    answers_pending: bool = False,
) -> Start:
    assert state.data is not None  # noqa: S101 - callers checked
    assert state.data.labelled is not None  # noqa: S101 - callers checked
    data_end = state.data.labelled.end
    train_span, holdout_span, left_out = read_of(state.data, spec, state.left_out)
    is_first = state.champion_version is None
    worth = None if is_first else weigh(state.losses, spec.retrain.cost)
    why = worth.text if worth else ""
    return Start(
        trigger, train_span, holdout_span, data_end, left_out, answers_pending, why
    )


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")
