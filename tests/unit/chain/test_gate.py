"""From rows to a verdict: a candidate that became worse on one part is told so."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import ServedModel
from driftloop.registry.gate import Cost, PackageFinding, judge, passes

from tests.unit.trainer.cases import job, spec
from tests.unit.trainer.test_training import Place

TRIED = PackageFinding(cost=Cost(0.5, 1.0, 3.0, 5.0))


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_candidate_worse_on_a_slice_is_rejected_with_words(tmp_path, spoiled) -> None:
    """Its training rows, not the hold-out, have wrong answers for small ones; for the
    other rows it learns a slope that the champion did not know."""
    place = Place(tmp_path, train={"holdout_ratio": 0.4})
    champion = ServedModel(version=3, package=place.package(place.train("one")))
    table = place.table
    kind = table["kind"].fill_null("")
    shift = np.where(np.array(kind) == "small", 0.0, 6.0)  # the world moved, but there
    y = table["y"].to_numpy() + shift
    is_early = np.arange(500) < 300
    if spoiled:
        y = y + np.where(np.array(pc.equal(kind, "small")) & is_early, 4.0, 0.0)
    changed = table.set_column(5, "y", pa.array(y))
    write_deltalake(str(tmp_path / "moved"), changed)
    how = spec(gate={"slices": ["kind"]}, train={"holdout_ratio": 0.4})
    request = job(tmp_path / "moved", changed, how).model_copy(
        update={"champion": champion}
    )
    evaluation = place.train("two", request).evaluation
    assert evaluation.candidate < evaluation.champion  # on the whole it is better
    checks = judge(evaluation, how.gate, TRIED)
    assert passes(checks) is not spoiled
    [slices] = [check for check in checks if check.name == "no_slice_worse"]
    assert slices.passed is not spoiled
    if spoiled:
        assert slices.detail.startswith("worse on kind small: mae 4")
