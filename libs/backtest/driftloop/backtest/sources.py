"""Recorded rows from where they lie: a dataset version, a Delta table, a file."""

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.backtest.arrivals import with_arrivals
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.stream import LABEL_TIME
from driftloop.contracts.base import NAME_PATTERN
from driftloop.contracts.events import TableRef
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.core import typed_rows
from driftloop.ingest.errors import FormatError
from driftloop.ingest.formats import CSV_TYPE, PARQUET_TYPE, parse
from driftloop.runtime.data.reading import DatasetError, joined, read_table
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.settings import Settings, load_settings
from driftloop.validator.core import check, contract_of
from driftloop.validator.inference import FIRST_ROWS, Learned, learn

FORMATS = {".csv": CSV_TYPE, ".parquet": PARQUET_TYPE}
SOURCE = "recorded"
_DATASET = re.compile(
    rf"(?P<name>{NAME_PATTERN[1:-1]})@(?P<version>latest|\d+(\.\d+)?)$"
)


def read_rows(source: str, spec: PipelineSpec, home: Path) -> tuple[pa.Table, int]:
    """Return good rows with their targets, and how many were left out.

    Parameters
    ----------
    source : ``NAME@VERSION`` of a dataset below ``home`` (``bike-demand@730.365``, or
        ``@latest``), a Delta table (a folder or an address, with ``@VERSION`` or
        without), a CSV or a Parquet file.

    Returns
    -------
    tuple
        The rows, of a dataset with the columns that tell how they and their labels
        came (see :func:`stream.stream_of`), and how many rows were left out, as the
        pipeline refuses them.

    Raises
    ------
    BacktestError
        When there is nothing like that, or its rows are not the pipeline's.
    """
    path = Path(source)
    if path.suffix.lower() in FORMATS and path.is_file():
        rows, refused = _file(path, spec)
        return _checked(rows, spec, source), refused
    settings = load_settings(Settings, "backtest", home=home)
    options = storage_options(settings)
    if named := _DATASET.match(source):
        rows = _dataset(settings, named["name"], named["version"], spec)
        return _checked(rows, spec, source), 0
    place, _, version = source.rpartition("@")
    if not version.isdigit():
        place, version = source, ""
    if "://" not in place and not (Path(place) / "_delta_log").is_dir():
        raise BacktestError(
            f"no recorded data at {source!r}; name a dataset (bike-demand@latest), a "
            "Delta table's folder or address, or a .csv or .parquet file"
        )
    where = place if "://" in place else str(Path(place).resolve())
    number = int(version) if version else _newest(where, options)
    found = _arrow(_table(TableRef(uri=where, version=number), options))
    return _checked(found, spec, source), 0


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def _newest(uri: str, options: Mapping[str, str] | None) -> int:
    try:
        table = DeltaTable(uri, storage_options=dict(options) if options else None)
    except (DeltaError, OSError) as error:
        raise BacktestError(
            f"{uri} cannot be read as a Delta table: {error}"
        ) from error
    return int(table.version())


def _table(ref: TableRef, options: Mapping[str, str] | None) -> pl.DataFrame:
    try:
        return read_table(ref, options)
    except DatasetError as error:
        raise BacktestError(str(error)) from error


def _file(path: Path, spec: PipelineSpec) -> tuple[pa.Table, int]:
    """Return a file's rows as the door and the validator would let them through."""
    try:
        parsed = parse(path.read_bytes(), FORMATS[path.suffix.lower()])
    except FormatError as error:
        raise BacktestError(f"{path}: {error}") from error
    typed = typed_rows(parsed, spec, "observations", SOURCE)
    batches = typed.table.combine_chunks().to_batches()
    if not batches:
        raise BacktestError(f"{path} has no row with a readable {spec.data.time}")
    first = batches[0].slice(0, FIRST_ROWS)
    learned = learn(Learned(), first, spec, "observations")
    features = spec.data.features or learned.features
    classes = spec.data.classes or learned.classes or None
    contract = contract_of(spec, "observations", features, classes)
    found = check(batches[0], contract)
    if found.good is None:
        told = "; ".join(f"{r.field}: {r.detail}" for r in found.reasons[:3])
        raise BacktestError(f"{path}: no row keeps the pipeline's contract: {told}")
    bad = found.bad.num_rows if found.bad is not None else 0
    return pa.Table.from_batches([found.good]), bad + len(typed.bad)


def _dataset(
    settings: Settings, name: str, version: str, spec: PipelineSpec
) -> pa.Table:
    """Return a pipeline's rows with the newest label of each, and how they came."""
    if name != spec.name:
        raise BacktestError(
            f"{name} is another pipeline's dataset; the file is of {spec.name!r}"
        )
    options = storage_options(settings)
    first, _, second = version.partition(".")
    uris = [table_uri(settings, name, kind) for kind in ("observations", "labels")]
    number = int(first) if first.isdigit() else _newest(uris[0], options)
    observations = TableRef(uri=uris[0], version=number)
    rows = _table(observations, options)
    target = spec.data.target
    if target not in rows.columns:
        rows = rows.with_columns(pl.lit(None).alias(target))
    label_table = _label_table(uris[1], version, second, options)
    if label_table is None:
        found = with_arrivals(rows, None, (observations, None), target, options)
        return _arrow(found)
    labels = _table(label_table, options).sort("revision", maintain_order=True)
    came = labels.unique("id", keep="first", maintain_order=True)
    tables = observations, label_table
    told = with_arrivals(rows, came, tables, target, options)
    if LABEL_TIME not in told.columns:
        came = came.select("id", pl.col("event_time").alias(LABEL_TIME))
        told = rows.join(came, on="id", how="left", maintain_order="left")
    newest = labels.unique("id", keep="last").select("id", target)
    return _arrow(joined(told, newest, target))


def _label_table(
    uri: str, version: str, number: str, options: Mapping[str, str] | None
) -> TableRef | None:
    """Return the table of labels; None: targets came with the rows."""
    if version == "latest":
        try:
            return TableRef(uri=uri, version=_newest(uri, options))
        except BacktestError:
            return None
    return TableRef(uri=uri, version=int(number)) if number else None


def _checked(rows: pa.Table, spec: PipelineSpec, source: str) -> pa.Table:
    """Return the columns that matter, or say which are missing."""
    wanted = ["id", "event_time", spec.data.target, *spec.data.features]
    missing = [name for name in wanted if name not in rows.column_names]
    if missing:
        raise BacktestError(
            f"{source} lacks {', '.join(missing)}; it has "
            f"{', '.join(rows.column_names)}"
        )
    if not rows.num_rows:
        raise BacktestError(f"{source} has no rows")
    if "source" not in rows.column_names:
        rows = rows.append_column("source", pa.repeat(SOURCE, rows.num_rows))
    if "extra" in rows.column_names:
        rows = rows.drop_columns(["extra"])
    place = rows.column_names.index("event_time")
    times = rows["event_time"].cast(pa.timestamp("us", tz="UTC"))
    texts = {
        name: rows[name].cast(pa.string())
        for name in rows.column_names
        if _is_other_text(rows[name].type)
    }
    rows = rows.set_column(place, "event_time", times)
    for name, column in texts.items():
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _is_other_text(kind: pa.DataType) -> bool:
    """Whether a column is text in another form than the validator writes."""
    return bool(pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))
