"""Neural networks: of a row alone, and of the sequences in it. Need torch."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from driftloop.trainer.candidates.network_input import Inputs, learn_inputs
from driftloop.trainer.candidates.sample import CandidateRefused, Sample, target_unit
from driftloop.trainer.candidates.space import Setting
from driftloop.trainer.candidates.torch_fit import EPOCHS, TorchFit, batch_rows
from driftloop.trainer.graph import RAW, Core, Floats, Link, Matrix
from driftloop.trainer.preprocessing.wiring import Drawing

if TYPE_CHECKING:  # imports torch
    from driftloop.trainer.candidates.networks import Network

HIDDEN = [64, 64]
SEQUENCE_WIDTH = 32
DROPOUT = 0.1
LEARNING_RATE = 0.003
WEIGHT_DECAY = 0.01
USUAL = {
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "dropout": DROPOUT,
}
SPACE = (
    Setting("learning_rate", LEARNING_RATE, 3e-4, 0.03),
    Setting("weight_decay", WEIGHT_DECAY, 1e-5, 0.3),
    Setting("dropout", DROPOUT, 0.0, 0.5, is_log=False),
)
SPACES = {"mlp": SPACE, "gru": SPACE, "tcn": SPACE}
WATCHED_SHARE = 0.1
"""Newest share of the rows; the weights that do best on it are kept."""
LEAST_WATCHED = 20
"""Fewer say too little to stop by: then all rows are learned, for all epochs."""
ANSWERED_ROWS = 4096
"""At once, so that what lies between the layers stays small."""


def mlp(sample: Sample) -> Core:
    """Multi-layer perceptron over numbers, their bins, and vectors of categories."""
    networks = _torch_networks(sample)
    inputs = learn_inputs(sample)
    dropout = _settings(sample)["dropout"]
    network = networks.Network(inputs, None, HIDDEN, dropout, _n_outputs(sample))
    return _fitted("mlp", network, inputs, sample)


def gru(sample: Sample) -> Core:
    """Gated recurrent unit over the row's sequences, then the rest of the row."""
    return _sequential("gru", sample)


def tcn(sample: Sample) -> Core:
    """Causal convolutions over the row's sequences, then the rest of the row."""
    return _sequential("tcn", sample)


def _sequential(name: str, sample: Sample) -> Core:
    if not sample.channels:
        raise CandidateRefused(
            f"{name} learns from sequences and the pipeline file names none; name "
            "the columns of at least one, oldest first, under train.sequences"
        )
    networks = _torch_networks(sample)
    inputs = learn_inputs(sample, np.array(sample.channels, dtype=np.int64))
    channels, steps = inputs.channels.shape
    dropout = _settings(sample)["dropout"]
    if name == "gru":
        reader = networks.Gru(channels, SEQUENCE_WIDTH)
    else:
        reader = networks.Tcn(channels, steps, SEQUENCE_WIDTH, dropout)
    network = networks.Network(inputs, reader, HIDDEN, dropout, _n_outputs(sample))
    return _fitted(name, network, inputs, sample)


def _torch_networks(sample: Sample) -> Any:
    """Return the module of networks, with torch's dice thrown by the seed.

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
    from driftloop.trainer.candidates import networks

    torch.manual_seed(sample.seed)
    torch.set_num_threads(sample.threads)
    torch.use_deterministic_algorithms(True)
    return networks


def _settings(sample: Sample) -> dict[str, float]:
    """Return learning rate, weight decay and dropout."""
    return {**USUAL, **sample.parameters}


def _n_outputs(sample: Sample) -> int:
    return len(sample.classes) or 1


def _fitted(name: str, network: "Network", inputs: Inputs, sample: Sample) -> Core:
    """Train a network and return it as the served graph has it."""
    import torch

    centre, spread = 0.0, 1.0
    if not sample.classes:
        centre = float(np.mean(sample.target))
        spread = target_unit(sample.target)
        if not math.isfinite(centre + spread):
            raise CandidateRefused(
                "the target has values that are not finite, or too great to square; "
                "bound it in the pipeline file (checks) or correct it upstream"
            )
    fit = _fit(network, inputs.scaled(sample.matrix), sample, centre, spread)

    def predict(matrix: Matrix) -> Floats:
        scaled = torch.from_numpy(inputs.scaled(matrix))
        raw = _answers(network, scaled)
        if sample.classes:
            return np.asarray(torch.softmax(raw, dim=1).numpy(), dtype=np.float64)
        return np.asarray(raw[:, 0].numpy(), dtype=np.float64) * spread + centre

    drawing = Drawing(name)
    network.wire(drawing, spread, centre, RAW)
    parameters = {
        "hidden": HIDDEN,
        **_settings(sample),
        "max_epochs": EPOCHS,
        "epochs": fit.epoch,
        "best_epoch": fit.best_epoch or fit.epoch,
        "batch_rows": batch_rows(len(sample.matrix)),
        "embedded_categories": [end - first for first, end in inputs.embedded],
    }
    if len(inputs.channels):
        count, steps = inputs.channels.shape
        parameters |= {"width": SEQUENCE_WIDTH, "channels": count, "steps": steps}
    link: Link = "softmax" if sample.classes else "identity"
    return Core(drawing.nodes, drawing.constants, link, predict, parameters)


def _answers(network: "Network", scaled: Any) -> Any:
    """Return the raw answers to rows, without dropout."""
    import torch

    network.module.eval()
    with torch.no_grad():
        found = torch.cat([network(part) for part in scaled.split(ANSWERED_ROWS)])
    network.module.train()
    return found


def _fit(
    network: "Network", scaled: Matrix, sample: Sample, centre: float, spread: float
) -> TorchFit:
    """Train in shuffled batches whose order depends on the seed only."""
    import torch

    rows = torch.from_numpy(scaled)
    if sample.classes:
        of_each: Any = torch.nn.CrossEntropyLoss(reduction="none")
        target = torch.from_numpy(sample.target)
    else:
        of_each = torch.nn.MSELoss(reduction="none")
        normalised = (sample.target - centre) / spread
        target = torch.from_numpy(normalised.astype(np.float32)).reshape(-1, 1)
    watched = int(len(rows) * WATCHED_SHARE)
    kept = len(rows) if watched < LEAST_WATCHED else len(rows) - watched

    weights = torch.ones(len(rows))
    if sample.weights is not None:
        weights = torch.from_numpy(sample.weights.astype(np.float32))

    def loss(answers: Any, some: Any) -> Any:
        return (of_each(answers, target[some]).reshape(-1) * weights[some]).mean()

    def watched_loss() -> float:
        newest = slice(kept, None)
        return float(loss(_answers(network, rows[newest]), newest))

    settings = _settings(sample)
    optimiser = torch.optim.AdamW(
        network.module.parameters(),
        lr=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
    )
    is_watched = kept < len(rows)
    fit = TorchFit(
        network.module, optimiser, kept, sample.seed,
        watched_loss if is_watched else None,
    )  # fmt: skip
    done = fit.resume(sample.watch.saved())
    for batch in fit.batches(done):
        optimiser.zero_grad()
        found = loss(network(rows[batch]), batch)
        found.backward()
        optimiser.step()
        fit.learned()
        sample.watch.after(fit.done, fit.count, found.item, fit.state)
    if is_watched and not math.isfinite(fit.best_loss):
        raise CandidateRefused(
            "its loss was not finite after any epoch; look for values without bounds "
            "among the features and the target"
        )
    fit.finish()
    return fit
