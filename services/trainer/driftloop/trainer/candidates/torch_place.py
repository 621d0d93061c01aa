"""torch on one device: found, made deterministic and bounded."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from driftloop.trainer.candidates.machine import LimitHit, Machine
from driftloop.trainer.candidates.place import Gpu, Place
from driftloop.trainer.graph import Matrix

BFLOAT16_CAPABILITY = 8
"""Major compute capability from which NVIDIA's GPUs multiply bfloat16 (Ampere)."""
CUBLAS_WORKSPACE = ":4096:8"
"""Fixed buffers, without which cuBLAS may sum in another order each time.

Source: https://docs.nvidia.com/cuda/cublas, "Results reproducibility"."""
KEPT_RATIO = 0.5
"""Of a GPU's free memory that the rows may take; more stay in main memory."""


def gpus() -> list[Gpu]:
    """Return the GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    return [
        Gpu(torch.cuda.get_device_name(number), _has_bfloat16(number))
        for number in range(torch.cuda.device_count())
    ]


def _has_bfloat16(number: int) -> bool:
    if torch.version.hip:  # ROCm counts capabilities otherwise; all it supports have it
        return True
    major, _ = torch.cuda.get_device_capability(number)
    return bool(major >= BFLOAT16_CAPABILITY)


def prepare(place: Place, machine: Machine, number: int = 0) -> Any:
    """Make torch deterministic and bounded; return the device.

    Parameters
    ----------
    number : of the process among those that fit together.
    """
    torch.set_num_threads(machine.threads)
    torch.use_deterministic_algorithms(True)
    if not place.device.startswith("cuda"):
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.backends.cudnn.allow_tf32 = False  # float32 is to be float32
    torch.backends.cuda.matmul.allow_tf32 = False
    _, _, named = place.device.partition(":")
    device = torch.device("cuda", int(named or number))
    torch.cuda.set_device(device)
    if machine.gpu_memory_ratio < 1:
        torch.cuda.set_per_process_memory_fraction(machine.gpu_memory_ratio, device)
    return device


def autocast(place: Place) -> AbstractContextManager[Any]:
    """Return a block in which what may be is computed in the place's precision."""
    if place.precision == "float32":
        return nullcontext()
    kind = place.device.partition(":")[0]
    block: AbstractContextManager[Any] = torch.autocast(kind, dtype=torch.bfloat16)
    return block


def rows_on(matrix: Matrix, device: Any) -> Any:
    """Return rows as a tensor, on the device where they leave it room."""
    rows = torch.from_numpy(matrix)
    if device.type != "cuda":
        return rows
    free, _ = torch.cuda.mem_get_info(device)
    return rows.to(device) if matrix.nbytes <= KEPT_RATIO * free else rows


def out_of_memory(error: BaseException) -> LimitHit:
    """Say in words that a GPU's memory is full, and what helps."""
    said = str(error).partition(". ")[0]
    return LimitHit(
        "the training needs more memory than the GPU has free, or than "
        "DRIFTLOOP_TRAINER_MAX_GPU_MEMORY_RATIO leaves it; set a smaller "
        "train.networks.batch_rows, leave other programs off the GPU, or set "
        f"DRIFTLOOP_TRAINER_DEVICE=cpu: {said}"
    )
