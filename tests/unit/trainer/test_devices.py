"""Networks on the devices that are here; what is said where one is not.

On a machine with a GPU the same tests run on it too: ``make test-gpu``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from driftloop.runtime.settings import load_settings
from driftloop.trainer import child, fitting
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.candidates.machine import LimitHit, Machine
from driftloop.trainer.candidates.place import Gpu, place_of
from driftloop.trainer.checkpoints import read_checkpoint
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.settings import TrainerSettings

from tests.unit.trainer.cases import rows, spec
from tests.unit.trainer.test_checkpoints import Cut, CutOffError
from tests.unit.trainer.test_networks import sequence_rows, sequence_spec

HAS_TORCH = find_spec("torch") is not None
torch_only = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
L4, OLD = Gpu("NVIDIA L4", has_bfloat16=True), Gpu("Tesla P4", has_bfloat16=False)


def devices() -> list[Any]:
    found = ["cpu"]
    if HAS_TORCH:
        import torch

        found += ["cuda"] if torch.cuda.is_available() else []
    return [pytest.param(name, marks=[pytest.mark.torch, torch_only]) for name in found]


@pytest.fixture(params=devices())
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(device=request.param)


def fit(machine: Machine, precision: str = "float32", **more: Any) -> Fitted:
    how = spec(train={"networks": {"precision": precision, **more}})
    return fitting.fit("mlp", rows(600).slice(0, 500), how, machine)


def error_of(fitted: Fitted) -> float:
    rest = rows(600).slice(500)
    truth = fitting.target_of(rest, spec()).values
    said = fitted.loaded().predict(rest).prediction
    return float(np.mean(np.abs(said - truth)) / np.std(truth))


# ── on each device ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_learns_and_is_exported_in_float32(
    machine: Machine, precision: str
) -> None:
    """And the same fit gives the same bytes; parity is checked inside."""
    fitted = fit(machine, precision)
    assert error_of(fitted) < 0.2
    assert fitted.parity is not None
    assert fitted.parity <= fitting.PARITY_TOLERANCE
    assert fitted.parameters["device"] == machine.device
    assert fitted.parameters["precision"] == precision
    assert fit(machine, precision).model == fitted.model


def test_bfloat16_is_really_used(machine: Machine) -> None:
    assert fit(machine, "bfloat16").model != fit(machine).model


def test_auto_is_float32_on_the_cpu() -> None:
    if not HAS_TORCH:
        pytest.skip("torch is not installed")
    fitted = fit(Machine(device="cpu"), "auto")
    assert fitted.parameters["precision"] == "float32"
    assert fitted.parameters["processes"] == 1


@pytest.mark.parametrize("name", ["gru", "tcn"])
def test_a_sequence_is_learned_in_bfloat16(machine: Machine, name: str) -> None:
    how = sequence_spec(networks={"precision": "bfloat16"})
    table = sequence_rows(700)
    fitted = fitting.fit(name, table.slice(0, 600), how, machine)
    rest = table.slice(600)
    truth = fitting.target_of(rest, how).values
    said = fitted.loaded().predict(rest).prediction
    assert np.mean((said - truth) ** 2) < 0.2 * np.var(truth)


def test_a_checkpoint_is_of_the_cpu_and_resumed_to_the_same_bytes(
    machine: Machine, tmp_path: Path
) -> None:
    from safetensors.torch import load

    def cut(at: int | None) -> Fitted:
        how = spec(train={"networks": {"precision": "bfloat16"}})
        watch = Cut(path, at)
        return fitting.fit("mlp", rows(300), how, machine, watch)

    path = tmp_path / "it.checkpoint"
    how = spec(train={"networks": {"precision": "bfloat16"}})
    whole = fitting.fit("mlp", rows(300), how, machine).model
    with pytest.raises(CutOffError):
        cut(17)
    kept = read_checkpoint(path)
    assert kept is not None
    assert {t.device.type for t in load(kept.state).values()} == {"cpu"}
    again = cut(None)
    assert again.model == whole
    assert "began_on" not in again.parameters


@pytest.mark.torch
@torch_only
def test_a_fit_that_goes_on_elsewhere_says_where_it_began(tmp_path: Path) -> None:
    path = tmp_path / "it.checkpoint"
    half = spec(train={"networks": {"precision": "bfloat16"}})
    with pytest.raises(CutOffError):
        fitting.fit("mlp", rows(300), half, 1, Cut(path, 17))
    found = fitting.fit("mlp", rows(300), spec(), 1, Cut(path)).parameters
    assert found["precision"] == "float32"
    assert found["began_on"] == "cpu, bfloat16, processes: 1"


@pytest.mark.torch
@torch_only
def test_a_batch_is_as_large_as_the_file_says() -> None:
    fitted = fit(Machine(), batch_rows=32)
    assert fitted.parameters["batch_rows"] == 32
    assert fit(Machine()).parameters["batch_rows"] == 64
    assert fit(Machine()).model != fitted.model


# ── what is not there ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("machine", "gpus", "words"),
    [
        (Machine(device="cuda"), [], "DRIFTLOOP_TRAINER_DEVICE is cuda .* no GPU"),
        (Machine(device="cuda:1"), [L4], "DEVICE is cuda:1 .* one GPU that"),
        (Machine(device="cuda", processes=3), [L4, L4], "PROCESSES is 3, .* 2 GPUs"),
        (Machine(device="auto", processes=2), [L4], "PROCESSES is 2, .* one GPU that"),
        (Machine(device="cuda:0", processes=2), [L4, L4], "one GPU, for 2 processes"),
    ],
)
def test_a_machine_without_what_is_asked_is_told(
    machine: Machine, gpus: list[Gpu], words: str
) -> None:
    with pytest.raises(CandidateRefused, match=words):
        place_of(machine, "auto", 10**6, gpus)


def test_precision_goes_by_what_the_device_has() -> None:
    def found(device: str, wanted: str, *gpus: Gpu) -> str:
        return place_of(Machine(device=device), wanted, 100, gpus).words

    assert found("auto", "auto") == "cpu, float32, processes: 1"
    assert found("auto", "auto", L4) == "cuda (NVIDIA L4), bfloat16, processes: 1"
    assert found("auto", "float32", L4) == "cuda (NVIDIA L4), float32, processes: 1"
    assert found("cuda:1", "auto", L4, OLD).startswith("cuda (Tesla P4), float32")
    assert found("cpu", "bfloat16", L4) == "cpu, bfloat16, processes: 1"
    with pytest.raises(CandidateRefused, match="Tesla P4 does not have"):
        found("cuda", "bfloat16", OLD)


def test_settings_that_mean_nothing_are_refused() -> None:
    for good in ("auto", "cpu", "cuda", "cuda:3"):
        assert load_settings(TrainerSettings, "trainer", device=good).device == good
    with pytest.raises(ValueError, match=r"DEVICE|device"):
        load_settings(TrainerSettings, "trainer", device="gpu")
    text = "{{name: x, task: regression, data: {{target: y}}, train: {{networks: {}}}}}"
    parse_pipeline(text.format("{precision: bfloat16, batch_rows: 8}"))
    for wrong in ("{precision: float16}", "{batch_rows: 0}"):
        with pytest.raises(PipelineFileError, match="networks"):
            parse_pipeline(text.format(wrong))


@pytest.mark.torch
@torch_only
def test_a_gpu_that_is_full_ends_the_job_with_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from driftloop.trainer.candidates.networks import Network

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ..."
        )

    monkeypatch.setattr(Network, "__call__", full)
    with pytest.raises(LimitHit) as caught:
        fit(Machine())
    said = child.failure(caught.value, 16)
    assert said["type"] == "limit"
    for words in ("train.networks.batch_rows", "DEVICE=cpu", "CUDA out of memory"):
        assert words in said["error"]
    assert "16 GiB" not in said["error"]  # it is not the machine's memory that is full
