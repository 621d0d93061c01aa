"""Publishes files as an upstream system would: rows first, labels later."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid5

import polars as pl
import pyarrow as pa
from driftloop.contracts.base import EVENT_NAMESPACE
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import CONTENT_TYPE
from driftloop.runtime.transport import Publisher, Record

Source = Path | bytes
READERS: dict[str, Callable[[Source], pl.DataFrame]] = {
    ".csv": lambda source: pl.read_csv(source, infer_schema_length=None),
    ".parquet": pl.read_parquet,
    ".ndjson": lambda source: pl.read_ndjson(source, infer_schema_length=None),
    ".jsonl": lambda source: pl.read_ndjson(source, infer_schema_length=None),
}
CODECS = {".gz": "gzip", ".zst": "zstd"}
"""Suffixes that stand after another one (``rows.csv.gz``)."""
NUMBER_BYTES = 8
MAX_PART_BYTES = 512 * 1024
"""Of the rows in one message, in memory; half of what a topic takes."""

OBSERVATIONS = "observation-arrived"
LABELS = "label-arrived"
HOLD_POLL_S = 0.1
MAX_TOGETHER = 64
"""Messages whose acknowledgements are awaited together when nothing paces them; with
:data:`MAX_PART_BYTES` each, what a slow network takes within a time-out."""


class PublishFileError(Exception):
    """A file cannot be published; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Part:
    """One message: rows of one stretch, or the labels of an earlier one.

    Attributes
    ----------
    due : event time at which upstream would send it.
    """

    number: int
    topic: str
    due: datetime
    rows: pl.DataFrame

    @property
    def is_labels(self) -> bool:
        return self.topic == LABELS


def kind_of(path: Path) -> tuple[str, str | None]:
    """Return a file's format and codec by its suffixes; the format may be unknown.

    >>> kind_of(Path("rows.2011.csv.gz"))
    ('.csv', 'gzip')
    """
    codec = CODECS.get(path.suffix.lower())
    return (Path(path.stem) if codec else path).suffix.lower(), codec


