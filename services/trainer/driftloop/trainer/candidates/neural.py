"""Neural networks: of a row alone, and of the sequences in it. Need torch."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from driftloop.runtime.telemetry import log
from driftloop.trainer.candidates.network_input import Inputs, Positions
from driftloop.trainer.candidates.place import Place, place_of
from driftloop.trainer.candidates.sample import CandidateRefused, Sample, cannot_go_on
from driftloop.trainer.candidates.space import Setting
from driftloop.trainer.candidates.torch_fit import EPOCHS, TorchFit
from driftloop.trainer.graph import RAW, Core, Floats, Link, Matrix
from driftloop.trainer.preprocessing.wiring import Drawing

if TYPE_CHECKING:  # imports torch
    from driftloop.trainer.candidates.network_start import Beginning
    from driftloop.trainer.candidates.networks import Network
    from driftloop.trainer.candidates.torch_learning import Lesson

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
CPU = "cpu"
logger = log(__name__)


def mlp(sample: Sample) -> Core:
    """Multi-layer perceptron over numbers, their bins, and vectors of categories."""
    networks = _torch_networks(sample)
    begin = _begun("mlp", sample)
    dropout = _settings(sample)["dropout"]
    network = networks.Network(begin.inputs, None, HIDDEN, dropout, _n_outputs(sample))
    return _fitted("mlp", network, begin, sample)


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
    begin = _begun(name, sample, np.array(sample.channels, dtype=np.int64))
    channels, steps = begin.inputs.channels.shape
    dropout = _settings(sample)["dropout"]
    if name == "gru":
        reader = networks.Gru(channels, SEQUENCE_WIDTH)
    else:
        reader = networks.Tcn(channels, steps, SEQUENCE_WIDTH, dropout)
    network = networks.Network(
        begin.inputs, reader, HIDDEN, dropout, _n_outputs(sample)
    )
    return _fitted(name, network, begin, sample)


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
    return networks


def _begun(name: str, sample: Sample, channels: Positions | None = None) -> "Beginning":
    from driftloop.trainer.candidates import network_start

    begin = network_start.begun(name, sample, channels)
    if not math.isfinite(begin.centre + begin.spread):
        raise CandidateRefused(
            "the target has values that are not finite, or too great to square; "
            "bound it in the pipeline file (checks) or correct it upstream"
        )
    return begin


def _settings(sample: Sample) -> dict[str, float]:
    """Return learning rate, weight decay and dropout."""
    return {**USUAL, **sample.parameters}


def _n_outputs(sample: Sample) -> int:
    return len(sample.classes) or 1


def _fitted(name: str, network: "Network", begin: "Beginning", sample: Sample) -> Core:
    """Train a network and return it as the served graph has it."""
    import torch
    from driftloop.trainer.candidates import network_start
    from driftloop.trainer.candidates.torch_learning import answers

    inputs, centre, spread = begin.inputs, begin.centre, begin.spread
    begin.put_into(network.module)
    fit, place = _fit(name, network, begin, sample)

    def predict(matrix: Matrix) -> Floats:
        scaled = torch.from_numpy(inputs.scaled(matrix))
        raw = answers(network, scaled, CPU)
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
        "batch_rows": fit.batch_rows,
        "embedded_categories": [end - first for first, end in inputs.embedded],
        **place.facts,
    }
    if fit.began_on != place.words:
        parameters["began_on"] = fit.began_on
    if len(inputs.channels):
        count, steps = inputs.channels.shape
        parameters |= {"width": SEQUENCE_WIDTH, "channels": count, "steps": steps}
    link: Link = "softmax" if sample.classes else "identity"
    state = network_start.kept(name, sample, network.module, begin)
    return Core(drawing.nodes, drawing.constants, link, predict, parameters, state)


def _fit(
    name: str, network: "Network", begin: "Beginning", sample: Sample
) -> tuple[TorchFit, Place]:
    """Train in shuffled batches whose order depends on the seed only.

    The network comes back to the CPU, with the weights that did best.
    """
    from driftloop.trainer.candidates import torch_learning, torch_place
    from driftloop.trainer.candidates.torch_learning import Lesson

    count, settings = len(sample.matrix), _settings(sample)
    place = place_of(
        sample.machine, sample.networks.precision, count, torch_place.gpus()
    )
    logger.info("fitting a network", rows=count, **place.facts)
    inputs, centre, spread = begin.inputs, begin.centre, begin.spread
    weights = np.ones(count) if sample.weights is None else sample.weights
    lesson = Lesson(
        inputs.scaled(sample.matrix),
        sample.target
        if sample.classes
        else torch_learning.target_as(sample.target, centre, spread),
        weights.astype(np.float32),
        _learned_rows(count, begin),
        sample.seed,
        settings["learning_rate"],
        settings["weight_decay"],
        sample.networks.batch_rows,
    )
    machine = replace(sample.machine, threads=sample.threads)
    device = torch_place.prepare(place, machine)
    if place.processes > 1:
        fit = _fit_by_several(name, network, inputs, lesson, place, sample)
    else:
        fit = torch_learning.learn(network, lesson, place, device, sample.watch)
    if torch_learning.is_lost(fit, lesson):
        raise CandidateRefused(
            "its loss was not finite after any epoch; look for values without bounds "
            "among the features and the target"
        )
    fit.finish()
    network.to(CPU)
    return fit, place


def _learned_rows(count: int, begin: "Beginning") -> int:
    """Return how many rows are learned; those after them say which weights are best.

    They are none that the weights at the beginning have learned.
    """
    watched = int(count * WATCHED_SHARE)
    if begin.weights is None:
        return count if watched < LEAST_WATCHED else count - watched
    newer = count - begin.first
    if newer < LEAST_WATCHED:
        raise cannot_go_on(
            f"{newer} rows are newer than what it has learned, and {LEAST_WATCHED} are "
            "needed to see when to stop"
        )
    return count - min(max(watched, LEAST_WATCHED), newer)


def _fit_by_several(
    name: str,
    network: "Network",
    inputs: Inputs,
    lesson: "Lesson",
    place: Place,
    sample: Sample,
) -> TorchFit:
    """Train in several processes on this machine."""
    from driftloop.trainer.candidates import torch_ranks

    job = torch_ranks.RankJob(
        kind=name,
        hidden=HIDDEN,
        width=SEQUENCE_WIDTH,
        dropout=_settings(sample)["dropout"],
        n_outputs=_n_outputs(sample),
        embedded=list(inputs.embedded),
        kept=lesson.kept,
        seed=lesson.seed,
        learning_rate=lesson.learning_rate,
        weight_decay=lesson.weight_decay,
        batch_rows=lesson.batch_rows,
        device=place.device,
        precision=place.precision,
        processes=place.processes,
        gpu=place.gpu,
        threads=sample.threads,
        gpu_memory_ratio=sample.machine.gpu_memory_ratio,
        pace_s=torch_ranks.PACE_S,
    )
    return torch_ranks.learn(network, job, inputs, lesson, sample.machine, sample.watch)
