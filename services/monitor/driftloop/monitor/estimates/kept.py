"""Rows of a window as they are kept until their labels land: features and answers.

A kept table has the features, ``event_time``, the rows' ids, and columns of our own
whose names begin with a dot, which no feature's does. Of classes the shares of all are
kept; the schema's metadata names them.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import BatchScored
from driftloop.models.columns import Floats, numbers, texts
from driftloop.models.pairing import CLASSES_METADATA_KEY, Pair
from driftloop.monitor.estimates.arrays import Rows
from driftloop.monitor.feature_drift import Kind
from driftloop.monitor.labelling.encoding import points
from driftloop.monitor.skew import ID, PREDICTION, VERSION

MAX_KEPT_ROWS = 500
"""Of one window, evenly taken from more."""
MAX_WIDTH = 40
"""Columns of points, those that go with the loss; more rows than this are needed."""
SAID, LABEL, BY = ".said", ".label", ".version"
RIVAL_SAID, RIVAL_VERSION = ".rival_said", ".rival_version"
CLASSES, RIVAL_CLASSES = b"classes", b"rival_classes"
TIME = "event_time"


def answers(event: BatchScored) -> pa.RecordBatch:
    """Return the answers of a scored batch: ids, times, both versions' words."""
    rows = event.rows
    columns: dict[str, pa.Array] = {
        ID: rows.column(ID),
        PREDICTION: rows.column("champion_prediction"),
        VERSION: pa.repeat(event.champion_version, rows.num_rows),
        TIME: rows.column(TIME),
    }
    metadata: dict[bytes, bytes] = {}
    columns[SAID], classes = _said(rows, "champion")
    if classes:
        metadata[CLASSES] = classes
    if "candidate_prediction" in rows.schema.names and event.candidate_version:
        columns[RIVAL_SAID], classes = _said(rows, "candidate")
        if classes:
            metadata[RIVAL_CLASSES] = classes
        columns[RIVAL_VERSION] = pa.repeat(event.candidate_version, rows.num_rows)
    return pa.RecordBatch.from_pydict(columns, metadata=metadata or None)


def _said(rows: pa.RecordBatch, role: str) -> tuple[pa.Array, bytes | None]:
    """Return (n_rows,) numbers, or lists of the shares of all classes."""
    name = f"{role}_score"
    if name not in rows.schema.names:
        return rows.column(f"{role}_prediction").cast(pa.float64()), None
    field = rows.schema.field(name)
    classes: bytes = (field.metadata or {})[CLASSES_METADATA_KEY]
    return _shares(rows.column(name)), classes


def _shares(column: pa.Array) -> pa.Array:
    """Return (n_rows,) lists of the shares of all classes."""
    if pa.types.is_list(column.type):
        return column
    second = numbers(column)
    both = np.column_stack([1 - second, second]).ravel()
    ends = np.arange(0, 2 * len(second) + 1, 2, dtype=np.int32)
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(both))
    return pc.if_else(column.is_valid(), lists, pa.scalar(None, lists.type))


def together(slices: Sequence[pa.Table]) -> pa.Table:
    """Return the answers of several batches, oldest first, with one order of classes.

    Batches differ in it where versions do, or where only some had a candidate beside.
    """
    tables, metadata = list(slices), {}
    for name, key in ((SAID, CLASSES), (RIVAL_SAID, RIVAL_CLASSES)):
        own = [_named(table, key) for table in tables]
        order = list(dict.fromkeys(label for names in reversed(own) for label in names))
        if not order:
            continue
        metadata[key] = json.dumps(order).encode()
        tables = [
            _in_order(table, name, names, order) if names else table
            for table, names in zip(tables, own, strict=True)
        ]
    bare = [table.replace_schema_metadata(None) for table in tables]
    found = pa.concat_tables(bare, promote_options="permissive")
    return found.replace_schema_metadata(metadata or None)


def _named(rows: pa.Table, key: bytes) -> list[str]:
    said = (rows.schema.metadata or {}).get(key)
    return [str(label) for label in json.loads(said)] if said else []


