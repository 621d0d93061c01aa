"""Rows a second of one core: reading JSON rows, and checking them by columns."""

import os

# One core for everybody; read when the libraries are first imported.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from driftloop.contracts.checks import (
    Distribution,
    Expression,
    Freshness,
    Monotonic,
    NullRatio,
    RowCount,
    Spikes,
    Stuck,
    Unique,
    UnitSlip,
    active_checks,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import EVENT_TIME_FIELD, ID_FIELD, SOURCE_FIELD
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import NDJSON_TYPE, parse
from driftloop.validator.columns import Failure
from driftloop.validator.core import Checked, check, contract_of
from driftloop.validator.inspection import ShardState, Surroundings, inspect
from driftloop.validator.reference import reference_of

from tests.bench import stream
from tests.bench.figures import Figure
from tests.bench.peers import bare_polars, by_pandera, by_pydantic

PART = "data"
ROWS = 100_000
JSON_ROWS = 20_000
NUMBERS, INTEGERS, CATEGORIES = 24, 3, 3
SEASONS = ["spring", "summer", "autumn", "winter"]
BROKEN_SHARE = 0.01
SMALL_ROWS = (24, 500)
REPEATS = 15
SEED = 20261121
ARRIVED_AT = datetime(2026, 1, 3, tzinfo=UTC)
PEERS = tuple(
    f"{what} {version(package)}, one core"
    for what, package in (
        ("bare Polars masks", "polars"),
        ("pandera on Polars", "pandera"),
        ("pydantic", "pydantic"),
    )
)
NS = 1e9
MEMORY_BATCHES = 100
MEMORY_AT = (1_000_000, 10_000_000)
LISTED = (
    UnitSlip(check="unit_slip"),
    Stuck(check="stuck"),
    Spikes(check="spikes"),
    Distribution(check="distribution"),
    NullRatio(check="null_ratio", max_ratio=0.5),
    Unique(check="unique", columns=["n0"]),
    RowCount(check="row_count"),
    Freshness(check="freshness", max_age_hours=1e6),
    Monotonic(check="monotonic"),
    Expression(check="expression", sql="n0 + n1 < 20"),
)


def run() -> Iterator[Figure]:
    """Measure the part."""
    pa.set_cpu_count(1)
    yield from _peers()
    yield from _small_batches()
    yield from _costs()
    yield from _memory()
    yield from _door()
    yield from stream.through_kafka(PART, _spec(), batch_of)


def _peers() -> Iterator[Figure]:
    """Yield the check of 30 columns beside others in the same run."""
    for name, broken in (("all rows right", 0.0), ("1 % broken", BROKEN_SHARE)):
        batch = batch_of(ROWS, broken)
        dicts = pl.DataFrame(pl.from_arrow(batch)).head(JSON_ROWS).to_dicts()
        works = [*_on_frames(batch), (JSON_ROWS, by_pydantic(dicts, SEASONS))]
        yield from _beside(f"check of 30 columns, {name}", works)


def _small_batches() -> Iterator[Figure]:
    """Yield the same for what a stream has: there the price of a batch counts."""
    for rows in SMALL_ROWS:
        batch = batch_of(rows, BROKEN_SHARE)
        what = f"check of 30 columns, {rows} rows a batch"
        yield from _beside(what, _on_frames(batch))


def _on_frames(batch: pa.RecordBatch) -> list[tuple[int, Callable[[], object]]]:
    """Return our work on a batch, then that of those who take a Polars frame."""
    frame = pl.DataFrame(pl.from_arrow(batch))
    return [
        (len(frame), Validation().take(batch)),
        (len(frame), partial(bare_polars, frame, SEASONS)),
        (len(frame), by_pandera(frame, SEASONS)),
    ]


def _beside(
    what: str, works: Sequence[tuple[int, Callable[[], object]]]
) -> Iterator[Figure]:
    ours, *rates = _rates(works)
    for peer, rate in zip(PEERS, rates, strict=False):
        yield Figure(PART, what, "rows/CPU-s", ours, peer, rate)


class Validation:
    """The validator's work on batches, but for database and dataset.

    Parameters
    ----------
    checks : of the pipeline file besides the columns' rules; default: what runs for
        a file that lists none.
    """

    def __init__(self, checks: Sequence[Any] | None = None) -> None:
        self.checks = active_checks([]) if checks is None else checks
        self.spec = _spec()
        features = self.spec.data.features
        self.contract = contract_of(self.spec, "observations", features, None)
        first = check(batch_of(2_000, 0.0), self.contract).good
        assert first is not None
        self.reference = reference_of(first.slice(0, 1_000))
        self.state = ShardState()

    def __call__(self, batch: pa.RecordBatch) -> Checked:
        return check(batch, self.contract, None, partial(self._inspect, batch))

    def take(self, batch: pa.RecordBatch) -> Callable[[], Checked]:
        return partial(self, batch)

    def _inspect(self, batch: pa.RecordBatch, good: pa.RecordBatch) -> list[Failure]:
        around = Surroundings(
            features=self.spec.data.features,
            came=batch.num_rows,
            arrived_at=ARRIVED_AT,
            reference=self.reference,
            known=lambda rule, texts: set(),
            imported=lambda rule, frame: (),
        )
        found, self.state = inspect(good, self.checks, self.state, around)
        return found


