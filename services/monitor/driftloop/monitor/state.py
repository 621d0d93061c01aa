"""What the monitor knows of a pipeline besides rows: one small value, stored whole."""

from dataclasses import dataclass
from datetime import datetime

from driftloop.contracts.events import Cause, RowKind, Span
from driftloop.models.losses import Target
from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Fault(Frozen):
    """A column whose values are wrong now; one alert when it begins.

    Attributes
    ----------
    kind : rows (``observations`` or ``labels``) it was seen in.
    check : the validator's check, or how the values jumped (``scale``, ``shift``,
        ``stuck``).
    is_jump : found in rows that passed validation: their errors do not count.
    is_weighed : found by a verdict that weighed all causes, over a whole window.
    is_inferred : by other columns and the target alone, and nobody has confirmed it.
    cause : what it is a fault of.
    detected_at : of its verdict, which has the least ``since`` of its columns; None:
        it was told before this was kept.
    """

    column: str
    kind: RowKind
    check: str
    is_jump: bool
    since: datetime
    is_weighed: bool = False
    is_inferred: bool = False
    cause: Cause = "sensor_fault"
    detected_at: datetime | None = None

    @property
    def condition(self) -> str:
        """Name of this episode; another one of the same column has another."""
        return f"{self.cause}:{self.column}:{self.since:%Y-%m-%dT%H:%M}"


class ColumnSpan(Frozen):
    """A time in which a column of one kind of rows was wrong."""

    column: str
    kind: RowKind
    span: Span


class Settled(Frozen):
    """A column of which nothing is inferred until a moment of event time."""

    column: str
    until: datetime


class Reference(Frozen):
    """How good a version was before it went into service, on its hold-out.

    Attributes
    ----------
    level : its loss, as a multiple of ``no_skill``.
    no_skill : loss of a guess without skill there, in the metric's unit.
    """

    version: int
    level: float
    no_skill: float


