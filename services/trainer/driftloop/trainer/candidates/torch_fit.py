"""A torch fit in shuffled batches that can stop anywhere and end in the same bytes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from driftloop.trainer.candidates.sample import Checkpoint

EPOCHS = 60
PATIENCE = 15
"""Epochs without a better loss on the watched rows, after which a fit ends."""
BATCH_ROWS, MAX_BATCH_ROWS = 64, 4096
BATCHES = 512
"""An epoch of many rows has about so many: a million rows are learned in minutes."""
NETWORK_PREFIX, FIRST_PREFIX, SECOND_PREFIX = "network.", "first.", "second."
BEST_PREFIX = "best."
STEP, ORDER, DICE, BEST = "step", "order", "dice", "best_loss_and_epoch"
GPU_DICE, BEGAN_ON = "gpu_dice", "began_on"


def batch_rows(row_count: int) -> int:
    """Return the rows of a batch: a power of two.

    >>> batch_rows(300), batch_rows(100_000), batch_rows(10_000_000)
    (64, 256, 4096)
    """
    wanted = 1 << max(0, math.ceil(math.log2(max(1, row_count / BATCHES))))
    return min(MAX_BATCH_ROWS, max(BATCH_ROWS, wanted))


class TorchFit:
    """Weights, the best ones, Adam's moments, and the dice of the order, as one value.

    The learning rate falls as half a cosine over all steps; it depends on the number
    of the step only.

    Parameters
    ----------
    network : its buffers and parameters are the model.
    optimiser : ``torch.optim.AdamW`` without options that keep more state.
    row_count : to shuffle.
    watched_loss : on rows that are not learned from, after each epoch; the weights at
        its least are kept. None: those of the last epoch are.
    rows_at_once : of a batch; None: by their number.
    place : where it is fitted, in words.

    Attributes
    ----------
    began_on : the same, of a checkpoint of which this fit is a continuation.
    """

    def __init__(
        self,
        network: Any,
        optimiser: Any,
        row_count: int,
        seed: int,
        watched_loss: Callable[[], float] | None = None,
        rows_at_once: int | None = None,
        place: str = "",
    ) -> None:
        import torch

        self._network, self.optimiser, self._row_count = network, optimiser, row_count
        self._watched_loss = watched_loss
        self._dice = torch.Generator().manual_seed(seed)
        self._order = self._dice.get_state()
        self.batch_rows = rows_at_once or batch_rows(row_count)
        self._per_epoch = -(-row_count // self.batch_rows)
        self.began_on = self._place = place
        self._rate = optimiser.param_groups[0]["lr"]
        self._best = self._weights()
        self.best_loss, self.best_epoch = math.inf, 0
        self.count = EPOCHS * self._per_epoch
        self.done = 0

    @property
    def _device(self) -> Any:
        return next(iter(self._network.parameters())).device

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.done // self._per_epoch

    @property
    def is_over(self) -> bool:
        if self.done >= self.count:
            return True
        is_watched = self._watched_loss is not None
        return is_watched and self.epoch - self.best_epoch >= PATIENCE

    def batches(self, done: int) -> Iterator[Any]:
        """Yield the row numbers of each batch after the first ``done``.

        :meth:`learned` is to be called for each, before the next.
        """
        import torch

        self.done = done
        while not self.is_over:
            self._order = self._dice.get_state()
            order = torch.randperm(self._row_count, generator=self._dice)
            for batch in order.split(self.batch_rows)[self.done % self._per_epoch :]:
                turn = math.cos(math.pi * self.done / self.count)
                rate = self._rate * (1 + turn) / 2
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
                yield batch

    def learned(self) -> None:
        """Count a batch; after the last of an epoch, look whether it is the best."""
        self.done += 1
        if self.done % self._per_epoch or self._watched_loss is None:
            return
        loss = self._watched_loss()
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            self._best = self._weights()

    def finish(self) -> None:
        """Put the best weights into the network."""
        if self._watched_loss is not None:
            self._network.load_state_dict(self._best)

    def _weights(self) -> dict[str, Any]:
        return {n: v.detach().clone() for n, v in self._network.state_dict().items()}

    def state(self) -> bytes:
        """Return everything as safetensors, on the CPU: numbers only, no code.

        The dice are those of the epoch's start: it is shuffled again, and the batches
        that are done are left out.
        """
        import torch
        from safetensors.torch import save

        tensors = _named(NETWORK_PREFIX, self._network.state_dict())
        tensors |= _named(BEST_PREFIX, self._best)
        for number, kept in self.optimiser.state_dict()["state"].items():
            tensors[f"{FIRST_PREFIX}{number}"] = kept["exp_avg"]
            tensors[f"{SECOND_PREFIX}{number}"] = kept["exp_avg_sq"]
            tensors[STEP] = kept["step"]
        is_epoch_over = self.done % self._per_epoch == 0
        tensors[ORDER] = self._dice.get_state() if is_epoch_over else self._order
        tensors[DICE] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors[GPU_DICE] = torch.cuda.get_rng_state(self._device)
        tensors[BEGAN_ON] = torch.tensor([*self.began_on.encode()], dtype=torch.uint8)
        best = [self.best_loss, float(self.best_epoch)]
        tensors[BEST] = torch.tensor(best, dtype=torch.float64)
        kept_apart = {name: value.cpu().clone() for name, value in tensors.items()}
        data: bytes = save(kept_apart, {"batches": str(self.count)})
        return data

    def resume(self, checkpoint: Checkpoint | None) -> int:
        """Take over a checkpoint; return how many batches are done.

        One that does not fit (of another network, or broken) is as none. One that was
        made elsewhere fits: the model then depends on both places, and says so.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        if checkpoint is None or not 0 < checkpoint.iteration <= self.count:
            return 0
        try:
            tensors = load(checkpoint.state)
            self._check(tensors)
        except (SafetensorError, KeyError, ValueError):
            return 0
        self._network.load_state_dict(_part(tensors, NETWORK_PREFIX))
        self._best = _part(tensors, BEST_PREFIX)
        self.best_loss = float(tensors[BEST][0])
        self.best_epoch = int(tensors[BEST][1])
        first, second = _part(tensors, FIRST_PREFIX), _part(tensors, SECOND_PREFIX)
        plain = self.optimiser.state_dict()
        plain["state"] = {
            int(number): {
                "step": tensors[STEP].clone(),
                "exp_avg": first[number],
                "exp_avg_sq": second[number],
            }
            for number in first
        }
        self.optimiser.load_state_dict(plain)
        self._dice.set_state(tensors[ORDER])
        torch.set_rng_state(tensors[DICE])
        if self._device.type == "cuda" and GPU_DICE in tensors:
            torch.cuda.set_rng_state(tensors[GPU_DICE], self._device)
        self.began_on = bytes(tensors[BEGAN_ON].tolist()).decode()
        return checkpoint.iteration

    def _check(self, tensors: dict[str, Any]) -> None:
        """Raise ValueError when the tensors are not those of this fit."""
        wanted = {n: v.shape for n, v in self._network.state_dict().items()}
        moments = [str(number) for number, _ in enumerate(self._network.parameters())]
        names = {
            *(f"{FIRST_PREFIX}{number}" for number in moments),
            *(f"{SECOND_PREFIX}{number}" for number in moments),
            STEP, ORDER, DICE, BEST, BEGAN_ON,
        }  # fmt: skip
        for prefix in (NETWORK_PREFIX, BEST_PREFIX):
            found = {n: v.shape for n, v in _part(tensors, prefix).items()}
            if wanted != found:
                raise ValueError("a checkpoint of another network")
        if not names <= set(tensors):
            raise ValueError("a checkpoint of another form")


def _named(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
