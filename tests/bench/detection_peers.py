"""Other projects' online detectors over the same wrong answers.

Run as ``python detection_peers.py river|frouros FOLDER`` by an interpreter that has
the project, since they do not live together. Each detector is first set to the wanted
rate of false alarms on streams without a drift: of its settings, from the loosest on,
the first one that keeps it. It begins anew after each of its alarms, as its own
documentation has it.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

WALKS = [15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 80, 100]
"""Thresholds of walks."""
SLOW_ROWS = 20_000
"""Of streams without a drift, for a detector that does a whole test each row."""
SLOW_BEFORE = 500
"""Rows before a drift that such a one is given: more than it keeps."""
SLOW_STREAMS = 5
"""Of so many streams, such a one is asked about one."""
TOO_MANY = 3.0
"""Times the wanted rate: who raises more false alarms whatever it is set to is told of,
and not asked further."""

Make = Callable[[Any], Any]
Found = Callable[[Any, Any], bool]


def river() -> dict[str, tuple[str, list[Any], Make, Found]]:
    """Return river's detectors: setting's name, its values, how to make and to ask."""
    from river import drift
    from river.drift import binary

    def asked(detector: Any, value: Any) -> bool:
        detector.update(value)
        return bool(detector.drift_detected)

    def hddm(kind: Any) -> Make:
        return lambda value: kind(drift_confidence=value)

    small = [a * 10.0**-b for b in range(1, 9) for a in (3, 1)]
    return {
        "ADWIN": ("delta", small, lambda v: drift.ADWIN(delta=v), asked),
        "Page-Hinkley": (
            "threshold", WALKS,
            lambda v: drift.PageHinkley(threshold=v, mode="up"), asked,
        ),
        "DDM": (
            "drift_threshold", [3, 4, 5, 6, 7, 8, 10, 12, 15],
            lambda v: binary.DDM(drift_threshold=v), asked,
        ),
        "EDDM": (
            "beta", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
            lambda v: binary.EDDM(beta=v), asked,
        ),
        "HDDM_A": ("drift_confidence", small, hddm(binary.HDDMA), asked),
        "HDDM_W": ("drift_confidence", small, hddm(binary.HDDMW), asked),
        "KSWIN": (
            "alpha", [1e-3, 1e-4, 1e-5, 1e-6],
            lambda v: drift.KSWIN(alpha=v, seed=0), asked,
        ),
    }  # fmt: skip


def frouros() -> dict[str, tuple[str, list[Any], Make, Found]]:
    """Return those of frouros that river lacks."""
    from frouros.detectors import concept_drift as kinds

    def asked(detector: Any, value: Any) -> bool:
        detector.update(value=value)
        found = bool(detector.status["drift"])
        if found:
            detector.reset()
        return found

    def made(name: str, setting: str) -> Make:
        config, kind = getattr(kinds, f"{name}Config"), getattr(kinds, name)
        return lambda value: kind(config=config(**{setting: value}))

    wanted = {
        "CUSUM": ("lambda_", WALKS),
        "RDDM": ("drift_level", [2.258, 4, 8, 16]),
        "ECDDWT": ("average_run_length", [1000]),  # its longest one
    }
    return {
        name: (setting, values, made(name, setting), asked)
        for name, (setting, values) in wanted.items()
    }


SLOW = {"KSWIN"}


def alarms(detector: Any, ask: Found, values: Iterable[int]) -> list[int]:
    """Return the numbers of the values at which it found a change."""
    return [number for number, value in enumerate(values) if ask(detector, value)]


def calibrated(
    values: list[Any], make: Make, ask: Found, still: list[list[int]], rate: float
) -> tuple[Any, float]:
    """Return the loosest setting that keeps the rate, and the rate that it has."""
    rows = sum(map(len, still))
    first, last, found = 0, len(values) - 1, {}
    while first <= last:
        middle = (first + last) // 2
        count = sum(len(alarms(make(values[middle]), ask, rest)) for rest in still)
        found[middle] = 10_000 * count / rows
        if found[middle] <= rate:
            last = middle - 1
        else:
            first = middle + 1
    chosen = min(first, len(values) - 1)
    return values[chosen], found[chosen]


def main(project: str, folder: Path) -> None:
    """Measure each detector of a project and write what it found."""
    with np.load(folder / "streams.npz") as kept:
        still = [row.astype(int).tolist() for row in kept["still"]]
        moving = np.split(kept["moving"].astype(int), kept["cuts"])
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    told = {}
    for name, (setting, values, make, ask) in {"river": river, "frouros": frouros}[
        project
    ]().items():
        known = still
        if name in SLOW:
            size = SLOW_ROWS // len(still)
            known = [row[:size] for row in still]
        chosen, rate = calibrated(values, make, ask, known, plan["rate"])
        found: list[list[int] | None] = []
        is_hopeless = rate > TOO_MANY * plan["rate"]
        for place, wrong in enumerate(moving):
            last_start = plan["last_starts"][place]
            if is_hopeless or (name in SLOW and place % SLOW_STREAMS):
                found.append(None)
                continue
            skipped = plan["first_start"] - SLOW_BEFORE if name in SLOW else 0
            detector, at = make(chosen), []
            for number, value in enumerate(wrong[skipped:].tolist(), skipped):
                if ask(detector, value):
                    at.append(number)
                    if number >= last_start:
                        break
            found.append(at)
        told[name] = {
            "setting": f"{setting} {chosen:g}",
            "rate": rate,
            "alarms": found,
            "from": plan["first_start"] - SLOW_BEFORE if name in SLOW else 0,
        }
    (folder / f"{project}.json").write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
