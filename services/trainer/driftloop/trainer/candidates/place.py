"""Where and how a network is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.candidates.sample import CandidateRefused

Precision = Literal["float32", "bfloat16"]
LEAST_SHARED_ROWS = 20_000
"""Fewer are fitted in one process: several take seconds to start."""
FACTS = ("device", "gpu", "precision", "processes", "began_on")
"""Of a network's parameters in the manifest: where it was fitted."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that is there."""

    name: str
    has_bfloat16: bool


@dataclass(frozen=True)
class Place:
    """Where and how one network is fitted.

    Attributes
    ----------
    device : as torch names it.
    gpu : its name; None: there is none.
    processes : more than one: each on a GPU of its own, where it is one.
    """

    device: str
    precision: Precision
    processes: int = 1
    gpu: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says; which of several like GPUs it was makes no odds."""
        found: dict[str, Any] = {
            "device": self.device.partition(":")[0],
            "gpu": self.gpu,
        }
        found |= {"precision": self.precision, "processes": self.processes}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def words(self) -> str:
        """The same for people.

        >>> Place("cuda:1", "bfloat16", 1, "NVIDIA L4").words
        'cuda (NVIDIA L4), bfloat16, processes: 1'
        """
        gpu = f" ({self.gpu})" if self.gpu else ""
        device = self.device.partition(":")[0]
        return f"{device}{gpu}, {self.precision}, processes: {self.processes}"


def place_of(
    machine: Machine, wanted: str, row_count: int, gpus: Sequence[Gpu]
) -> Place:
    """Return where a network of so many rows is fitted.

    Parameters
    ----------
    wanted : ``float32``, ``bfloat16`` or ``auto``: bfloat16 on a GPU that has it.
    gpus : that are there.

    Raises
    ------
    CandidateRefused
        When the settings name what is not there.

    Examples
    --------
    >>> place_of(Machine(device="auto"), "auto", 100, []).words
    'cpu, float32, processes: 1'
    >>> place_of(Machine(device="auto"), "auto", 100, [Gpu("L4", True)]).words
    'cuda (L4), bfloat16, processes: 1'
    """
    processes = machine.processes if row_count >= LEAST_SHARED_ROWS else 1
    device = machine.device
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cpu":
        return Place(
            device, "bfloat16" if wanted == "bfloat16" else "float32", processes
        )
    _, _, number = device.partition(":")
    needed = int(number) + 1 if number else processes
    if needed > len(gpus):
        raise CandidateRefused(
            f"{_named(machine, processes)} and this machine has {_counted(len(gpus))} "
            "that torch can use; set DRIFTLOOP_TRAINER_DEVICE=cpu, or mend the driver"
        )
    if number and processes > 1:
        raise CandidateRefused(
            f"DRIFTLOOP_TRAINER_DEVICE is {device}, one GPU, for {processes} "
            "processes; set it to cuda, or DRIFTLOOP_TRAINER_PROCESSES=1"
        )
    gpu = gpus[int(number or 0)]
    if wanted == "bfloat16" and not gpu.has_bfloat16:
        raise CandidateRefused(
            f"train.networks.precision is bfloat16, which {gpu.name} does not have; "
            "set it to float32"
        )
    is_half = gpu.has_bfloat16 and wanted != "float32"
    return Place(device, "bfloat16" if is_half else "float32", processes, gpu.name)


def _named(machine: Machine, processes: int) -> str:
    if machine.device != "auto" and (processes == 1 or ":" in machine.device):
        return f"DRIFTLOOP_TRAINER_DEVICE is {machine.device}"
    return f"DRIFTLOOP_TRAINER_PROCESSES is {processes}, each needs a GPU of its own,"


def _counted(count: int) -> str:
    return {0: "no GPU", 1: "one GPU"}.get(count, f"{count} GPUs")


def facts_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's parameters say of where it was fitted."""
    return {name: parameters[name] for name in FACTS if name in parameters}
