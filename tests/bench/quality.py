"""How good the models are: against scikit-learn's defaults, and over whole streams.

Losses, lower is better, so a ratio below 1 is better than the peer. The same rows for
everybody: first single trainings, each judged on the rows after it; then each example
from its first row to its last, every row answered before it is learned from.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, Span, TableRef, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import core, fitting, judging, losses, training
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Environment, Trained
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.bench import prequential
from tests.bench.examples import Example, Floats, load_example, losses_of
from tests.bench.figures import Figure

PART = "quality"
SINGLES = ["gradient_boosting", "random_forest", "linear"]
if find_spec("torch") is not None:
    SINGLES.append("mlp")
TRAININGS = {"bike-demand": (90.0, 5), "rain": (3650.0, 5)}
"""Days of a training's window with its hold-out, and how many trainings, evenly set."""
HOLDOUT_RATIO = 0.15
STREAMS = {"bike-demand": (24, (168, 720, 2160)), "rain": (30, (365, 1825))}
"""Rows of a batch, and rows between two trainings by the calendar."""
CALENDAR: dict[str, dict[str, dict[str, Any]]] = {
    "bike-demand": {
        "train": {
            "window_days": 180, "recency_half_life_days": [30], "holdout_days": 7,
            "refit": True,
        },
        "retrain": {"every_rows": 168},
        "gate": {"non_inferiority_margin": 0.3},
        "rollout": {"shadow_rows": 24, "steps": [], "max_loss_ratio": 1.25},
    },
    "rain": {
        "train": {"holdout_days": 730, "refit": True},
        "retrain": {"every_rows": 365},
        "gate": {"non_inferiority_margin": 0.1},
        "rollout": {"shadow_rows": 60, "steps": []},
    },
}  # fmt: skip
"""What the loop that trains as often as the best calendar changes of the example."""
SKLEARN = f"scikit-learn {version('scikit-learn')}"
RIVER = f"river {version('river')}"


def run() -> Iterator[Figure]:
    """Measure the part."""
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in TRAININGS:
        yield from single_trainings(name)
    for name in STREAMS:
        yield from whole_stream(name)


# ── single trainings ────────────────────────────────────────────────────────


def defaults(task: str) -> dict[str, Callable[[], Any]]:
    """Return what scikit-learn gives without a word, where it needs one: a seed."""
    if task == "regression":
        return {
            "gradient boosting": lambda: HistGradientBoostingRegressor(random_state=0),
            "random forest": lambda: RandomForestRegressor(random_state=0),
            "ridge": lambda: _scaled(Ridge()),
        }
    return {
        "gradient boosting": lambda: HistGradientBoostingClassifier(random_state=0),
        "random forest": lambda: RandomForestClassifier(random_state=0),
        "logistic regression": lambda: _scaled(LogisticRegression()),
    }


def _scaled(model: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), model)


def single_trainings(name: str) -> Iterator[Figure]:
    """Yield the chosen model against defaults and against each single candidate."""
    days, count = TRAININGS[name]
    example = load_example(name)
    spec = example.with_train(
        candidates=SINGLES,
        ensembles=["average", "stacking"],
        window_days=days,
        holdout_ratio=HOLDOUT_RATIO,
    )
    ours: list[Floats] = []
    theirs: dict[str, list[Floats]] = {}
    singles: dict[str, list[Floats]] = {}
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        for number, trained in enumerate(
            _trainings(example, spec, days, count, Path(folder))
        ):
            known, asked = trained.split.training, trained.split.holdout
            ours.append(_losses(trained.chosen, asked, spec))
            for label, make in defaults(spec.task).items():
                found = losses_of(
                    lambda x, y, m=make: m().fit(x, y), spec, known, asked
                )
                theirs.setdefault(label, []).append(found)
            for candidate in SINGLES:
                fitted = fitting.fit(candidate, known, spec, 1)
                found = _losses(fitted, asked, spec)
                singles.setdefault(candidate, []).append(found)
            label = f"{name}, training {number + 1}: {trained.chosen.name}"
            best = min(theirs, key=lambda n: float(np.mean(theirs[n][-1])))
            yield _figure(label, spec, ours[-1], best, theirs[best][-1])
    mine = np.concatenate(ours)
    for kind, peers in (
        (f"best of {SKLEARN}'s defaults", theirs),
        ("best single candidate", singles),
    ):
        means = {n: float(np.mean(np.concatenate(x))) for n, x in peers.items()}
        best = min(means, key=lambda n: means[n])
        other = np.concatenate(peers[best])
        label = f"{name}, {count} trainings"
        yield _figure(label, spec, mine, f"{kind}: {best}", other)
        compared = losses.paired_comparison(mine, other)
        errors = compared.mean_difference / (compared.standard_error or 1.0)
        yield Figure(PART, f"{label}, difference to {best}", "standard errors", errors)


