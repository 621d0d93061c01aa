"""What a training may use of the machine."""

from dataclasses import dataclass
from pathlib import Path


class LimitHit(Exception):  # noqa: N818 - says what happened
    """A fit may not use more of something, and what helps; no try gets further."""


@dataclass(frozen=True)
class Machine:
    """What a training may use, as the trainer's settings say.

    Attributes
    ----------
    threads : of each process.
    device : of networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    processes : that fit one network together.
    gpu_memory_ratio : of a GPU's memory.
    folder : for files between those processes; None: a temporary one.
    """

    threads: int = 1
    device: str = "cpu"
    processes: int = 1
    gpu_memory_ratio: float = 1.0
    folder: Path | None = None

    @classmethod
    def of(cls, given: "Machine | int") -> "Machine":
        """Return a machine; a number is so many threads of the CPU."""
        return given if isinstance(given, Machine) else cls(threads=given)
