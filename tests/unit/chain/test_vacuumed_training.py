"""A training of a version that was vacuumed is refused, and says what is kept."""

from pathlib import Path

import pytest
from driftloop.runtime.errors import Reject
from driftloop.trainer.dataset import read_rows

from tests.unit.validator.upkeep import Bench, spec_of


def test_a_vacuumed_version_cannot_be_trained_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spec_of(keep_days=10))
    try:
        kept, gone, _ = [bench.batch(n, f"r{n}", value=1.0) for n in range(3)]
        bench.train("i", kept.dataset)
        bench.maintain()
        data = bench.spec.data
        assert read_rows(kept.dataset, kept.span, data, None).num_rows == 1
        with pytest.raises(Reject, match="was vacuumed; kept are"):
            read_rows(gone.dataset, gone.span, data, None)
    finally:
        bench.engine.dispose()