class OpenBlock(Frozen):
    """Labelled rows of one version that do not make a block yet.

    ``times_us`` are event times in microseconds since 1970.
    """

    version: int
    times_us: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A closed run of labelled rows.

    Attributes
    ----------
    number : counts the pipeline's blocks.
    loss, no_skill : in the metric's unit; the latter of a guess without skill about
        the window of rows that ends with this block.
    """

    number: int
    version: int
    start: datetime
    end: datetime
    row_count: int
    loss: float
    no_skill: float


class Verdict(Frozen):
    """The last verdict on a version's error: from here on it is judged anew.

    Attributes
    ----------
    block : number of the last block that it rests on.
    level : the level before the rise, which stays the reference.
    cause, features, since : what it said, since when; a repeat is compared with the
        rows from before that. None: it was said before verdicts were weighed.
    repeats : verdicts on this version before, each told later than the last.
    """

    version: int
    at: datetime
    block: int
    level: float
    repeats: int = 0
    cause: Cause | None = None
    features: tuple[str, ...] = ()
    since: datetime | None = None


class Asking(Frozen):
    """How far the pipeline is on its way to the next rows to label.

    Attributes
    ----------
    scored_rows : since the last window closed.
    scored_until : event time of the newest scored row.
    window : number of the last closed window; 0: none yet.
    """

    scored_rows: int = 0
    scored_until: datetime | None = None
    window: int = 0


class Trouble(Frozen):
    """An alert on how the version in service does; it ends with calm windows.

    Attributes
    ----------
    limit : greatest loss that is well; None: what the hold-out's makes tolerable.
    since : number of the first window it is about; older ones say nothing of its end.
    calm : numbers of the newest windows since, with whether each was well.
    """

    condition: str
    limit: float | None = None
    since: int
    calm: tuple[tuple[int, bool], ...] = ()


class Windows(Frozen):
    """How far the pipeline is with windows of scored rows and with their labels.

    Attributes
    ----------
    number : of the last closed window; 0: none yet.
    after : newest slice of predictions in a closed window.
    closed_until : event time of the newest scored row when a window closed last.
    scored_rows, unanswered, seconds : since then; rows without a finite answer, and
        what answering took.
    scored_until : event time of the newest scored row.
    waiting : spans of scored batches that have rows without a label; oldest first.
    landed_rows : labels since windows were last looked at; at ``wanted_rows`` of them
        the oldest one may be settled.
    labelled_until : newest row, in event time, whose label has landed.
    waits : days from rows to the landing of their labels, the newest ones.
    is_late : labels have stopped coming, and that was told.
    labelled_ratio : of rows in settled windows; the newest count most.
    stride : every so many windows one is kept until its labels land.
    degrading : windows in a row that were estimated to be too bad.
    told_metrics : metrics of the pipeline file outside of their limits, as told.
    """

    number: int = 0
    after: int = 0
    closed_until: datetime | None = None
    scored_rows: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    scored_until: datetime | None = None
    waiting: tuple[Span, ...] = ()
    landed_rows: int = 0
    wanted_rows: int = 0
    labelled_until: datetime | None = None
    waits: tuple[float, ...] = ()
    is_late: bool = False
    labelled_ratio: float | None = None
    stride: int = 1
    degrading: int = 0
    told_metrics: tuple[str, ...] = ()


class Watch(Frozen):
    """All of it.

    Attributes
    ----------
    reference : of the version in service.
    is_rolling_out : the last scored rows have a candidate: a cure is on its way.
    seen_until : event time up to which inputs were looked at.
    next_block : number of the next closed block.
    targets : of the newest labelled rows; how hard the present is to guess.
    bad_spans : stretches of past jumps; blocks in them are not judged.
    faulty_spans : the newest past faults that the checks found.
    told_columns : columns whose movement was told for the version in service.
    settled : columns of inferred faults that nobody confirmed in all their time.
    told_skew : checks and columns of serving skew that were told for it.
    open_alerts : conditions that were told about it and that end with its service.
    troubles : likewise, and that also end when its windows are well again.
    asked_rows : rows asked at doors since their distribution was looked at.
    asked_minute : newest one of requests, with the rows kept of it (``minute_rows``)
        and the versions that gave them (``minute_versions``).
    awaited_rows : of the stream, in which such rows are still looked for by id.
    window_after : number of the newest slice of inputs in a closed window.
    window_rows : rows in slices since then.
    judged_end : end of the newest block, in event time.
    pruned_at : event time at which rows behind the horizon were dropped last.
    doubted_at : when it was told that the cause of a rise is open.
    label_lag_s : the longest that labels came behind their rows, in event time.
    told_unlabelled : version of which it was told that no label has come.
    overrulings : causes of verdicts, with what people said instead; the newest.
    labelling : on the way to the next rows that people should label.
    windows : of scored rows, and where their labels stand.
    """

    pipeline: str
    reference: Reference | None = None
    is_rolling_out: bool = False
    seen_until: datetime | None = None
    next_block: int = 0
    open_block: OpenBlock | None = None
    targets: tuple[Target, ...] = ()
    verdict: Verdict | None = None
    faults: tuple[Fault, ...] = ()
    bad_spans: tuple[Span, ...] = ()
    faulty_spans: tuple[ColumnSpan, ...] = ()
    told_columns: tuple[str, ...] = ()
    settled: tuple[Settled, ...] = ()
    told_skew: tuple[str, ...] = ()
    open_alerts: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    asked_rows: int = 0
    asked_minute: datetime | None = None
    minute_rows: int = 0
    minute_versions: tuple[int, ...] = ()
    awaited_rows: int = 0
    window_after: int = 0
    window_rows: int = 0
    judged_end: datetime | None = None
    pruned_at: datetime | None = None
    doubted_at: datetime | None = None
    label_lag_s: float | None = None
    told_unlabelled: int | None = None
    overrulings: tuple[tuple[Cause, Cause], ...] = ()
    labelling: Asking = Asking()
    windows: Windows = Windows()
