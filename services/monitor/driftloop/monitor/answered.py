"""Labelled rows as the monitor keeps them, to say later why an error rose."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
from driftloop.models.columns import Floats, numbers
from driftloop.models.losses import log_losses, squared_or_absolute
from driftloop.models.pairing import Pair, losses_of, target_of

Columns = dict[str, pa.Array]


def answered(
    pairs: Sequence[Pair], metric: str, labeller: str | None
) -> pa.RecordBatch:
    """Return a row for each answer of the champion that has met its label.

    Columns: ``id``, ``event_time``, ``version``, ``labeller`` (null: whoever sent the
    row), ``loss``, and for regression ``target`` and ``said``; else ``target`` as text
    and ``said`` as shares in JSON.
    """
    found = pa.Table.from_batches(list(_by_version(pairs, metric, labeller)))
    (rows,) = found.combine_chunks().to_batches()
    return rows


def _by_version(
    pairs: Sequence[Pair], metric: str, labeller: str | None
) -> Iterator[pa.RecordBatch]:
    def version(pair: Pair) -> int:
        return pair[0].champion_version

    def place(pair: Pair) -> tuple[int, int, str]:
        return version(pair), pair[0].time_us, pair[0].row_id

    for number, group in groupby(sorted(pairs, key=place), key=version):
        alone = list(group)
        is_text = alone[0][1].text is not None
        targets = [target_of(label) for _, label in alone]
        times_us = [said.time_us for said, _ in alone]
        yield pa.RecordBatch.from_pydict(
            {
                "id": [said.row_id for said, _ in alone],
                "event_time": pa.array(times_us, pa.timestamp("us", "UTC")),
                "version": pa.array([number] * len(alone), pa.int64()),
                "labeller": pa.array([labeller] * len(alone), pa.string()),
                "loss": losses_of(alone, "champion", metric),
                "target": pa.array(targets, pa.string() if is_text else None),
                "said": [
                    said.champion_shares if is_text else said.champion
                    for said, _ in alone
                ],
            }
        )


def outcomes(rows: pa.Table) -> tuple[Floats, Floats]:
    """Return labels and answers (n_rows, n_outputs) as numbers.

    The value for regression; the second class's share for two classes; else a share of
    each class.
    """
    if not pa.types.is_string(rows.schema.field("target").type):
        there, here = (numbers(rows.column(name)) for name in ("target", "said"))
        return there[:, None], here[:, None]
    said = [json.loads(text) for text in rows.column("said").to_pylist()]
    classes = list(dict.fromkeys(name for shares in said[:1] for name in shares))
    return _shares(rows.column("target").to_pylist(), said, classes)


def _shares(
    target: Sequence[str], said: Sequence[dict[str, float]], classes: Sequence[str]
) -> tuple[Floats, Floats]:
    kept = classes[1:] if len(classes) == 2 else classes
    there = np.array([[float(label == c) for c in kept] for label in target])
    here = np.array([[shares.get(c, 0.0) for c in kept] for shares in said])
    return there, here


def outcomes_of_sample(
    sample: pa.Table, target: str, metric: str, classes: Sequence[str]
) -> tuple[Floats, Floats, Floats] | None:
    """Return loss, labels and answers of what a version learned from; None: not known.

    The losses are those of rows that were learned: lower than those of new rows.
    """
    names = sample.schema.names
    if target not in names or "prediction" not in names:
        return None
    if "score" not in names:
        truth, said = (
            numbers(sample.column(target)),
            numbers(sample.column("prediction")),
        )
        return squared_or_absolute(metric, truth, said), truth[:, None], said[:, None]
    if not classes:
        return None
    labels = [str(label) for label in sample.column(target).to_pylist()]
    scores = [
        score if isinstance(score, list) else [1 - score, score]
        for score in sample.column("score").to_pylist()
    ]
    shares = [dict(zip(classes, score, strict=False)) for score in scores]
    loss = log_losses(
        np.array([s.get(label, 0.0) for s, label in zip(shares, labels, strict=True)])
    )
    return loss, *_shares(labels, shares, classes)
