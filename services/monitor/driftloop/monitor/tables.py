"""The monitor's tables: rows that wait for their counterpart, windows, blocks."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime
from sqlmodel import Field, SQLModel

UTC_TIME = DateTime(timezone=True)
"""SQLite keeps no zone: times are UTC, and read back without saying so."""


class MonitorWatch(SQLModel, table=True):
    """A pipeline's :class:`state.Watch` as JSON, read and written whole."""

    __tablename__ = "monitor_watch"
    pipeline: str = Field(primary_key=True)
    state: str


class MonitorPrediction(SQLModel, table=True):
    """A row that waits for its label; see ``joining.py``.

    ``time_us`` is the event time in microseconds since 1970; shares are JSON, label
    to probability. No index on times: rows are dropped by them only now and then.
    """

    __tablename__ = "monitor_prediction"
    __table_args__ = {"sqlite_with_rowid": False}
    pipeline: str = Field(primary_key=True)
    row_id: str = Field(primary_key=True)
    time_us: int = Field(sa_type=BigInteger)
    champion_version: int
    candidate_version: int | None = None
    champion: float | None = None
    candidate: float | None = None
    champion_shares: str | None = None
    candidate_shares: str | None = None


class MonitorLabel(SQLModel, table=True):
    """A label that waits for its row's prediction."""

    __tablename__ = "monitor_label"
    __table_args__ = {"sqlite_with_rowid": False}
    pipeline: str = Field(primary_key=True)
    row_id: str = Field(primary_key=True)
    time_us: int = Field(sa_type=BigInteger)
    number: float | None = None
    text: str | None = None


class MonitorBlock(SQLModel, table=True):
    """A closed :class:`state.Block`."""

    __tablename__ = "monitor_block"
    pipeline: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    version: int
    start: datetime = Field(sa_type=UTC_TIME)
    end: datetime = Field(sa_type=UTC_TIME)
    row_count: int
    loss: float
    no_skill: float


class MonitorBatch(SQLModel, table=True):
    """One ingested batch as the validator left it; its two halves come apart.

    ``batch_id`` is the event that both halves were caused by. ``good_count`` is
    null until the validated half came, ``bad_expected`` is what it announced.
    """

    __tablename__ = "monitor_batch"
    pipeline: str = Field(primary_key=True)
    batch_id: str = Field(primary_key=True)
    kind: str
    start: datetime = Field(sa_type=UTC_TIME)
    end: datetime = Field(index=True, sa_type=UTC_TIME)
    good_count: int | None = None
    bad_expected: int | None = None
    bad_count: int = 0
    row_count: int = 0
    is_complete: bool = False
    reasons: str = "[]"
    source: str | None = None


class MonitorSlice(SQLModel, table=True):
    """Rows of a window: features (``inputs``) or predictions, as Arrow IPC."""

    __tablename__ = "monitor_slice"
    number: int | None = Field(default=None, primary_key=True)
    pipeline: str = Field(index=True)
    kind: str
    start: datetime = Field(sa_type=UTC_TIME)
    end: datetime = Field(sa_type=UTC_TIME)
    row_count: int
    is_faulty: bool = False
    data: bytes


class MonitorSample(SQLModel, table=True):
    """What the version in service learned from, as Arrow IPC."""

    __tablename__ = "monitor_sample"
    pipeline: str = Field(primary_key=True)
    version: int
    data: bytes


class MonitorWanted(SQLModel, table=True):
    """A row that people should label; see ``labelling/queue.py``.

    ``place`` counts down from the queue's front; reasons are a JSON list. A settled
    row, whose label has come, is kept so that it is not asked for again.
    """

    __tablename__ = "monitor_wanted"
    pipeline: str = Field(primary_key=True)
    row_id: str = Field(primary_key=True)
    place: int = Field(sa_type=BigInteger)
    window_number: int
    time_us: int = Field(sa_type=BigInteger)
    score: float
    reasons: str
    model_version: int | None = None
    is_settled: bool = False


class MonitorWindow(SQLModel, table=True):
    """A window of scored rows; see ``estimates/windows.py``.

    ``note`` is JSON: what was estimated and, once its labels have landed, measured.
    ``data`` are its rows as Arrow IPC, null when they are no longer needed.
    """

    __tablename__ = "monitor_window"
    pipeline: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    version: int
    start: datetime = Field(sa_type=UTC_TIME)
    end: datetime = Field(sa_type=UTC_TIME)
    row_count: int
    kept_count: int
    is_settled: bool = False
    note: str
    data: bytes | None = None


TABLES: tuple[type[SQLModel], ...] = (
    MonitorWatch,
    MonitorPrediction,
    MonitorLabel,
    MonitorBlock,
    MonitorBatch,
    MonitorSlice,
    MonitorSample,
    MonitorWanted,
    MonitorWindow,
)
