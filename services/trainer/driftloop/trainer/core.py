"""When to train, and on which stretch of event time: pure functions of values.

Each trigger has its own function; all of them answer with :class:`Start`,
:class:`SkipWith` or nothing. The clock of every rule is event time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    DriftDetected,
    RetrainRequested,
    Span,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec, TrainSection

RESOLUTION = timedelta(microseconds=1)
SkipReason = Literal[
    "cause_not_cured_by_training",
    "cooldown",
    "not_enough_data",
    "joined_running_job",
    "automation_advise",
]


@dataclass(frozen=True)
class Data:
    """The dataset as last announced.

    Attributes
    ----------
    labelled : from the first to the newest row with a known target.
    """

    dataset: DatasetRef
    observation_count: int
    label_count: int
    labelled: Span | None


@dataclass(frozen=True)
class LastJob:
    """The newest job of a pipeline, finished or not.

    Attributes
    ----------
    data_end : newest labelled event time it could learn from.
    label_count : labelled rows there were when it started.
    champion_version : the version that it set out to replace.
    """

    id: str
    is_running: bool
    has_failed: bool
    data_end: datetime
    label_count: int
    champion_version: int | None


@dataclass(frozen=True)
class Pending:
    """A trigger that was answered with a skip and still waits for a training.

    Attributes
    ----------
    since : event time from which data have to be newer; None: a person asked,
        so no cooldown holds it back.
    """

    trigger: Trigger
    since: datetime | None


@dataclass(frozen=True)
class State:
    """What the policy knows about a pipeline."""

    data: Data | None = None
    champion_version: int | None = None
    last_job: LastJob | None = None
    pending: Pending | None = None


@dataclass(frozen=True)
class Start:
    """Train now.

    Attributes
    ----------
    answers_pending : the trigger is the one that waited.
    """

    trigger: Trigger
    train_span: Span
    holdout_span: Span
    answers_pending: bool = False


@dataclass(frozen=True)
class SkipWith:
    """Do not train for this trigger.

    Attributes
    ----------
    keep : the trigger waits until a training is possible (see :class:`Pending`).
    """

    trigger: Trigger
    reason: SkipReason
    detail: str
    covered_by_job: str | None = None
    keep: Pending | None = None


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


def plan(labelled: Span, train: TrainSection) -> tuple[Span, Span]:
    """Return the training span and the hold-out span right after it.

    The window is the newest ``window_days`` (or everything), the hold-out its
    newest ``holdout_ratio`` by time.
    """
    start = labelled.start
    if train.window_days is not None:
        start = max(start, labelled.end - timedelta(days=train.window_days))
    cut = labelled.end - (labelled.end - start) * train.holdout_ratio
    return (
        Span(start=start, end=cut),
        Span(start=min(cut + RESOLUTION, labelled.end), end=labelled.end),
    )


def after_data(event_id: str, state: State, spec: PipelineSpec) -> Start | None:
    """Decide after a new dataset version: a waiting trigger, v1, or every n rows."""
    started = after_job(state, spec)
    if started:
        return started
    if not _can_train(state, spec) or spec.automation == "advise":
        return None
    data, last = state.data, state.last_job
    assert data is not None  # noqa: S101 - _can_train
    new_rows = data.label_count - (last.label_count if last else 0)
    if state.champion_version is None:
        # A first model may be on its way through gate and rollout, or have been worse
        # than no skill: another try needs twice the rows of the one before.
        reason = "first_model"
        wanted = max(spec.retrain.first_rows, last.label_count if last else 0)
    elif spec.retrain.every_rows is not None:
        reason, wanted = "new_data", spec.retrain.every_rows
        if _cooldown_end(state, spec, data) is not None:
            return None
    else:
        return None
    if new_rows < wanted:
        return None
    trigger = Trigger(
        event_id=event_id, event_type=DatasetVersioned.topic(), reason=reason
    )
    return _start(trigger, state, spec)


def after_job(state: State, spec: PipelineSpec) -> Start | None:
    """Decide whether the trigger that waits can be trained for now."""
    pending, data = state.pending, state.data
    if pending is None or data is None or not _can_train(state, spec):
        return None
    if pending.since is not None and _cooldown_end(state, spec, data) is not None:
        return None
    return _start(pending.trigger, state, spec, answers_pending=True)


def still_waits(pending: Pending | None, started: Start) -> bool:
    """Whether a waiting trigger is about something that a new job cannot know yet."""
    if pending is None or started.answers_pending or pending.since is None:
        return False
    return pending.since > started.holdout_span.end


def after_drift(
    event: DriftDetected, event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith:
    """Decide what a drift verdict leads to."""
    trigger = Trigger(event_id=event_id, event_type=event.topic(), reason=event.cause)
    pending = Pending(trigger, event.detected_at)
    if not event.retrain_advised:
        known = event.cause == "not_enough_data"
        reason: SkipReason = (
            "not_enough_data" if known else "cause_not_cured_by_training"
        )
        return SkipWith(
            trigger,
            reason,
            f"the monitor advises against training: {event.explanation}",
        )
    if spec.automation == "advise" or not spec.retrain.on_drift:
        setting = (
            "automation: advise"
            if spec.automation == "advise"
            else "retrain.on_drift: false"
        )
        return SkipWith(
            trigger,
            "automation_advise",
            f"the pipeline says {setting}; driftloop retrain starts one by hand",
        )
    obstacle = _obstacle(pending, state, spec)
    if obstacle:
        return obstacle
    data, last = state.data, state.last_job
    assert data is not None  # noqa: S101 - _obstacle
    until = _cooldown_end(state, spec, data)
    if last and until:
        # The model that the last job made has to go into service before its worth
        # is known; if that one drifts already, its drift waits for the cooldown.
        is_about_newer = last.has_failed or event.model_version not in (
            None, last.champion_version,
        )  # fmt: skip
        return SkipWith(
            trigger,
            "cooldown",
            f"job {last.id} learned from data up to {_text(last.data_end)}; "
            f"the next training may use data from {_text(until)} on",
            None if last.has_failed else last.id,
            pending if is_about_newer else None,
        )
    return _start(trigger, state, spec)


def after_request(
    event: RetrainRequested, event_id: str, state: State, spec: PipelineSpec
) -> Start | SkipWith:
    """Decide what a person's wish leads to: no cooldown holds it back."""
    trigger = Trigger(
        event_id=event_id,
        event_type=event.topic(),
        reason=event.reason,
        requested_by=event.requested_by,
    )
    obstacle = _obstacle(Pending(trigger, None), state, spec)
    return obstacle or _start(trigger, state, spec)


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


def _can_train(state: State, spec: PipelineSpec) -> bool:
    data = state.data
    return (
        data is not None
        and data.labelled is not None
        and data.label_count >= spec.train.min_rows
        and not (state.last_job and state.last_job.is_running)
    )


def _cooldown_end(state: State, spec: PipelineSpec, data: Data) -> datetime | None:
    """Return when the cooldown ends if it still lasts at the newest labelled row."""
    if state.last_job is None or data.labelled is None:
        return None
    until = state.last_job.data_end + timedelta(days=spec.retrain.cooldown_days)
    return until if data.labelled.end < until else None


def _start(
    trigger: Trigger,
    state: State,
    spec: PipelineSpec,
    *,
    answers_pending: bool = False,
) -> Start:
    assert state.data is not None  # noqa: S101 - callers checked
    assert state.data.labelled is not None  # noqa: S101 - callers checked
    train_span, holdout_span = plan(state.data.labelled, spec.train)
    return Start(trigger, train_span, holdout_span, answers_pending)


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")