def _in_order(
    rows: pa.Table, name: str, own: Sequence[str], order: Sequence[str]
) -> pa.Table:
    """Return the rows with their lists of shares in another order of classes."""
    if list(own) == list(order):
        return rows
    column = rows[name].combine_chunks()
    values = numbers(column.flatten()).reshape(-1, len(own))
    moved = np.zeros((len(values), len(order)))
    moved[:, [order.index(label) for label in own]] = values
    is_known = np.asarray(column.is_valid())
    ends = np.concatenate([[0], np.cumsum(is_known)]).astype(np.int32) * len(order)
    lists = pa.ListArray.from_arrays(
        pa.array(ends), pa.array(moved.ravel()), mask=pc.invert(column.is_valid())
    )
    return rows.set_column(rows.schema.get_field_index(name), name, lists)


def labels(pairs: Sequence[Pair], *, is_number: bool) -> pa.RecordBatch:
    """Return labels that have landed: ids and values."""
    values = [label.number if is_number else label.text for _, label in pairs]
    kind = pa.float64() if is_number else pa.string()
    ids = pa.array([said.row_id for said, _ in pairs], pa.string())
    return pa.RecordBatch.from_arrays([ids, pa.array(values, kind)], [ID, LABEL])


def joined(
    said: pa.Table, inputs: pa.Table, kinds: Mapping[str, Kind], *, is_number: bool
) -> pa.Table:
    """Return the answered rows whose inputs are known, evenly taken from many."""
    finite = pc.fill_null(pc.is_valid(said[SAID]), fill_value=False)
    if is_number:
        finite = pc.and_(finite, pc.fill_null(pc.is_finite(said[SAID]), False))
    said = said.filter(finite)
    places = pc.index_in(said[ID], value_set=inputs[ID].combine_chunks())
    found = pc.is_valid(places)
    said, places = said.filter(found), places.filter(found)
    if said.num_rows > MAX_KEPT_ROWS:
        even = np.linspace(0, said.num_rows - 1, MAX_KEPT_ROWS).astype(np.int64)
        said, places = said.take(pa.array(even)), places.take(pa.array(even))
    names = [n for n in kinds if n in inputs.schema.names and n != TIME]
    rows = inputs.select(names).take(places)
    for name in said.schema.names:
        own = BY if name == VERSION else name
        if name != PREDICTION:
            rows = rows.append_column(
                said.schema.field(name).with_name(own), said[name]
            )
    kind = pa.float64() if is_number else pa.string()
    rows = rows.append_column(LABEL, pa.nulls(rows.num_rows, kind))
    return rows.replace_schema_metadata(said.schema.metadata)


def with_labels(kept: pa.Table, landed: pa.Table) -> pa.Table:
    """Return kept rows with those labels that are theirs; a first label holds."""
    places = pc.index_in(kept[ID], value_set=landed[ID].combine_chunks())
    new = landed[LABEL].take(places)
    at = kept.schema.get_field_index(LABEL)
    both = pc.coalesce(kept[LABEL], new)
    return kept.set_column(at, LABEL, both)


def judged(
    holdout: pa.Table, target: str, classes: Sequence[str], version: int
) -> pa.Table | None:
    """Return a package's hold-out rows as kept rows of its version; None: unusable."""
    names = set(holdout.schema.names)
    answer = "score" if classes else "prediction"
    if not {ID, TIME, target, answer} <= names or not holdout.num_rows:
        return None
    own = {target, "prediction", "score"}
    rows = holdout.select([n for n in holdout.schema.names if n not in own])
    metadata: dict[bytes, bytes] | None = None
    if classes:
        said, label = _shares(holdout[answer].combine_chunks()), texts(holdout[target])
        metadata = {CLASSES: json.dumps(list(classes)).encode()}
    else:
        said = holdout[answer].cast(pa.float64())
        label = pa.array(numbers(holdout[target]), from_pandas=True)
    rows = rows.append_column(SAID, said)
    rows = rows.append_column(BY, pa.repeat(version, rows.num_rows))
    rows = rows.append_column(LABEL, label)
    return rows.filter(pc.is_valid(rows[LABEL])).replace_schema_metadata(metadata)


def labelled_count(kept: pa.Table) -> int:
    count: int = kept.num_rows - kept[LABEL].null_count
    return count


