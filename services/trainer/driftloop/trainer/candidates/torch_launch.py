"""Runs torchrun's agent over the processes of one fit, on this machine alone.

``python -m driftloop.trainer.candidates.torch_launch FOLDER PROCESSES CPU_SECONDS``.
They find each other by a file in the folder, and talk over the loopback interface:
torchrun's own store would listen on all of them.
"""

import math
import os
import resource
import sys
import uuid
from pathlib import Path

from driftloop.trainer.candidates.torch_rank import end_with_parent, shared_stdout

LOOPBACK = "127.0.0.1"
CPU_GRACE_S = 5


def main() -> None:
    """Start the processes, and say which one failed first."""
    end_with_parent()
    folder, processes, cpu_seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if cpu_seconds:
        soft = math.ceil(float(cpu_seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + CPU_GRACE_S))
    only = {
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # no advice about find_unused_parameters
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # it listens on all interfaces
    }
    os.environ.update(only)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=str(Path(folder) / "rendezvous"),
        rdzv_configs={"store_type": "file"},
        max_restarts=0,  # the job begins anew from its checkpoint
        local_addr=LOOPBACK,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    started = elastic_launch(config, sys.executable)
    try:
        started("-m", "driftloop.trainer.candidates.torch_rank", folder)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        said = {"type": "ended", "rank": rank, "code": failure.exitcode}
        shared_stdout()(said)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