def _costs() -> Iterator[Figure]:
    """Yield what each check adds on 30 columns (27 numbers): ns a row."""
    batch = batch_of(ROWS, 0.0)
    validations = [Validation(checks) for checks in [[], *([r] for r in LISTED)]]
    rates = _rates([(ROWS, validation.take(batch)) for validation in validations])
    bare, *rest = [NS / rate for rate in rates]
    yield Figure(PART, "cost of the columns' rules", "ns/row", bare)
    for rule, whole in zip(LISTED, rest, strict=True):
        yield Figure(PART, f"cost of {rule.check}", "ns/row", max(whole - bare, 0.0))


def _memory() -> Iterator[Figure]:
    """Yield resident memory over ten million rows, every batch a new one."""
    validation = Validation()
    measured = {}
    for number in range(MEMORY_BATCHES):
        validation(batch_of(ROWS, BROKEN_SHARE, seed=number))
        rows = (number + 1) * ROWS
        if rows in MEMORY_AT:
            measured[rows] = _resident_mb()
    first, last = (measured[rows] for rows in MEMORY_AT)
    yield Figure(
        PART,
        f"memory after {MEMORY_AT[1]:,} rows",
        "MB",
        last,
        f"after {MEMORY_AT[0]:,}",
        first,
    )


def _resident_mb() -> float:
    """Return this process's resident memory, with what is free given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * resource.getpagesize() / 1e6


def _door() -> Iterator[Figure]:
    """Yield rows a second from NDJSON to typed columns."""
    spec = _spec()
    lines = _json_rows()

    def typed() -> object:
        return typed_rows(parse(lines, NDJSON_TYPE), spec, "observations", "bench")

    def loaded() -> object:
        return [orjson.loads(row) for row in lines.split(b"\n")]

    ours, floor = _rates([(JSON_ROWS, typed), (JSON_ROWS, loaded)])
    yield Figure(
        PART,
        "30 columns from NDJSON, typed and identified",
        "rows/CPU-s",
        ours,
        "orjson.loads",
        floor,
    )


def _rates(works: Sequence[tuple[int, Callable[[], object]]]) -> list[float]:
    """Return the best rows a second of CPU time of each of some works.

    They take turns, so that a machine whose pace changes is the same for all; the
    best of a few turns is the one that others disturbed least. What one of them keeps
    in memory is not collected in another's time.
    """
    for _, work in works:
        work()  # warm
    best = [0.0] * len(works)
    gc.disable()
    for _ in range(REPEATS):
        for at, (rows, work) in enumerate(works):
            gc.collect()
            started = time.process_time()
            work()
            best[at] = max(best[at], rows / (time.process_time() - started))
    gc.enable()
    return best


def _spec() -> PipelineSpec:
    features = {
        **{f"n{i}": {"type": "number", "min": -8, "max": 8} for i in range(NUMBERS)},
        **{f"i{i}": {"type": "integer", "min": 0, "max": 99} for i in range(INTEGERS)},
        **{f"c{i}": {"type": "category", "values": SEASONS} for i in range(CATEGORIES)},
    }
    return PipelineSpec.model_validate(
        {
            "name": "bench",
            "task": "regression",
            "data": {"time": "time", "target": "y", "features": features},
        }
    )


def _columns(
    rows: int, broken: float, seed: int = SEED
) -> dict[str, np.ndarray | list[str]]:
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray | list[str]] = {}
    for i in range(NUMBERS):
        values = np.clip(rng.normal(size=rows), -7.9, 7.9)
        values[rng.random(rows) < broken / NUMBERS] = 99.0
        columns[f"n{i}"] = values
    for i in range(INTEGERS):
        columns[f"i{i}"] = rng.integers(0, 100, rows)
    for i in range(CATEGORIES):
        columns[f"c{i}"] = rng.choice(SEASONS, rows).tolist()
    columns["y"] = rng.normal(size=rows)
    return columns


def batch_of(rows: int, broken: float, seed: int = SEED) -> pa.RecordBatch:
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    seconds = np.arange(start, start + rows) * 1_000_000
    own = [
        pa.array([f"row-{n}" for n in range(rows)]),
        pa.array(seconds, pa.int64()).cast(EVENT_TIME_FIELD.type),
        pa.array(["bench"] * rows),
    ]
    columns = _columns(rows, broken, seed)
    arrays = [pa.array(values) for values in columns.values()]
    fields = [pa.field(n, a.type) for n, a in zip(columns, arrays, strict=True)]
    schema = pa.schema([ID_FIELD, EVENT_TIME_FIELD, SOURCE_FIELD, *fields])
    return pa.record_batch([*own, *arrays], schema=schema)


def _json_rows() -> bytes:
    columns = _columns(JSON_ROWS, 0.0)
    names = list(columns)
    plain = [np.asarray(values).tolist() for values in columns.values()]
    return b"\n".join(
        orjson.dumps(
            {
                "id": f"row-{number}",
                "time": "2026-01-01T00:00:00Z",
                **dict(zip(names, values, strict=True)),
            }
        )
        for number, values in enumerate(zip(*plain, strict=True))
    )
