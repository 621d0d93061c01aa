"""A torch fit in shuffled batches that can stop anywhere and end in the same bytes."""

from collections.abc import Iterator
from typing import Any

from driftloop.trainer.candidates.sample import Checkpoint

EPOCHS = 60
BATCH_ROWS = 64
NETWORK_PREFIX, FIRST_PREFIX, SECOND_PREFIX = "network.", "first.", "second."
STEP, ORDER, DICE = "step", "order", "dice"


class TorchFit:
    """Weights, Adam's moments, and the dice of the order, as one value.

    Parameters
    ----------
    network : its buffers and parameters are the model.
    optimiser : ``torch.optim.AdamW`` without options that keep more state.
    row_count : to shuffle.
    """

    def __init__(self, network: Any, optimiser: Any, row_count: int, seed: int) -> None:
        import torch

        self._network, self._optimiser, self._row_count = network, optimiser, row_count
        self._dice = torch.Generator().manual_seed(seed)
        self._order = self._dice.get_state()
        self._per_epoch = -(-row_count // BATCH_ROWS)
        self.count = EPOCHS * self._per_epoch
        self.done = 0

    def batches(self, done: int) -> Iterator[Any]:
        """Yield the row numbers of each batch after the first ``done``."""
        import torch

        self.done = done
        while self.done < self.count:
            self._order = self._dice.get_state()
            order = torch.randperm(self._row_count, generator=self._dice)
            for batch in order.split(BATCH_ROWS)[self.done % self._per_epoch :]:
                self.done += 1
                yield batch

    def state(self) -> bytes:
        """Return everything as safetensors: numbers only, no code.

        The dice are those of the epoch's start: it is shuffled again, and the batches
        that are done are left out.
        """
        import torch
        from safetensors.torch import save

        tensors = {
            f"{NETWORK_PREFIX}{name}": value
            for name, value in self._network.state_dict().items()
        }
        for number, kept in self._optimiser.state_dict()["state"].items():
            tensors[f"{FIRST_PREFIX}{number}"] = kept["exp_avg"]
            tensors[f"{SECOND_PREFIX}{number}"] = kept["exp_avg_sq"]
            tensors[STEP] = kept["step"]
        is_epoch_over = self.done % self._per_epoch == 0
        tensors[ORDER] = self._dice.get_state() if is_epoch_over else self._order
        tensors[DICE] = torch.get_rng_state()
        kept_apart = {name: value.clone() for name, value in tensors.items()}
        data: bytes = save(kept_apart, {"batches": str(self.count)})
        return data

    def resume(self, checkpoint: Checkpoint | None) -> int:
        """Take over a checkpoint; return how many batches are done.

        One that does not fit (of another network, or broken) is as none.
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
        first, second = _part(tensors, FIRST_PREFIX), _part(tensors, SECOND_PREFIX)
        plain = self._optimiser.state_dict()
        plain["state"] = {
            int(number): {
                "step": tensors[STEP].clone(),
                "exp_avg": first[number],
                "exp_avg_sq": second[number],
            }
            for number in first
        }
        self._optimiser.load_state_dict(plain)
        self._dice.set_state(tensors[ORDER])
        torch.set_rng_state(tensors[DICE])
        return checkpoint.iteration

    def _check(self, tensors: dict[str, Any]) -> None:
        """Raise ValueError when the tensors are not those of this fit."""
        wanted = {n: v.shape for n, v in self._network.state_dict().items()}
        found = {n: v.shape for n, v in _part(tensors, NETWORK_PREFIX).items()}
        moments = [str(number) for number, _ in enumerate(self._network.parameters())]
        names = {
            *(f"{FIRST_PREFIX}{number}" for number in moments),
            *(f"{SECOND_PREFIX}{number}" for number in moments),
            STEP, ORDER, DICE,
        }  # fmt: skip
        if wanted != found or not names <= set(tensors):
            raise ValueError("a checkpoint of another network")


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
