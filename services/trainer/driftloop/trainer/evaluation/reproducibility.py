"""Whether the same rows and the same seed give the same model, byte for byte."""

from collections.abc import Callable

import pyarrow as pa
from driftloop.contracts.measures import Reproducibility

MAX_ROWS = 2000
"""Of the newest training rows, which the candidate is fitted on twice more."""


def check(rows: pa.Table, fit: Callable[[pa.Table], bytes]) -> Reproducibility:
    """Fit twice on the newest rows and compare the graphs' bytes.

    Parameters
    ----------
    rows : training rows in order of time.
    fit : trains the chosen candidate and returns its graph.

    Source: Pineau et al. (2021), Improving Reproducibility in Machine Learning
    Research, JMLR 22(164): the same data, code and seed give the same result.
    """
    newest = rows.slice(max(0, rows.num_rows - MAX_ROWS))
    return Reproducibility(same=fit(newest) == fit(newest), row_count=newest.num_rows)
