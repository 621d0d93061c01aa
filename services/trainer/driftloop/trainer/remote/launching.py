"""What starts a node's program somewhere: the side of Ray and of Kubernetes."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from driftloop.runtime.settings import SECRETS_DIR
from driftloop.trainer.remote.settings import RemoteSettings

MISSING = (
    "DRIFTLOOP_TRAINER_RUNS_ON is {where}, which needs httpx: "
    "pip install 'driftloop-trainer[remote]'"
)
MODULE = "driftloop.trainer.remote.node"
PASSED_ON = (
    "S3_ENDPOINT_URL", "S3_REGION", "LOG_LEVEL", "LOG_FORMAT", "TRAINER_THREADS",
    "TRAINER_MAX_MEMORY_GIB", "TRAINER_NICE", "TRAINER_ALLOWED_IMPORTS",
)  # fmt: skip
"""Settings that a training needs and that are no secret."""


@dataclass(frozen=True)
class Launch:
    """One try to be run somewhere.

    Attributes
    ----------
    name : unique for ever; letters, digits and hyphens, 63 at most.
    arguments : of Python, on the node.
    environment : more of it; no secrets.
    time_limit_s : after which it may be ended, however it is.
    """

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    time_limit_s: float


class Launcher(Protocol):
    """Starts and ends programs on other machines."""

    def start(self, launch: Launch) -> None:
        """Ask for a node to run it.

        Raises
        ------
        Retry
            When that cannot be asked for now.
        """
        ...

    def problem(self, name: str) -> str | None:
        """Return how it ended; None while it waits for a node, or runs.

        Raises
        ------
        Retry
            When that cannot be said now.
        """
        ...

    def end(self, name: str) -> None:
        """End it; one that has ended is no error.

        Raises
        ------
        Retry
            When that cannot be asked for now.
        """
        ...


def environment_of(settings: RemoteSettings) -> dict[str, str]:
    """Return the environment that a node's program gets; no secrets."""
    url = settings.artifacts_url or str(settings.home / "artifacts")
    if not url.startswith("s3://"):
        url = str(Path(url).resolve())
    found = {"DRIFTLOOP_ARTIFACTS_URL": url}
    if settings.datasets_url and settings.datasets_url.startswith("s3://"):
        found["DRIFTLOOP_DATASETS_URL"] = settings.datasets_url
    for name in PASSED_ON:
        value = getattr(settings, name.removeprefix("TRAINER_").lower())
        if value is not None:
            found[f"DRIFTLOOP_{name}"] = str(value)
    if settings.job_secrets_dir is not None:
        found[SECRETS_DIR] = settings.job_secrets_dir
    return found


def launcher_of(settings: RemoteSettings) -> Launcher:
    """Return the launcher that the settings name.

    Raises
    ------
    ValueError
        Names the setting that is missing or wrong.
    """
    if find_spec("httpx") is None:
        raise ValueError(MISSING.format(where=settings.runs_on))
    if settings.runs_on == "ray":
        from driftloop.trainer.remote.ray_jobs import RayJobs

        return RayJobs(settings)
    from driftloop.trainer.remote.kubernetes_jobs import KubernetesJobs

    return KubernetesJobs(settings)
