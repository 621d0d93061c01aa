"""Other projects' window reports over the same rows: how far each window is away.

Run as ``python detection_window_peers.py NAME FOLDER`` by an interpreter that has the
project. Writes one score for each window, greater for more drift, and the CPU seconds
of a report; what is an alarm is decided where all of them are compared.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
warnings.filterwarnings("ignore")
MAX_SECONDS = 200.0

Score = Callable[[Any, Any], list[float]]
"""From the reference (n_rows, n_columns) and windows (n, n_rows, n_columns)."""


def _frame(rows: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, columns=[f"n{i}" for i in range(rows.shape[1])])


def evidently(reference: Any, windows: Any) -> list[float]:
    """Data drift preset with KS tests: least p-value of the columns, each window."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    found, began, known = [], time.perf_counter(), _frame(reference)
    for window in windows:
        if time.perf_counter() - began > MAX_SECONDS:
            break
        made = Report([DataDriftPreset(method="ks")]).run(_frame(window), known).dict()
        values = [
            metric["value"]
            for metric in made["metrics"]
            if isinstance(metric["value"], float) and "column" in metric["config"]
        ]
        found.append(-float(np.log10(max(min(values), 1e-300))))
    return found


def _chunks(calculator: Any, windows: Any) -> Any:
    """Return a calculator's table of all windows, each a chunk, in one call."""
    rows = _frame(windows.reshape(-1, windows.shape[2]))
    return calculator.calculate(rows).filter(period="analysis").to_df()


def nannyml_ks(reference: Any, windows: Any) -> list[float]:
    """Univariate drift: the greatest Kolmogorov-Smirnov distance of the columns."""
    import nannyml

    known = _frame(reference)
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(known.columns),
        continuous_methods=["kolmogorov_smirnov"],
        chunk_size=windows.shape[1],
    ).fit(known)
    found = _chunks(calculator, windows)
    columns = [found[n]["kolmogorov_smirnov"]["value"] for n in known.columns]
    greatest: list[float] = np.max(np.array(columns, dtype=float), axis=0).tolist()
    return greatest


def nannyml_reconstruction(reference: Any, windows: Any) -> list[float]:
    """Multivariate drift: the change of the error of a reconstruction by PCA."""
    import nannyml

    known = _frame(reference)
    calculator = nannyml.DataReconstructionDriftCalculator(
        column_names=list(known.columns), chunk_size=windows.shape[1]
    ).fit(known)
    usual = calculator.calculate(known).filter(period="analysis").to_df()
    mean = float(usual["reconstruction_error"]["value"].mean())
    found = _chunks(calculator, windows)["reconstruction_error"]["value"]
    return np.abs(found.to_numpy(dtype=float) - mean).tolist()


def frouros_mmd(reference: Any, windows: Any) -> list[float]:
    """frouros's maximum mean discrepancy with its defaults, on 500 rows of each."""
    from frouros.detectors.data_drift import MMD

    detector = MMD()
    detector.fit(X=reference[: windows.shape[1]])
    return [float(detector.compare(X=window)[0].distance) for window in windows]


NAMES: dict[str, Score] = {
    "evidently": evidently,
    "nannyml_ks": nannyml_ks,
    "nannyml_reconstruction": nannyml_reconstruction,
    "frouros_mmd": frouros_mmd,
}


def main(name: str, folder: Path) -> None:
    """Score all windows, or as many as the time is enough for."""
    with np.load(folder / "windows.npz") as kept:
        reference, windows = kept["reference"], kept["windows"]
    NAMES[name](reference, windows[:1])  # what is made at the first call is not timed
    began = time.process_time()
    found = NAMES[name](reference, windows)
    seconds = (time.process_time() - began) / max(len(found), 1)
    told = {"scores": found, "seconds": seconds}
    (folder / f"{name}.json").write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
