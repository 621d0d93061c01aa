"""river's online detectors by name, as functions of a whole stream of values.

Each looks at one value after the other and says where it found a change; what they are
and what their settings mean is in river's own pages. Needs the extra ``river``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Name = Literal["adwin", "kswin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w"]
ON_ERRORS: tuple[Name, ...] = ("ddm", "eddm")
"""Look at answers that are right or wrong, not at numbers."""
ON_RATIOS: tuple[Name, ...] = ("hddm_a", "hddm_w")
"""Look at numbers from 0 to 1."""


def detector(name: Name, settings: Mapping[str, Any] | None = None) -> Any:
    """Return one of river's detectors, with its defaults but for ``settings``.

    Raises
    ------
    ValueError
        When there is none of this name.
    """
    from river import drift  # brings scikit-learn along
    from river.drift import binary

    kinds = {
        "adwin": drift.ADWIN,
        "kswin": drift.KSWIN,
        "page_hinkley": drift.PageHinkley,
        "ddm": binary.DDM,
        "eddm": binary.EDDM,
        "hddm_a": binary.HDDMA,
        "hddm_w": binary.HDDMW,
    }
    if name not in kinds:
        raise ValueError(f"no detector {name}; there are {', '.join(sorted(kinds))}")
    own: dict[str, dict[str, Any]] = {
        "kswin": {"seed": 0},
        "page_hinkley": {"mode": "up"},
    }
    return kinds[name](**(own.get(name, {}) | dict(settings or {})))


def alarms(
    name: Name,
    values: Sequence[float] | npt.NDArray[Any],
    settings: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Yield the numbers of the values at which the detector found a change.

    A change to less is one, too, for those that look both ways.

    Examples
    --------
    >>> next(alarms("adwin", [0.0] * 500 + [1.0] * 500)) // 100
    5
    """
    watching = detector(name, settings)
    is_switch = name in ON_ERRORS
    for number, value in enumerate(np.asarray(values, dtype=np.float64).tolist()):
        watching.update(bool(value) if is_switch else value)
        if watching.drift_detected:
            yield number
