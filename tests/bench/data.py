"""Rows a second of one core: reading JSON rows, and checking them by columns."""

import os

# One core for everybody; read when the libraries are first imported.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.rows import EVENT_TIME_FIELD, ID_FIELD, SOURCE_FIELD
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import NDJSON_TYPE, parse
from driftloop.validator.core import check, contract_of

from tests.bench.figures import Figure

PART = "data"
ROWS = 100_000
JSON_ROWS = 20_000
NUMBERS, INTEGERS, CATEGORIES = 24, 3, 3
SEASONS = ["spring", "summer", "autumn", "winter"]
BROKEN_SHARE = 0.01
REPEATS = 7
SEED = 20261121


def run() -> Iterator[Figure]:
    """Measure the part."""
    pa.set_cpu_count(1)
    spec = _spec()
    contract = contract_of(spec, "observations", spec.data.features, None)
    for name, broken in (("all rows right", 0.0), ("1 % broken", BROKEN_SHARE)):
        batch = _batch(ROWS, broken)
        frame = pl.DataFrame(pl.from_arrow(batch))
        ours = _rate(ROWS, partial(check, batch, contract))
        bare = _rate(ROWS, partial(_bare_polars, frame))
        yield Figure(
            PART,
            f"check of 30 columns, {name}",
            "rows/CPU-s",
            ours,
            "bare Polars masks",
            bare,
        )
    lines = _json_rows()
    ours = _rate(
        JSON_ROWS,
        lambda: typed_rows(parse(lines, NDJSON_TYPE), spec, "observations", "bench"),
    )
    floor = _rate(JSON_ROWS, lambda: [orjson.loads(row) for row in lines.split(b"\n")])
    yield Figure(
        PART,
        "30 columns from NDJSON, typed and identified",
        "rows/CPU-s",
        ours,
        "orjson.loads",
        floor,
    )


def _rate(rows: int, work: Callable[[], object]) -> float:
    """Return the median of rows a second of CPU time over a few repeats."""
    work()  # warm
    rates = []
    for _ in range(REPEATS):
        started = time.process_time()  # others on the machine take none of it
        work()
        rates.append(rows / (time.process_time() - started))
    return statistics.median(rates)


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


def _columns(rows: int, broken: float) -> dict[str, np.ndarray | list[str]]:
    rng = np.random.default_rng(SEED)
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


def _batch(rows: int, broken: float) -> pa.RecordBatch:
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    seconds = np.arange(start, start + rows) * 1_000_000
    own = [
        pa.array([f"row-{n}" for n in range(rows)]),
        pa.array(seconds, pa.int64()).cast(EVENT_TIME_FIELD.type),
        pa.array(["bench"] * rows),
    ]
    columns = _columns(rows, broken)
    arrays = [pa.array(values) for values in columns.values()]
    fields = [pa.field(n, a.type) for n, a in zip(columns, arrays, strict=True)]
    schema = pa.schema([ID_FIELD, EVENT_TIME_FIELD, SOURCE_FIELD, *fields])
    return pa.record_batch([*own, *arrays], schema=schema)


def _bare_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that pass the same checks, by nothing but expressions."""
    bad = []
    for name in frame.columns:
        column = pl.col(name)
        if name[0] == "n" and name[1:].isdigit():
            in_range = column.is_between(-8, 8) & column.is_finite()
            bad.append(column.is_null() | ~in_range)
        elif name[0] == "i" and name[1:].isdigit():
            bad.append(column.is_null() | ~column.is_between(0, 99))
        elif name[0] == "c" and name[1:].isdigit():
            bad.append(column.is_null() | ~column.is_in(SEASONS))
    bad.append(pl.col("id").is_duplicated())
    return frame.filter(~pl.any_horizontal(bad))


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
