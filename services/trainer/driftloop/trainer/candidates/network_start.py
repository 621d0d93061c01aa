"""Where a network begins: at random, or at the weights that the champion left.

What is kept is numbers in safetensors: the weights, how columns are scaled and cut,
and the target's centre and spread, without which the weights mean nothing. A network
that goes on learns all rows of its window again, from there; which weights are best is
watched on rows that those it began with have not learned.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from driftloop.trainer.candidates.network_input import (
    EMBEDDED_CATEGORIES,
    Bins,
    Inputs,
    Positions,
    learn_inputs,
)
from driftloop.trainer.candidates.sample import (
    Sample,
    cannot_go_on,
    target_unit,
)
from driftloop.trainer.graph import State
from safetensors import SafetensorError
from safetensors.torch import load, save

STATE_FILE = "continue.safetensors"
MAX_STATE_BYTES = 32 * 1024 * 1024
WEIGHTS, INPUT = "weights.", "input."
TARGET, FACTS = "target", "facts"
FORM = 1


class _Misfit(ValueError):  # noqa: N818 - says what happened
    """A state is not of this network, and why."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """What a fit begins with.

    Attributes
    ----------
    centre, spread : of the target, as the network sees it; 0 and 1 of classes.
    weights : by name; None: thrown by the seed.
    first : row from which the weights have learned none; 0 without weights.
    """

    inputs: Inputs
    centre: float
    spread: float
    weights: dict[str, Any] | None = None
    first: int = 0

    def put_into(self, network: Any) -> None:
        """Load the weights.

        Raises
        ------
        CandidateRefused
            When they are of a network of another shape.
        """
        if self.weights is None:
            return
        wanted = {n: (v.shape, v.dtype) for n, v in network.state_dict().items()}
        found = {n: (v.shape, v.dtype) for n, v in self.weights.items()}
        if wanted != found:
            raise cannot_go_on("its weights are of a network of another shape")
        network.load_state_dict(self.weights)


def begun(name: str, sample: Sample, channels: Positions | None = None) -> Beginning:
    """Return where the sample says to begin.

    Raises
    ------
    CandidateRefused
        When its start is not of such a network, or the target cannot be learned.
    """
    if sample.start is not None:
        try:
            return _loaded(name, sample, sample.start.state, sample.start.first)
        except (_Misfit, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise cannot_go_on(error) from error
    centre, spread = 0.0, 1.0
    if not sample.classes:
        centre, spread = float(np.mean(sample.target)), target_unit(sample.target)
    return Beginning(learn_inputs(sample, channels), centre, spread)


def kept(name: str, sample: Sample, network: Any, begin: Beginning) -> State | None:
    """Return the state of a network that has learned, where the sample asks for it."""
    if not sample.keeps_state:
        return None
    inputs = begin.inputs
    arrays: dict[str, Any] = {
        "medians": inputs.medians, "means": inputs.means, "scales": inputs.scales,
        "numbers": inputs.numbers, "channels": inputs.channels,
        "bins.column": inputs.bins.column, "bins.low": inputs.bins.low,
        "bins.inverse": inputs.bins.inverse,
    }  # fmt: skip
    tensors = {
        f"{INPUT}{key}": torch.from_numpy(np.ascontiguousarray(value))
        for key, value in arrays.items()
    }
    weights = network.state_dict()
    tensors |= {f"{WEIGHTS}{n}": v.detach().clone() for n, v in weights.items()}
    tensors[TARGET] = torch.tensor([begin.centre, begin.spread], dtype=torch.float64)
    facts = json.dumps(_facts(name, sample), sort_keys=True).encode()
    tensors[FACTS] = torch.tensor([*facts], dtype=torch.uint8)
    data: bytes = save(tensors)
    if len(data) > MAX_STATE_BYTES:
        mib = len(data) / 1024**2
        why = f"its state is not kept: {mib:.0f} MiB, at most 32 are"
        return State(STATE_FILE, b"", why)
    return State(STATE_FILE, data)


def _facts(name: str, sample: Sample) -> dict[str, Any]:
    """Return what has to be the same for a network to go on."""
    return {
        "form": FORM,
        "algorithm": name,
        "number of columns": sample.matrix.shape[1],
        "set of classes": list(sample.classes),
        "set of embedded categories": [list(pair) for pair in _embedded(sample)],
        "set of sequences": [list(columns) for columns in sample.channels],
    }


def _embedded(sample: Sample) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a, b in sample.groups if b - a > EMBEDDED_CATEGORIES)


def _loaded(name: str, sample: Sample, state: bytes, first: int) -> Beginning:
    if len(state) > MAX_STATE_BYTES:
        raise _Misfit("it is too large")
    tensors = load(state)
    had = json.loads(bytes(tensors.pop(FACTS).tolist()))
    wanted = _facts(name, sample)
    if not isinstance(had, dict) or set(had) != set(wanted):
        raise _Misfit("it does not say how it was learned")
    if changed := [key for key, value in wanted.items() if had[key] != value]:
        raise _Misfit(f"it was learned with another {', '.join(changed)}")
    centre, spread = (float(value) for value in tensors.pop(TARGET))
    weights = _part(tensors, WEIGHTS)
    values = [*tensors.values(), torch.tensor([centre, spread])]
    if not all(bool(torch.isfinite(value).all()) for value in values) or spread <= 0:
        raise _Misfit("it has values that are not finite")
    arrays = {key: value.numpy() for key, value in _part(tensors, INPUT).items()}
    width = sample.matrix.shape[1]
    return Beginning(
        _inputs(arrays, _embedded(sample), width), centre, spread, weights, first
    )


def _inputs(
    arrays: dict[str, Any], embedded: tuple[tuple[int, int], ...], width: int
) -> Inputs:
    """Return what was kept of the columns, if it can be of so many."""
    for key in ("medians", "means", "scales"):
        if arrays[key].shape != (width,) or arrays[key].dtype != np.float32:
            raise _Misfit(f"its {key} are not of these columns")
    bins = Bins(arrays["bins.column"], arrays["bins.low"], arrays["bins.inverse"])
    shapes = {bins.column.shape, bins.low.shape, bins.inverse.shape}
    if len(shapes) > 1 or bins.column.ndim != 1 or arrays["numbers"].ndim != 1:
        raise _Misfit("its bins are not whole")
    for positions in (bins.column, arrays["numbers"], arrays["channels"]):
        if positions.dtype != np.int64:
            raise _Misfit("its columns have no numbers")
        if positions.size and not 0 <= positions.min() <= positions.max() < width:
            raise _Misfit("it names columns that are not there")
    if not (arrays["scales"] > 0).all():
        raise _Misfit("its scales are not above 0")
    return Inputs(
        arrays["medians"], arrays["means"], arrays["scales"], arrays["numbers"],
        bins, embedded, arrays["channels"],
    )  # fmt: skip


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(prefix)
    }
