"""One of the processes that fit a network together; torchrun's agent starts it.

``python -m driftloop.trainer.candidates.torch_rank FOLDER``: everything that it needs
lies in the folder, as plain arrays. Lines of JSON on stdout say how far it is.
"""

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftloop.trainer.candidates.machine import LimitHit
from driftloop.trainer.candidates.sample import Checkpoint, Watch

if TYPE_CHECKING:  # loaded after the watch over the parent has begun
    from driftloop.trainer.candidates.torch_learning import Team

EXIT_PARENT_GONE = 4
Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Fit as one of several; say in a line why not."""
    end_with_parent()
    say = shared_stdout()
    rank = int(os.environ["RANK"])
    try:
        _fit(Path(sys.argv[1]), rank, say)
    except BaseException as error:
        kind = "limit" if isinstance(error, LimitHit) else "failed"
        text = str(error) if kind == "limit" else f"{type(error).__name__}: {error}"
        say({"type": kind, "rank": rank, "error": text})
        traceback.print_exc()
        raise SystemExit(1) from error


def end_with_parent() -> None:
    """End this process when stdin ends: the training that began it is gone then.

    It holds the only other end, and all processes of a fit have this one.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(EXIT_PARENT_GONE)

    threading.Thread(target=watch, daemon=True).start()


def shared_stdout() -> Say:
    """Return what writes lines that those of other processes do not cut.

    What libraries print goes to stderr.
    """
    channel = os.dup(1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        os.write(channel, (json.dumps(message) + "\n").encode())

    return say


class Saying(Watch):
    """Begins at a checkpoint, and puts the newest into the folder, as a line says.

    Parameters
    ----------
    pace_s : between two lines.
    """

    def __init__(
        self, folder: Path, start: Checkpoint | None, say: Say, pace_s: float
    ) -> None:
        self._folder, self._start, self._say, self._pace_s = folder, start, say, pace_s
        self._said_at = time.monotonic()

    def saved(self) -> Checkpoint | None:
        return self._start

    def after(
        self,
        iteration: int,
        count: int,
        loss: Callable[[], float] | None = None,
        state: Callable[[], bytes] | None = None,
    ) -> None:
        now = time.monotonic()
        if loss is None or state is None or now - self._said_at < self._pace_s:
            return
        self._said_at = now
        name = keep(self._folder, f"state-{iteration}", state())
        message = {"done": iteration, "count": count, "loss": loss(), "state": name}
        self._say({"type": "at", **message})


def keep(folder: Path, name: str, state: bytes) -> str:
    """Write a state that whoever reads its line finds whole; return its name."""
    draft = folder / "state.draft"
    draft.write_bytes(state)
    draft.replace(folder / name)
    return name


def _fit(folder: Path, rank: int, say: Say) -> None:
    import torch
    from driftloop.trainer.candidates import torch_learning, torch_place
    from driftloop.trainer.candidates.torch_ranks import RankJob
    from torch import distributed

    job = RankJob.model_validate_json((folder / "job.json").read_bytes())
    count = job.place().processes
    device = torch_place.prepare(job.place(), job.machine(), rank)
    torch.manual_seed(job.seed)
    network, lesson, start = job.network(folder), job.lesson(folder), job.start(folder)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend, init_method=f"file://{folder}/store", rank=rank, world_size=count
    )
    watch = Saying(folder, start, say, math.inf if rank else job.pace_s)
    team = _team(rank, count)
    fit = torch_learning.learn(network, lesson, job.place(), device, watch, team)
    if rank == 0:
        name = keep(folder, "last", fit.state())
        say({"type": "done", "done": fit.done, "state": name})
    distributed.destroy_process_group()


def _team(rank: int, count: int) -> "Team":
    import torch
    from driftloop.trainer.candidates.torch_learning import Team
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    class Whole(torch.nn.Module):  # type: ignore[misc]
        """A network with its weights, as DistributedDataParallel wants it."""

        def __init__(self, network: Any) -> None:
            super().__init__()
            self._network, self.parts = network, network.module

        def forward(self, rows: Any) -> Any:
            return self._network(rows)

    class Ranks(Team):
        """Each has its part of every batch; gradients and decisions are shared."""

        def wrapped(self, network: Any) -> Callable[[Any], Any]:
            # Asked to look for unused weights, it never lays out gradients anew after
            # the first step: sums keep their order, also in a fit that is resumed.
            whole: Callable[[Any], Any] = DistributedDataParallel(
                Whole(network), find_unused_parameters=True
            )
            return whole

        def share(self, batch: Any) -> tuple[Any, int, float]:
            first, end = (len(batch) * n // count for n in (rank, rank + 1))
            if first == end:  # fewer rows than processes: one that does not count
                return batch[:1], 0, 0.0
            return batch[first:end], first, count / len(batch)

        def agreed(self, value: Callable[[], float]) -> float:
            found = torch.zeros(1, dtype=torch.float64)
            if rank == 0:
                found[0] = value()
            if distributed.get_backend() == "nccl":
                found = found.cuda()
            distributed.broadcast(found, 0)
            return float(found)

    return Ranks()


if __name__ == "__main__":
    main()