def _trainings(
    example: Example, spec: PipelineSpec, days: float, count: int, folder: Path
) -> Iterator[Trained]:
    """Yield trainings whose newest rows are evenly spread over the stream."""
    write_deltalake(str(folder / "rows"), example.rows)
    times = example.rows["event_time"]
    first, last = times[0].as_py(), times[-1].as_py()
    start = first + (last - first) * 0.2
    for number in range(count):
        end = start + (last - start) * (number + 1) / count
        train_span, holdout_span = core.plan(Span(start=first, end=end), spec.train)
        request = JobRequest(
            job_id=f"job-{number}",
            trigger=Trigger(event_id="bench", event_type="bench", reason="bench"),
            spec=spec,
            dataset=DatasetRef(
                observations=TableRef(uri=str(folder / "rows"), version=0)
            ),
            train_span=train_span,
            holdout_span=holdout_span,
        )
        work = folder / request.job_id
        work.mkdir()
        using = Environment(
            FolderStore(folder / "artifacts"), TrustedKeys([]), None, 1, work
        )
        yield training.train(request, using, lambda *_: None)


def _losses(fitted: fitting.Fitted, rows: Any, spec: PipelineSpec) -> Floats:
    return judging.row_losses(spec, rows, fitted.loaded().predict(rows), fitted.classes)


def _figure(
    label: str, spec: PipelineSpec, mine: Floats, peer: str, other: Floats
) -> Figure:
    return Figure(
        PART, label, spec.metric, float(np.mean(mine)), peer, float(np.mean(other))
    )


# ── whole streams ───────────────────────────────────────────────────────────


def whole_stream(name: str) -> Iterator[Figure]:
    """Yield the loops' mean losses over a stream, and what everybody's answers cost.

    One loop is the example's own, which waits for a reason; the other one trains by the
    calendar, too, on the newest rows (see ``CALENDAR``).
    """
    example, (batch_rows, every) = load_example(name), STREAMS[name]
    loops = {
        "the loop": walked_loop(example, batch_rows),
        "the loop by the calendar": walked_loop(
            example.changed(CALENDAR[name]), batch_rows
        ),
    }
    first = loops["the loop"].first
    peers = {
        f"{RIVER}'s adaptive random forest": prequential.adaptive_forest(
            example, first, batch_rows
        )
    }
    boosting = f"{SKLEARN}'s gradient boosting"
    for rows in (None, *every):
        how = "never trained again" if rows is None else f"anew each {rows} rows"
        peers[f"{boosting}, {how}"] = prequential.retrained(
            example, first, batch_rows, rows,
            defaults(example.spec.task)["gradient boosting"],
        )  # fmt: skip
    label = f"{name}, whole stream"
    for who, loop in loops.items():
        for peer, walked in peers.items():
            both = min(
                len(loop.losses), len(walked.losses)
            )  # a first model may be late
            yield _figure(
                f"{label}, {who}", example.spec, loop.losses[-both:],
                peer, walked.losses[-both:],
            )  # fmt: skip
    for who, walked in {**loops, **peers}.items():
        cost = walked.cost
        yield Figure(PART, f"{label}, {who}: trainings", "", float(cost.trainings))
        yield Figure(PART, f"{label}, {who}: learning", "CPU s", cost.cpu_s)


def walked_loop(example: Example, batch_rows: int) -> prequential.Walked:
    """Send an example's rows through the loop."""
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        return prequential.loop(example, Path(folder), batch_rows)