def title_of(path: Path) -> str:
    """Return a file's name without the suffixes that tell its format.

    >>> title_of(Path("data/rows.2011.csv.gz"))
    'rows.2011'
    """
    return Path(path.stem if kind_of(path)[1] else path).stem


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files below a folder, by name.

    Hidden files, and those whose names begin with ``_`` (markers of other tools),
    are left out.

    Raises
    ------
    PublishFileError
        When there are none that can be read.
    """
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and kind_of(file)[0] in READERS
        and not any(part[0] in "._" for part in file.relative_to(path).parts)
    ]
    if not found:
        raise PublishFileError(
            f"{path} has no files of a known format; use one of {_known_formats()}"
        )
    return found


def _known_formats() -> str:
    return f"{', '.join(READERS)}, also with {' or '.join(CODECS)} after it"


def read_file(path: Path) -> pl.DataFrame:
    """Read CSV, Parquet or NDJSON, also compressed.

    Raises
    ------
    PublishFileError
        When the file is missing, of another kind, or broken.
    """
    kind, codec = kind_of(path)
    reader = READERS.get(kind)
    if reader is None:
        raise PublishFileError(
            f"{path.name}: cannot tell its format; use one of {_known_formats()}"
        )
    try:
        if codec is None:
            return reader(path)
        with pa.input_stream(path, compression=codec) as stream:
            return reader(stream.read())
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise PublishFileError(f"cannot read {path}: {error}") from error


def _parsed(times: pl.Series) -> pl.Series:
    try:
        return times.str.to_datetime(strict=False)
    except pl.exceptions.ComputeError:  # not one that looks like a time
        return pl.Series(times.name, [None] * len(times), pl.Datetime("us"))


def with_event_time(frame: pl.DataFrame, spec: PipelineSpec) -> pl.DataFrame:
    """Return the frame sorted by a column ``event_time`` (UTC), ties in file order.

    Raises
    ------
    PublishFileError
        When the time or id column is missing or a time cannot be read.
    """
    for name in (spec.data.time, spec.data.id):
        if name not in frame.columns:
            raise PublishFileError(
                f"column {name!r} of the pipeline file is not in the file; it has "
                f"{', '.join(frame.columns)}"
            )
    times = frame[spec.data.time]
    if times.dtype == pl.String:  # a series, as an expression would not see the zone
        times = _parsed(times)
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise PublishFileError(
            f"row {row + 1}: {spec.data.time} is {frame[spec.data.time][row]!r}, not a "
            "time such as 2011-01-01T00:00:00"
        )
    dtype = times.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        times = times.dt.replace_time_zone(spec.data.timezone, ambiguous="earliest")
    return frame.with_columns(times.dt.convert_time_zone("UTC").alias("due_at")).sort(
        "due_at", maintain_order=True
    )


def plan(
    frame: pl.DataFrame,
    spec: PipelineSpec,
    batch: timedelta,
    label_delay: timedelta | None,
) -> Iterator[Part]:
    """Cut a frame into the messages that upstream would send, in event time.

    Parameters
    ----------
    frame : rows as read, one column per field.
    batch : stretch of event time in one message; one that is too large for a message
        becomes several.
    label_delay : how long after its row a label is known; None: with the row.
    """
    timed = with_event_time(frame, spec)
    width = f"{int(batch.total_seconds())}s"
    buckets = timed.with_columns(pl.col("due_at").dt.truncate(width).alias("bucket"))
    target = spec.data.target
    if label_delay is not None and target not in frame.columns:
        raise PublishFileError(
            f"target {target!r} is not in the file, so it cannot be sent later as a "
            "label; leave --label-delay-hours out"
        )
    parts: list[tuple[datetime, int, str, pl.DataFrame]] = []
    size = max(1, MAX_PART_BYTES // _row_bytes(frame))
    stretches = buckets.partition_by("bucket", maintain_order=True)
    for bucket in (piece for s in stretches for piece in s.iter_slices(size)):
        end: datetime = bucket["bucket"][0] + batch
        rows = bucket.drop("due_at", "bucket")
        if label_delay is None:
            parts.append((end, 0, OBSERVATIONS, rows))
            continue
        labels = rows.select(spec.data.id, spec.data.time, target).drop_nulls(target)
        parts.append((end, 1, OBSERVATIONS, rows.drop(target)))
        parts.append((end + label_delay, 0, LABELS, labels))
    parts.sort(key=lambda part: part[:2])
    for number, (due, _, topic, rows) in enumerate(parts):
        yield Part(number, topic, due, rows)


def _row_bytes(frame: pl.DataFrame) -> int:
    """Bytes of a row as it travels: a text each time that it is there."""
    texts = frame.select(pl.col(pl.String).str.len_bytes().sum())
    text_bytes = sum(texts.row(0)) if texts.width else 0
    return int(text_bytes // max(1, frame.height)) + NUMBER_BYTES * frame.width


def record_of(part: Part, pipeline: str, source: str, file_digest: str) -> Record:
    """Return the Kafka record of a part: a CloudEvent with rows as Arrow.

    The id is derived from the file and the part, so that a file published twice
    sends the same ids.
    """
    table = part.rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    event_id = str(uuid5(EVENT_NAMESPACE, f"{file_digest}/{part.topic}/{part.number}"))
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": f"/upstream/{source}",
        "ce_type": f"io.driftloop.{part.topic}.v1",
        "ce_subject": pipeline,
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": CONTENT_TYPE,
    }
    return Record(
        topic=part.topic,
        key=f"{pipeline}/{source}".encode(),
        value=sink.getvalue().to_pybytes(),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to publish; both None: as fast as the broker takes it.

    Attributes
    ----------
    rows_per_second : of wall clock.
    speed : seconds of event time in one second of wall clock.
    """

    rows_per_second: float | None = None
    speed: float | None = None

    @property
    def together(self) -> int:
        """How many messages may go out before the first is acknowledged."""
        return 1 if self.rows_per_second or self.speed else MAX_TOGETHER

    def wait_s(
        self, part: Part, first_due: datetime, rows_sent: int, elapsed_s: float
    ) -> float:
        """Seconds to wait before ``part`` goes out (0: it is due)."""
        due_s = 0.0
        if self.speed:
            due_s = (part.due - first_due).total_seconds() / self.speed
        if self.rows_per_second:
            due_s = max(due_s, rows_sent / self.rows_per_second)
        return max(0.0, due_s - elapsed_s)


class Progress:
    """Remembers how far a file was published, so that a broken run goes on.

    Kept below ``folder``, by file and options; removed when the run is done.
    """

    def __init__(self, folder: Path, key: str) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._path = folder / f"{name}.json"

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return content

    def _write(self, **content: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(self._path)

    def next_part(self) -> int:
        return int(self._read().get("next_part", 0))

    def is_complete(self) -> bool:
        """Whether the file is done while others of its folder may not be."""
        return bool(self._read().get("complete"))

    def sent(self, part: Part) -> None:
        self._write(next_part=part.number + 1)

    def complete(self) -> None:
        self._write(complete=True)

    def done(self) -> None:
        self._path.unlink(missing_ok=True)


def send(
    parts: Sequence[Part],
    to_record: Callable[[Part], Record],
    publisher: Publisher,
    pace: Pace,
    on_sent: Callable[[Part], None],
    hold: Callable[[], bool] = lambda: False,
) -> None:
    """Publish parts in order, each acknowledged before ``on_sent`` hears of it.

    Without a pace many are on their way at once: waiting for each would cost a round
    trip a message.

    Parameters
    ----------
    hold : while it says True, nothing more is sent (consumers are behind).
    """
    if not parts:
        return
    started, rows_sent, first_due = time.monotonic(), 0, parts[0].due
    for at in range(0, len(parts), pace.together):
        group = parts[at : at + pace.together]
        while hold():
            time.sleep(HOLD_POLL_S)
            started += HOLD_POLL_S
        elapsed = time.monotonic() - started
        time.sleep(pace.wait_s(group[0], first_due, rows_sent, elapsed))
        publisher.publish([to_record(part) for part in group])
        for part in group:
            rows_sent += part.rows.height
            on_sent(part)
