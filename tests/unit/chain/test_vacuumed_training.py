"""A training of a version that was vacuumed is refused, and says what is kept."""

from pathlib import Path

import pytest
from driftloop.runtime.errors import Reject
from driftloop.trainer.dataset import read_rows

from tests.unit.validator.upkeep import Bench, spec_of


def test_a_vacuumed_version_cannot_be_trained_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spec_of(keep_days=10))
    try:
        kept = bench.batch(0, "a", value=1.0)
        bench.train("i", kept.dataset)
        gone = bench.batch(5, "b")
        for n in range(30):
            bench.batch(11 + n / 10, f"c{n}")
        bench.maintain()  # merges the small files, of which the last version has many
        bench.batch(14, "d")
        bench.maintain()
        data = bench.spec.data
        rows, _ = read_rows(kept.dataset, kept.span, data, None)
        assert rows.num_rows == 1
        with pytest.raises(Reject, match="was vacuumed; kept are"):
            read_rows(gone.dataset, gone.span, data, None)
    finally:
        bench.engine.dispose()
