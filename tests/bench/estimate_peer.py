"""NannyML's estimates of a stream; runs in an environment of its own.

``python estimate_peer.py STREAM.npz``: one JSON line with its estimates of each chunk,
fitted once on the first labelled rows, and fitted anew every few chunks.
"""

import json
import os
import sys
import warnings
from typing import Any

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
warnings.filterwarnings("ignore")

import nannyml  # noqa: E402 - its telemetry has to be off first
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

METRICS = {True: ("accuracy", "roc_auc"), False: ("mae",)}


def frame_of(stream: Any, rows: slice, *, is_class: bool) -> Any:
    """Return rows as NannyML wants them."""
    points = stream["points"][rows]
    frame = pd.DataFrame(points, columns=[f"x{n}" for n in range(points.shape[1])])
    frame["y"] = stream["truth"][rows]
    said = stream["said"][rows]
    if is_class:
        frame["score"], frame["said"] = said, (said >= 0.5).astype(int)
        frame["y"] = frame["y"].astype(int)
    else:
        frame["said"] = said
    return frame


def fitted(frame: Any, chunk: int, *, is_class: bool) -> Any:
    """Return an estimator that has learned from labelled rows."""
    if is_class:
        made = nannyml.CBPE(
            y_pred_proba="score", y_pred="said", y_true="y", chunk_size=chunk,
            metrics=list(METRICS[True]), problem_type="classification_binary",
        )  # fmt: skip
    else:
        names = [name for name in frame.columns if name.startswith("x")]
        made = nannyml.DLE(
            feature_column_names=names, y_pred="said", y_true="y", chunk_size=chunk,
            metrics=list(METRICS[False]),
        )  # fmt: skip
    return made.fit(frame)


def estimated(made: Any, frame: Any, metric: str) -> float:
    """Return its estimate of one chunk."""
    table = made.estimate(frame.drop(columns="y")).filter(period="analysis").to_df()
    return float(table[metric, "value"].iloc[0])


def main() -> None:
    """Print the estimates."""
    stream = np.load(sys.argv[1])
    chunk, first, delay = (int(stream[n]) for n in ("chunk", "first", "delay"))
    most, is_class = int(stream["most"]), bool(stream["is_class"])
    once = fitted(frame_of(stream, slice(0, first), is_class=is_class), chunk,
                  is_class=is_class)  # fmt: skip
    said: dict[str, dict[str, list[float]]] = {
        how: {metric: [] for metric in METRICS[is_class]} for how in ("once", "anew")
    }
    starts = range(first + delay * chunk, len(stream["truth"]) - chunk + 1, chunk)
    for number, start in enumerate(starts):
        end = start - delay * chunk
        asked = frame_of(stream, slice(start, start + chunk), is_class=is_class)
        if number % int(stream["every"]) == 0:
            known = frame_of(stream, slice(max(0, end - most), end), is_class=is_class)
            anew = fitted(known, chunk, is_class=is_class)
        for how, made in (("once", once), ("anew", anew)):
            for metric in METRICS[is_class]:
                said[how][metric].append(estimated(made, asked, metric))
    sys.stdout.write(json.dumps({"version": nannyml.__version__, **said}) + "\n")


if __name__ == "__main__":
    main()
