"""A fit that is cut off anywhere ends in the same bytes; reports are few and right."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from driftloop.runtime.throttle import Throttle
from driftloop.trainer import child, fitting
from driftloop.trainer.candidates import Checkpoint, Watch
from driftloop.trainer.checkpoints import (
    FitProgress,
    FitWatch,
    read_checkpoint,
    write_checkpoint,
)
from driftloop.trainer.progress import Estimate, fields_of
from driftloop.trainer.worker import Crashed, LimitReached, ended

from tests.unit.trainer.cases import rows, spec

HAS_TORCH = find_spec("torch") is not None
torch_only = [
    pytest.mark.torch,
    pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed"),
]


class CutOffError(Exception):
    """What a kill is to a fit."""


class Cut(FitWatch):
    """Saves each iteration, and ends the fit after some."""

    def __init__(self, path: Path, at: int | None = None) -> None:
        super().__init__("mlp", path, lambda _: None, checkpoint_s=0, report_s=1e9)
        self.at, self.first = at, 0

    def after(
        self,
        iteration: int,
        count: int,
        loss: Callable[[], float] | None = None,
        state: Callable[[], bytes] | None = None,
    ) -> None:
        self.first = self.first or iteration
        super().after(iteration, count, loss, state)
        if iteration == self.at:
            raise CutOffError


class Counting(Watch):
    """Knows the last iteration: a fit ends early when it gets no better."""

    last = 0

    def after(self, iteration: int, *_: object) -> None:
        self.last = iteration


def fit(watch: Watch, task: str = "regression") -> bytes:
    return fitting.fit("mlp", rows(300, task=task), spec(task=task), 1, watch).model


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=torch_only) for t in ("regression", "multiclass")]
)
def test_a_fit_that_is_cut_off_again_and_again_ends_in_the_same_bytes(
    task: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")
    draw = random.Random(seed)
    counting = Counting()
    whole = fit(counting, task)
    path = tmp_path / "mlp.checkpoint"
    half = counting.last // 2
    cuts = sorted(
        [5, draw.randrange(6, half), draw.randrange(half, counting.last)]
    )  # 5 an epoch
    for cut in cuts:
        watch = Cut(path, cut)
        with pytest.raises(CutOffError):
            fit(watch, task)
    last = Cut(path)
    assert fit(last, task) == whole
    assert last.first == cuts[-1] + 1


@pytest.mark.parametrize(
    "state", [b"", b"no safetensors", pytest.param(None, id="another network")]
)
@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_a_checkpoint_that_does_not_fit_is_as_none(state, tmp_path: Path) -> None:
    path = tmp_path / "mlp.checkpoint"
    if state is None:
        with pytest.raises(CutOffError):
            fit(Cut(path, 9), "multiclass")
    else:
        write_checkpoint(path, Checkpoint(9, state))
    watch = Cut(path)
    assert fit(watch) == fit(Watch())
    assert watch.first == 1


def test_a_file_that_is_not_whole_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.checkpoint"
    assert read_checkpoint(path) is None
    write_checkpoint(path, Checkpoint(3, b"a\nb"))
    assert read_checkpoint(path) == Checkpoint(3, b"a\nb")
    for broken in (path.read_bytes()[:-1], b"", b"{}\nx", b"\xff\n", b"[]\n"):
        path.write_bytes(broken)
        assert read_checkpoint(path) is None


def test_checkpoints_and_reports_are_made_when_it_is_time(tmp_path: Path) -> None:
    said: list[FitProgress] = []
    asked = []

    def state() -> bytes:
        asked.append(1)
        return b"s"

    path = tmp_path / "a.checkpoint"
    watch = FitWatch("mlp", path, said.append, checkpoint_s=1e9, report_s=1e9)
    for number in range(1, 1001):
        watch.after(number, 1000, lambda: 0.5, state)
    assert said == [FitProgress("mlp", 1, 1000, 0.5)]
    assert not asked
    watch = FitWatch("mlp", path, said.append, checkpoint_s=0, report_s=0)
    watch.after(500, 1000, lambda: 0.25, state)
    assert read_checkpoint(path) == Checkpoint(500, b"s")
    watch = FitWatch("mlp", path, said.append, checkpoint_s=0, report_s=0)
    assert watch.saved() == Checkpoint(500, b"s")
    watch.after(501, 1000)
    assert said[-1] == FitProgress("mlp", 501, 1000, None, resumed_from=500)
    watch.forget()
    assert watch.saved() is None


# ── what people see ─────────────────────────────────────────────────────────


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_at_most_one_report_a_second_and_the_newest_is_not_lost() -> None:
    clock, said = Clock(), []
    throttle = Throttle(said.append, 1.0, clock)
    for number in range(50):
        throttle.take({"n": number})
    assert said == [{"n": 0}]
    clock.now += 1
    throttle.flush()
    assert said == [{"n": 0}, {"n": 49}]
    clock.now += 5
    throttle.flush()
    assert len(said) == 2  # nothing new


def test_the_estimate_is_by_the_pace_of_this_try() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    assert estimate.of("read", 0.0, None) is None
    resumed = FitProgress("mlp", 400, 1000, 0.1, resumed_from=399)
    assert estimate.of("fit", 0.3, resumed) is None  # its own pace is not known yet
    clock.now += 10
    assert estimate.of("fit", 0.4, resumed) == pytest.approx(60)
    other = FitProgress("linear", 1, 2)
    assert estimate.of("fit", 0.5, other) is None
    fields = fields_of("fit", 0.5, "", other, estimate)
    assert fields["iteration"] == 1
    assert fields["eta_seconds"] is None
    json.dumps(fields)


# ── how a process ended, in words ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "lack of memory, or by hand (SIGKILL)"),
        (signal.SIGABRT, "DRIFTLOOP_TRAINER_MAX_MEMORY_GIB"),
        (signal.SIGTERM, "ended by a signal (SIGTERM)"),
    ],
)
def test_a_signal_is_said_in_words_and_tried_again(number: int, words: str) -> None:
    found = ended(-number)
    assert isinstance(found, Crashed)
    assert words in str(found)


def test_used_up_cpu_time_is_a_limit() -> None:
    found = ended(-signal.SIGXCPU)
    assert isinstance(found, LimitReached)
    assert "DRIFTLOOP_TRAINER_MAX_CPU_MINUTES" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_lack_of_memory_is_a_limit_and_named(error: Exception) -> None:
    said = child.failure(error, 16)
    assert said["type"] == "limit"
    assert "more than 16 GiB" in said["error"]


def test_another_error_is_no_limit() -> None:
    said = child.failure(ValueError("a bug"), 16)
    assert said == {"type": "failed", "error": "ValueError: a bug"}