def of_version(kept: pa.Table, version: int) -> pa.Table | None:
    """Return the labelled rows that a version answered, as champion or beside it.

    In columns as if it had been champion; None: it answered none.
    """
    found, by = kept, pc.unique(kept[BY]).to_pylist()
    if kept[LABEL].null_count:
        found = kept.filter(pc.is_valid(kept[LABEL]))
    own = found
    if by != [version]:
        own = found.filter(pc.equal(found[BY], version))
    if own.num_rows:
        return _plain(own)
    if RIVAL_VERSION not in found.schema.names:
        return None
    rival = found.filter(
        pc.and_(pc.equal(found[RIVAL_VERSION], version), pc.is_valid(found[RIVAL_SAID]))
    )
    if not rival.num_rows:
        return None
    metadata = dict(rival.schema.metadata or {})
    classes = metadata.get(RIVAL_CLASSES)
    at = rival.schema.get_field_index(SAID)
    rival = rival.set_column(at, SAID, rival[RIVAL_SAID])
    at = rival.schema.get_field_index(BY)
    rival = rival.set_column(at, BY, rival[RIVAL_VERSION])
    rival = rival.replace_schema_metadata({CLASSES: classes} if classes else None)
    return _plain(rival)


def _plain(rows: pa.Table) -> pa.Table:
    own = [n for n in (RIVAL_SAID, RIVAL_VERSION) if n in rows.schema.names]
    metadata = {k: v for k, v in (rows.schema.metadata or {}).items() if k == CLASSES}
    return rows.drop_columns(own).replace_schema_metadata(metadata or None)


def classes_of(rows: pa.Table) -> tuple[str, ...]:
    """Return the labels in the order of the shares; none for a regression."""
    return tuple(_named(rows, CLASSES))


def shares_of(rows: pa.Table, classes: Sequence[str]) -> Floats:
    """Return what was said: (n_rows,) numbers, or (n_rows, n_classes) in that order."""
    column = rows[SAID].combine_chunks()
    own = classes_of(rows)
    if not own:
        return numbers(column)
    values = numbers(column.flatten()).reshape(rows.num_rows, len(own))
    if own == tuple(classes):
        return values
    places = {label: number for number, label in enumerate(own)}
    result = np.zeros((rows.num_rows, len(classes)))
    for number, label in enumerate(classes):
        if label in places:
            result[:, number] = values[:, places[label]]
    return result


def truth_of(rows: pa.Table, classes: Sequence[str]) -> npt.NDArray[np.generic]:
    """Return (n_rows,) the target, or the number of each row's class; unknown: -1."""
    if not classes:
        return numbers(rows[LABEL])
    order = pa.array([str(label) for label in classes], pa.string())
    places = pc.index_in(texts(rows[LABEL]), value_set=order)
    found: npt.NDArray[np.int64] = (
        pc.fill_null(places, -1).cast(pa.int64()).to_numpy(zero_copy_only=False)
    )
    return found


def arrays(
    known: Sequence[pa.Table],
    ages: Sequence[float],
    window: pa.Table,
    kinds: Mapping[str, Kind],
) -> tuple[Rows, Rows]:
    """Return labelled rows and the window's as arrays on one scale.

    Parameters
    ----------
    known : tables of labelled rows, each of one window.
    ages : how many windows ago each of them was.
    """
    classes = classes_of(window)
    basis = pa.concat_tables(
        [t.replace_schema_metadata(None) for t in known], promote_options="permissive"
    )
    mine, theirs = points(basis, [basis, window], kinds)
    varies = mine.std(axis=0) > 0
    mine, theirs = mine[:, varies], theirs[:, varies]
    said = np.concatenate([shares_of(table, classes) for table in known])
    truth = np.concatenate([truth_of(table, classes) for table in known])
    age = np.repeat(np.array(ages, np.float64), [t.num_rows for t in known])
    if mine.shape[1] > MAX_WIDTH:
        wrong = _wrongness(said, truth)
        best = np.argsort(-_going_with(mine, wrong), kind="stable")[:MAX_WIDTH]
        mine, theirs = mine[:, np.sort(best)], theirs[:, np.sort(best)]
    return Rows(mine, said, truth, age), Rows(theirs, shares_of(window, classes))


def _wrongness(said: Floats, truth: npt.NDArray[np.generic]) -> Floats:
    if said.ndim == 1:
        return np.abs(said - truth.astype(np.float64))
    given = said[np.arange(len(said)), np.maximum(truth.astype(np.int64), 0)]
    result: Floats = 1 - given
    return result


def _going_with(points_: Floats, values: Floats) -> Floats:
    """Return (width,) absolute correlations."""
    centred = points_ - points_.mean(axis=0)
    other = values - values.mean()
    scale = np.linalg.norm(centred, axis=0) * max(float(np.linalg.norm(other)), 1e-12)
    result: Floats = np.abs(centred.T @ other) / np.maximum(scale, 1e-12)
    return result
