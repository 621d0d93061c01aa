"""Whole streams, every row answered before anybody may learn it: the loop and peers.

The loop is a backtest of the example's own policy (:mod:`driftloop.backtest`): the
services' code in simulated time, without Kafka and the time that things take.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.backtest import work
from driftloop.backtest.policies import OWN, Policy
from driftloop.backtest.stream import Rhythm, stream_of
from driftloop.backtest.work import Place
from driftloop.contracts.events import Span
from driftloop.models.onnx_model import Predictions
from driftloop.trainer import core, judging

from tests.bench.examples import Example, Floats, losses_of


@dataclass
class Cost:
    """What an answer to the stream took."""

    trainings: int = 0
    versions: int = 0
    cpu_s: float = 0.0


@dataclass
class Walked:
    """What became of a stream.

    Attributes
    ----------
    losses : (n_rows,) of the rows from the first answer on.
    first : number of the first row that was answered.
    """

    losses: Floats
    first: int
    cost: Cost = field(default_factory=Cost)


def loop(example: Example, folder: Path, batch_rows: int) -> Walked:
    """Walk with the whole loop, as the example's pipeline says."""
    place = Place(folder)
    place.prepare(stream_of(example.rows, example.spec.data.target, Rhythm()))
    policy = Policy(OWN, "pipeline", example.spec)
    rhythm = Rhythm(batch_rows=batch_rows)
    found = work.walk(place, policy, rhythm, lambda *_: None)
    losses = found.losses()
    first = int(np.argmax(np.isfinite(losses)))
    counts = found.counts
    cost = Cost(counts["training"], counts["deployed"], found.cpu_seconds)
    return Walked(losses[first:], first, cost)


def batches(rows: pa.Table, first: int, size: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number of its first row, rows) of what comes from ``first`` on."""
    for start in range(first, rows.num_rows, size):
        yield start, rows.slice(start, size)


def retrained(
    example: Example, first: int, size: int, every: int | None, make: Callable[[], Any]
) -> Walked:
    """Walk with one kind of model that is fitted anew after every so many rows.

    On the pipeline's window up to the newest label, in service at once, whether it is
    better or not; None: never after the first.

    Parameters
    ----------
    make : gives a scikit-learn model.
    """
    found: list[Floats] = []
    cost = Cost()
    step = every or example.rows.num_rows
    for start, asked in batches(example.rows, first, step):
        known = _window(example, start)
        began = time.process_time()
        found.append(
            losses_of(lambda x, y: make().fit(x, y), example.spec, known, asked)
        )
        cost.cpu_s += time.process_time() - began
        cost.trainings += 1
    cost.versions = cost.trainings
    return Walked(np.concatenate(found), first, cost)


def _window(example: Example, count: int) -> pa.Table:
    """Return the rows of the pipeline's window among the first ``count``."""
    known = example.rows.slice(0, count)
    times = known["event_time"]
    labelled = Span(start=times[0].as_py(), end=times[-1].as_py())
    begin, _ = core.plan(labelled, example.spec.train)
    start = pa.scalar(begin.start, times.type)
    return known.filter(pc.greater_equal(times, start))


def adaptive_forest(example: Example, first: int, size: int) -> Walked:
    """Walk with river's adaptive random forest, which learns each row's label.

    With river's own defaults, a batch's labels after the whole batch was answered, as
    everybody gets them; rows before ``first`` are learned from first.
    """
    from river import forest

    spec, cost = example.spec, Cost()
    names = list(spec.data.features)
    is_number = spec.task == "regression"
    kind = forest.ARFRegressor if is_number else forest.ARFClassifier
    model = kind(seed=spec.train.seed)
    rows = example.rows.select([*names, spec.data.target]).to_pylist()
    pairs = [({n: r[n] for n in names}, r[spec.data.target]) for r in rows]
    began = time.process_time()
    for x, y in pairs[:first]:
        model.learn_one(x, y)
    found = []
    classes = tuple(str(c) for c in spec.data.classes or ())
    for start, batch in batches(example.rows, first, size):
        asked = pairs[start : start + batch.num_rows]
        if is_number:
            said = Predictions(np.array([model.predict_one(x) for x, _ in asked]))
        else:
            shares = [model.predict_proba_one(x) for x, _ in asked]
            score = np.array([[s.get(c, 0.0) for c in classes] for s in shares])
            score = score if len(classes) > 2 else score[:, 1]
            said = Predictions(np.array([""] * batch.num_rows), score)
        found.append(judging.row_losses(spec, batch, said, classes))
        for x, y in asked:
            model.learn_one(x, y)
    cost.cpu_s = time.process_time() - began
    return Walked(np.concatenate(found), first, cost)
