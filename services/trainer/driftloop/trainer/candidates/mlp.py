"""A small neural network; torch is imported only here."""

from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.trainer.candidates.linear import (
    apply_standard,
    standard_nodes,
    standardised,
)
from driftloop.trainer.candidates.sample import CandidateRefused, Sample, target_unit
from driftloop.trainer.candidates.torch_fit import BATCH_ROWS, EPOCHS, TorchFit
from driftloop.trainer.graph import RAW, Core, Floats, Link, Matrix, constant
from onnx import NodeProto, TensorProto, helper

NETWORK: dict[str, Any] = {
    "hidden": [64, 64],
    "epochs": EPOCHS,
    "batch_rows": BATCH_ROWS,
    "learning_rate": 0.003,
    "weight_decay": 1e-4,
}


def mlp(sample: Sample) -> Core:
    """Two hidden layers with ReLU, Adam with weight decay, standardised input.

    Raises
    ------
    CandidateRefused
        When torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise CandidateRefused(
            "torch is not installed; install driftloop-trainer[torch]"
        ) from error
    torch.manual_seed(sample.seed)
    torch.set_num_threads(sample.threads)
    torch.use_deterministic_algorithms(True)
    standard = standardised(sample.matrix)
    n_outputs = len(sample.classes) or 1
    layers: list[torch.nn.Module] = []
    width = sample.matrix.shape[1]
    for size in NETWORK["hidden"]:
        layers += [torch.nn.Linear(width, size), torch.nn.ReLU()]
        width = size
    network = torch.nn.Sequential(*layers, torch.nn.Linear(width, n_outputs))
    centre, spread = 0.0, 1.0
    if not sample.classes:
        centre = float(np.mean(sample.target))
        spread = target_unit(sample.target)
    _fit(network, apply_standard(sample.matrix, *standard), sample, centre, spread)
    weights = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in network
        if isinstance(layer, torch.nn.Linear)
    ]

    def predict(matrix: Matrix) -> Floats:
        with torch.no_grad():
            raw = network(torch.from_numpy(apply_standard(matrix, *standard)))
        if sample.classes:
            return np.asarray(torch.softmax(raw, dim=1).numpy(), dtype=np.float64)
        return np.asarray(raw[:, 0].numpy(), dtype=np.float64) * spread + centre

    nodes, constants = standard_nodes(*standard, "mlp/scaled")
    more_nodes, more_constants = _layers(weights, centre, spread)
    link: Link = "softmax" if sample.classes else "identity"
    return Core(
        nodes + more_nodes, constants + more_constants, link, predict, dict(NETWORK)
    )


def _fit(
    network: Any, scaled: Matrix, sample: Sample, centre: float, spread: float
) -> None:
    """Train in shuffled batches whose order depends on the seed only."""
    import torch

    rows = torch.from_numpy(scaled)
    if sample.classes:
        loss: Any = torch.nn.CrossEntropyLoss()
        target = torch.from_numpy(sample.target)
    else:
        loss = torch.nn.MSELoss()
        normalised = (sample.target - centre) / spread
        target = torch.from_numpy(normalised.astype(np.float32)).reshape(-1, 1)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=NETWORK["learning_rate"],
        weight_decay=NETWORK["weight_decay"],
    )
    fit = TorchFit(network, optimiser, len(rows), sample.seed)
    done = fit.resume(sample.watch.saved())
    for batch in fit.batches(done):
        optimiser.zero_grad()
        found = loss(network(rows[batch]), target[batch])
        found.backward()
        optimiser.step()
        sample.watch.after(fit.done, fit.count, found.item, fit.state)


def _layers(
    weights: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    centre: float,
    spread: float,
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the network's nodes, with the target's scale put back at the end."""
    nodes, constants, source = [], [], "mlp/scaled"
    for number, (weight, bias) in enumerate(weights):
        is_last = number == len(weights) - 1
        scale, shift = (spread, centre) if is_last else (1.0, 0.0)
        names = [f"mlp/weight{number}", f"mlp/bias{number}"]
        constants += [
            constant(names[0], weight * scale),
            constant(names[1], bias * scale + shift),
        ]
        output = RAW if is_last else f"mlp/linear{number}"
        nodes.append(helper.make_node("Gemm", [source, *names], [output], transB=1))
        if not is_last:
            source = f"mlp/layer{number}"
            nodes.append(helper.make_node("Relu", [output], [source]))
    return nodes, constants
