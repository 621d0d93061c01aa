"""What a process that trains gets of our environment."""

import os
from pathlib import Path

SECRET_ENDINGS = (
    "_API_TOKEN",
    "_DATABASE_URL",
    "_KAFKA_CONFIG",
    "_SIGNING_KEY_FILE",
    "_RAY_TOKEN",
)
"""Of environment variables that a training has no use for."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def child_environment(threads: int, home: Path) -> dict[str, str]:
    """Return our environment without secrets, with thread limits.

    Without a limit each numeric library starts a thread a core, and several
    processes on one machine then wait for each other most of the time.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith(SECRET_ENDINGS)
    }
    kept |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    return kept | {"DRIFTLOOP_HOME": str(home)}
