"""What the policy knows, and what it answers: plain values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from driftloop.contracts.events import DatasetRef, FaultyStretch, Span, Trigger
from driftloop.trainer.worth import LossMemory

SkipReason = Literal[
    "cause_not_cured_by_training",
    "cooldown",
    "not_enough_data",
    "joined_running_job",
    "automation_advise",
    "budget",
    "not_worth_it",
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
    has_failed : it ended without a model; a cancelled one too.
    data_end : newest labelled event time there was.
    learned_end : newest one it could learn from or be judged on; earlier where a fault
        lasted.
    label_count : labelled rows there were when it started.
    champion_version : the version that it set out to replace.
    """

    id: str
    is_running: bool
    has_failed: bool
    data_end: datetime
    label_count: int
    champion_version: int | None
    learned_end: datetime


@dataclass(frozen=True)
class Spent:
    """What one job has cost.

    Attributes
    ----------
    data_end : its place in event time; see :class:`LastJob`.
    cpu_seconds : of all its tries.
    """

    data_end: datetime
    cpu_seconds: float


@dataclass(frozen=True)
class Pending:
    """A trigger that was answered with a skip and still waits for a training.

    Attributes
    ----------
    since : event time from which data have to be newer; None: a person asked,
        so neither cooldown nor budget holds it back.
    """

    trigger: Trigger
    since: datetime | None


@dataclass(frozen=True)
class State:
    """What the policy knows about a pipeline.

    Attributes
    ----------
    pending : the newest of the system's own triggers that wait.
    asked : what a person asked for and waits; a place of its own, since no cooldown
        holds it back, and no verdict may push it out.
    spent : what earlier jobs cost; needed where the pipeline has a budget.
    losses : of what was in service; needed where the pipeline weighs costs.
    left_out : faults whose rows no training reads.
    """

    data: Data | None = None
    champion_version: int | None = None
    last_job: LastJob | None = None
    pending: Pending | None = None
    asked: Pending | None = None
    spent: tuple[Spent, ...] = ()
    losses: LossMemory | None = None
    left_out: tuple[FaultyStretch, ...] = ()


@dataclass(frozen=True)
class Start:
    """Train now.

    Attributes
    ----------
    data_end : newest labelled event time; later than the hold-out's end where the
        newest rows are of a fault.
    left_out : faults whose rows are not read.
    answers_pending : the trigger is one that waited.
    why : the sum that says that it is worth it; empty: the pipeline weighs nothing.
    """

    trigger: Trigger
    train_span: Span
    holdout_span: Span
    data_end: datetime
    left_out: tuple[FaultyStretch, ...] = ()
    answers_pending: bool = False
    why: str = ""


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


@dataclass(frozen=True)
class Hold:
    """What holds the system's own trainings back, and until when."""

    reason: Literal["cooldown", "budget"]
    until: datetime
    detail: str
