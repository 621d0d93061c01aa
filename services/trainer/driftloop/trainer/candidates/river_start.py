"""Where one of river's models begins to learn, and what it leaves to the next one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from driftloop.trainer.candidates.river_state import StateRefused, loaded, saved
from driftloop.trainer.candidates.sample import Sample, cannot_go_on
from driftloop.trainer.graph import Matrix, State

STATE_FILE = "continue.river.json"


def begun(
    sample: Sample, fresh: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Return what is to learn, and the number of the first row to learn.

    Parameters
    ----------
    fresh : by name, what has learned nothing yet.
    facts : plain values that what was learned before must have had.

    Raises
    ------
    CandidateRefused
        When the sample's start is not of such a model, with the reason.
    """
    if sample.start is None:
        return dict(fresh), 0
    try:
        return _checked(loaded(sample.start.state), fresh, facts), sample.start.first
    except StateRefused as error:
        raise cannot_go_on(error) from error


def _checked(
    found: Any, fresh: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what was learned before, if it is of this candidate, learned alike."""
    if type(found) is not dict or set(found) != {"facts", *fresh}:
        raise StateRefused("it is of another candidate")
    for name, value in fresh.items():
        if type(found[name]) is not type(value):
            raise StateRefused(f"its {name} is a {type(found[name]).__name__}")
    had = found.pop("facts")
    if type(had) is not dict:
        raise StateRefused("it does not say how it was learned")
    if changed := [name for name, value in facts.items() if had.get(name) != value]:
        raise StateRefused(f"it was learned with another {', '.join(changed)}")
    return found


def kept(
    sample: Sample, learned: Mapping[str, Any], facts: Mapping[str, Any]
) -> State | None:
    """Return the state of what has learned, where the sample asks for it."""
    if not sample.keeps_state:
        return None
    try:
        return State(STATE_FILE, saved({"facts": dict(facts), **learned}))
    except StateRefused as error:
        return State(STATE_FILE, b"", f"its state is not kept: {error}")


def facts_of(sample: Sample, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has to be the same for a model to go on."""
    return {
        **parameters,
        "seed": sample.seed,
        "number of columns": sample.matrix.shape[1],
        "set of classes": ", ".join(sample.classes),
    }


def rows_of(matrix: Matrix, medians: Matrix) -> list[dict[int, float]]:
    """Return rows as river has them, with what is missing filled."""
    filled = np.where(np.isnan(matrix), medians, matrix)
    return [dict(enumerate(row)) for row in filled.tolist()]


def learn_rows(
    sample: Sample,
    learn_one: Callable[[dict[int, float], Any], Any],
    medians: Matrix,
    first: int,
    targets: Sequence[Any] | None = None,
) -> None:
    """Learn the sample's rows from the first on, one after the other.

    Parameters
    ----------
    targets : of all rows; None: the sample's own.
    """
    wanted = sample.target.tolist() if targets is None else targets
    rows = rows_of(sample.matrix[first:], medians)
    for number, row in enumerate(rows, start=first):
        learn_one(row, wanted[number])
        sample.watch.after(number + 1 - first, len(rows))
