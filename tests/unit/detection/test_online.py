"""river's detectors by name."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from driftloop.detection.online import Name, alarms, detector


@pytest.mark.parametrize("name", get_args(Name))
def test_each_finds_a_great_rise_of_wrong_answers(name: Name) -> None:
    dice = np.random.default_rng(0)
    wrong = dice.random(2_400) < np.repeat([0.05, 0.9], [1_200, 1_200])
    settings = {"kswin": {"alpha": 1e-6}, "page_hinkley": {"threshold": 20}}.get(name)
    found = list(alarms(name, wrong, settings))
    assert any(1_200 <= at < 1_700 for at in found)


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no detector cusum; there are adwin"):
        detector("cusum")  # type: ignore[arg-type]
