"""What overrulings teach: how often a cause was right, and a bounded prior of it.

Pure; the monitor weighs by it and the registry shows it, both from the same events.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from driftloop.contracts.events import CAUSES, Cause

MAX_PRIOR = 1.5
"""A cause's weight is multiplied or divided by at most so much: people can tip a
verdict that was close, and never hide one that the data are sure of."""
PRIOR_COUNT = 4
"""Overrulings that count as none: one person's word moves a prior by a fifth."""

Overrulings = Iterable[tuple[Cause, Cause]]
"""(the verdict's cause, the person's cause)"""


def prior(overrulings: Overrulings) -> dict[Cause, float]:
    """Return the factor of each cause's weight, 1 / MAX_PRIOR to MAX_PRIOR.

    >>> prior([("concept_drift", "label_fault")])["label_fault"]
    1.25
    >>> prior([("concept_drift", "label_fault")] * 40)["concept_drift"]
    0.6666666666666666
    """
    said, meant = Counter[Cause](), Counter[Cause]()
    for was, became in overrulings:
        if was != became:
            said[was] += 1
            meant[became] += 1
    found: dict[Cause, float] = {}
    for cause in CAUSES:
        factor = (PRIOR_COUNT + meant[cause]) / (PRIOR_COUNT + said[cause])
        if factor != 1:
            found[cause] = min(max(factor, 1 / MAX_PRIOR), MAX_PRIOR)
    return found


@dataclass(frozen=True, slots=True)
class Precision:
    """How often a cause was right as far as people said.

    Attributes
    ----------
    told : verdicts of this cause.
    overruled : of them.
    missed : verdicts of other causes that people said were this one.
    precision : share not overruled; silence counts as consent.
    """

    cause: Cause
    told: int
    overruled: int
    missed: int
    precision: float


def precisions(told: Iterable[Cause], overrulings: Overrulings) -> list[Precision]:
    """Return each cause that was told or meant, the most frequent first."""
    counts = Counter(told)
    pairs = [(a, b) for a, b in overrulings if a != b]
    overruled, missed = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    causes = sorted({*counts, *missed}, key=lambda c: (-counts[c], c))
    return [
        Precision(
            cause,
            counts[cause],
            overruled[cause],
            missed[cause],
            1 - overruled[cause] / counts[cause] if counts[cause] else 0.0,
        )
        for cause in causes
    ]


def last_word(overrulings: Iterable[tuple[str, Cause, Cause]]) -> Mapping[str, Cause]:
    """Return by verdict the cause that holds: the last person's."""
    return {verdict: cause for verdict, _, cause in overrulings}
