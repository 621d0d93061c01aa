"""The recorded log once more, with another policy: which decisions would differ.

The trainer's own handlers take the events that the trainer took. Topics have no common
order, so an event is taken at the moment that the log proves where it proves one (a
decision names its cause, and a training the dataset that it was planned on), else at
its own. Under the policy that ran, the same decisions have to come out; a report that
says otherwise says so first. From the first other decision on, the world is not the
recorded one: models that the other policy would have trained are in no log, so what
follows is told with the recorded champions.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from typing import Any, Literal

from driftloop.backtest.errors import BacktestError
from driftloop.backtest.inprocess import InProcess, applied, caused, meta_of
from driftloop.backtest.policies import OWN, Policy, read_policy
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta, derived_id
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import TOPICS
from driftloop.trainer import core
from driftloop.trainer import handlers as trainer
from driftloop.trainer.tables import TABLES, TrainerJob, pipeline_row, state_of
from pydantic import BaseModel

Decided = e.TrainingStarted | e.TrainingSkipped
ENDS = (e.ModelTrained, e.TrainingFailed)
EVENTS = {topic.name: topic.event for topic in TOPICS}
INSTANT = timedelta(microseconds=1)
AS_RECORDED = ("monitor", "gate", "rollout")
"""Sections whose decisions others than the trainer made: they stay what they were."""


class RecordedEvent(BaseModel):
    """An event of the log, as the command line read it; ``body`` is its JSON."""

    topic: str
    body: str
    id: str
    time: datetime
    source: str
    chain_id: str
    causation_id: str | None = None
    partition: int = -1
    offset: int = -1

    def event(self) -> Event:
        meta = Meta(
            self.id, self.time, self.source, Chain(self.chain_id), self.causation_id,
            self.topic, self.partition, self.offset,
        )  # fmt: skip
        return EVENTS[self.topic].model_validate_json(self.body).with_meta(meta)


class ReplayPlan(BaseModel):
    """What is asked.

    Attributes
    ----------
    policies : files laid over the pipeline as it is applied.
    """

    kind: Literal["replay"]
    pipeline: str
    policies: list[str] = []
    entries: list[RecordedEvent]


@dataclass(frozen=True)
class Decision:
    """One answer to a trigger.

    Attributes
    ----------
    at : when it was given, by the clock of the log.
    """

    event: Decided
    at: datetime

    @property
    def trigger(self) -> str:
        return self.event.trigger.event_id

    @property
    def outcome(self) -> str:
        """``started``, or the reason of a skip."""
        if isinstance(self.event, e.TrainingStarted):
            return "started"
        return self.event.reason

    def as_json(self) -> dict[str, Any]:
        event = self.event
        found = {
            "at": self.at.isoformat(),
            "trigger": self.trigger,
            "cause": event.trigger.reason,
            "outcome": self.outcome,
        }
        if isinstance(event, e.TrainingStarted):
            spans = event.train_span, event.holdout_span
            found["detail"] = (
                f"on {spans[0].start:%Y-%m-%d} to {spans[0].end:%Y-%m-%d}, judged up "
                f"to {spans[1].end:%Y-%m-%d}"
            )
        else:
            found["detail"] = event.detail
        return found


def replay(plan: ReplayPlan) -> dict[str, Any]:
    """Return what each policy would have decided, against the record.

    Raises
    ------
    BacktestError
        When the log has no such pipeline, or a policy file is wrong.
    """
    entries = [entry.event() for entry in plan.entries]
    entries = [event for event in entries if event.pipeline == plan.pipeline]
    spec = _spec_of(entries, plan.pipeline)
    recorded = [
        Decision(event, event.meta.time)
        for event in sorted(entries, key=lambda event: event.meta.time)
        if isinstance(event, e.TrainingStarted | e.TrainingSkipped)
    ]
    order = handled(entries)
    policies = [Policy(OWN, "pipeline", spec)]
    policies += [read_policy(spec, Path(path)) for path in plan.policies]
    return {
        "pipeline": plan.pipeline,
        "events": len(order),
        "recorded": [decision.as_json() for decision in recorded],
        "policies": [
            {
                "name": policy.name,
                "as_recorded": [name for name in AS_RECORDED if name in policy.changes],
                **differences(
                    recorded,
                    decisions(order, policy.spec, recorded),
                    in_words=policy.kind == "pipeline",
                ),
            }
            for policy in policies
        ],
    }


def _spec_of(entries: Sequence[Event], pipeline: str) -> PipelineSpec:
    """Return the pipeline as it is applied; the topic keeps the newest file only."""
    found = [event for event in entries if isinstance(event, e.PipelineApplied)]
    if not found:
        raise BacktestError(
            f"no pipeline {pipeline!r} in the log; driftloop status shows what is there"
        )
    return max(found, key=lambda event: event.meta.time).spec


# ── in which order ──────────────────────────────────────────────────────────


def handled(entries: Sequence[Event]) -> list[Event]:
    """Return what the trainer took and how its jobs ended, in the order proven.

    An event that led to a decision was taken when that was made; a dataset version
    before or after each training by whether it was planned on it.
    """
    taken = set(_trainer_topics())
    inputs = [one for one in entries if one.topic() in taken or isinstance(one, ENDS)]
    decided = [event for event in entries if isinstance(event, Decided)]
    first: dict[str, datetime] = {}
    for event in sorted(decided, key=lambda event: event.meta.time):
        if event.meta.causation_id is not None:
            first.setdefault(event.meta.causation_id, event.meta.time)
    at = {event.meta.id: first.get(event.meta.id, event.meta.time) for event in inputs}
    started = [event for event in decided if isinstance(event, e.TrainingStarted)]
    for taken_in in inputs:
        if isinstance(taken_in, e.DatasetVersioned):
            at[taken_in.meta.id] = _proven(taken_in, at[taken_in.meta.id], started)
    _keep_order(inputs, at)
    return sorted(inputs, key=lambda event: (at[event.meta.id], event.meta.time))


def _trainer_topics() -> Iterator[str]:
    for topic in TOPICS:
        if "trainer" in topic.consumers and topic.event is not e.PipelineApplied:
            yield topic.name


def _proven(
    event: e.DatasetVersioned, at: datetime, started: Sequence[e.TrainingStarted]
) -> datetime:
    """Return when a version was known to the trainer, by what it planned on."""
    for training in sorted(started, key=lambda each: each.meta.time):
        is_known = _version(event.dataset) <= _version(training.dataset)
        is_cause = training.meta.causation_id == event.meta.id
        if is_known and at > training.meta.time:
            return training.meta.time - (timedelta(0) if is_cause else INSTANT)
        if not is_known and at <= training.meta.time:
            at = training.meta.time + INSTANT
    return at


def _version(dataset: e.DatasetRef) -> tuple[int, int]:
    labels = dataset.labels.version if dataset.labels else -1
    return dataset.observations.version, labels


def _keep_order(inputs: Sequence[Event], at: dict[str, datetime]) -> None:
    """Let no event overtake the one before it in its partition."""
    newest: dict[tuple[str, int], datetime] = {}
    for event in sorted(inputs, key=lambda event: event.meta.offset):
        place = event.topic(), event.meta.partition
        if event.meta.partition < 0:
            continue
        newest[place] = max(newest.get(place, at[event.meta.id]), at[event.meta.id])
        at[event.meta.id] = newest[place]


# ── what is decided ─────────────────────────────────────────────────────────


def decisions(
    order: Sequence[Event], spec: PipelineSpec, recorded: Sequence[Decision]
) -> list[Decision]:
    """Return what the trainer decides on the events under a pipeline file."""
    pipelines = applied(spec)
    service = InProcess(
        trainer.HANDLERS,
        TABLES,
        lambda session: trainer.Deps(session, pipelines, Flag(), Flag()),
    )
    known = {d.event.job_id for d in recorded if isinstance(d.event, e.TrainingStarted)}
    found: list[Decision] = []
    try:
        for event in order:
            told = (
                _ended(service, event, spec)
                if isinstance(event, ENDS)
                else service.take(event)
            )
            while told:
                mine = [each for each in told if isinstance(each, Decided)]
                found += [Decision(each, event.meta.time) for each in mine]
                told = [
                    following
                    for each in mine
                    if isinstance(each, e.TrainingStarted) and each.job_id not in known
                    for following in _end(service, each.job_id, False, 0.0, spec,
                                          each.meta)
                ]  # fmt: skip
    finally:
        service.close()
    return found


def _ended(service: InProcess, event: Event, spec: PipelineSpec) -> list[Event]:
    """End a job as the log says it ended."""
    assert isinstance(event, ENDS)  # noqa: S101 - the caller looked
    return _end(
        service,
        event.job_id,
        isinstance(event, e.TrainingFailed),
        event.cpu_seconds or 0.0,
        spec,
        event.meta,
    )


def _end(
    service: InProcess, job_id: str, has_failed: bool, cpu_seconds: float,
    spec: PipelineSpec, cause: Meta,
) -> list[Event]:  # fmt: skip
    session = service.session
    job = session.get(TrainerJob, job_id)
    if job is None or job.state not in core.OPEN_STATES:
        return []
    job.state = "failed" if has_failed else "done"
    job.cpu_seconds += cpu_seconds
    session.flush()
    row = pipeline_row(session, spec.name)
    following = core.after_job(state_of(session, row, spec), spec)
    told: list[Event] = []
    if following is not None:
        accepted = trainer.accept(session, row, following, spec, cause)
        end = meta_of(derived_id(job_id, "end", 0), cause.time, cause)
        told = caused([accepted], end)
    session.commit()
    return told


# ── what differs ────────────────────────────────────────────────────────────


def differences(
    recorded: Sequence[Decision], replayed: Sequence[Decision], *, in_words: bool
) -> dict[str, Any]:
    """Return the decisions that differ, the first one first.

    Decisions are matched by their trigger and their number among its answers.

    Parameters
    ----------
    in_words : they are equal only when the events are, word for word; else when both
        skip for the same reason, or train on the same rows.
    """
    mine, theirs = _by_trigger(replayed), _by_trigger(recorded)
    found = []
    for key in dict.fromkeys([*theirs, *mine]):
        was, would = theirs.get(key), mine.get(key)
        if was is None or would is None or not _same(was, would, in_words=in_words):
            found.append(
                {
                    "at": min(d.at for d in (was, would) if d is not None).isoformat(),
                    "recorded": was and was.as_json(),
                    "replayed": would and would.as_json(),
                }
            )
    found.sort(key=lambda difference: str(difference["at"]))
    return {
        "decisions": len(replayed),
        "equal": len(theirs.keys() | mine.keys()) - len(found),
        "trainings": sum(d.outcome == "started" for d in replayed),
        "differences": found,
    }


def _same(was: Decision, would: Decision, *, in_words: bool) -> bool:
    if was.outcome != would.outcome:
        return False
    one, other = was.event.model_dump(), would.event.model_dump()
    if not in_words:
        for words in ("detail", "explanation", "covered_by_job"):
            one.pop(words, None)
            other.pop(words, None)
    return one == other


def _by_trigger(found: Sequence[Decision]) -> dict[tuple[str, int], Decision]:
    counts: dict[str, int] = defaultdict(int)
    result = {}
    for decision in found:
        counts[decision.trigger] += 1
        result[decision.trigger, counts[decision.trigger]] = decision
    return result
