"""The trainer's settings: ``DRIFTLOOP_TRAINER_X`` in the environment."""

from pathlib import Path

from driftloop.models.signing import Signer, TrustedKeys, generate_key
from driftloop.trainer.remote.settings import RemoteSettings
from pydantic import Field


class TrainerSettings(RemoteSettings):
    """Where the keys are, and what a training may use of the machine."""

    signing_key_file: Path | None = Field(
        default=None,
        description="Ed25519 private key, PEM; default: made at first start under home",
    )
    threads: int = Field(default=1, ge=1, description="of one training")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="that networks are fitted on: cpu, cuda, cuda:1; auto: a GPU if "
        "torch can use one",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="that fit one network together; each on a GPU of its own, if any",
    )
    max_memory_gib: float = Field(
        default=16,
        gt=0,
        description="address space of a training process; with a GPU the memory in use",
    )
    max_gpu_memory_ratio: float = Field(
        default=1, gt=0, le=1, description="of a GPU's memory, for one process"
    )
    max_cpu_minutes: float | None = Field(
        default=None, gt=0, description="CPU time of one job, all its tries together"
    )
    nice: int = Field(
        default=0, ge=0, le=19, description="how far a training stands back for others"
    )
    lease_seconds: float = Field(
        default=30, gt=0, description="after which another instance takes a job over"
    )

    allowed_imports: str = Field(
        default="",
        description="modules that candidates of pipeline files may be imported from, "
        "each with all below it, by commas: bikes,sklearn.ensemble; none by default",
    )

    @property
    def import_prefixes(self) -> tuple[str, ...]:
        """The allowed modules, one by one."""
        parts = (part.strip() for part in self.allowed_imports.split(","))
        return tuple(part for part in parts if part)

    @property
    def work_folder(self) -> Path:
        """Checkpoints and results of running jobs."""
        return self.home.resolve() / "trainer"


def open_signer(settings: TrainerSettings) -> Signer:
    """Return the trainer's signing key.

    The local default is made at first start, and trusted by the processes that
    share ``home``. A key that the settings name is never made.

    Raises
    ------
    KeyFileError
        When the key that the settings name is missing or not a private one.
    """
    path = settings.signing_key_file
    if path is None:
        path = settings.home / "keys" / "trainer.pem"
        if not path.exists():
            return generate_key(path, settings.trusted_keys_folder / "trainer.pem")
    return Signer.from_file(path)


def open_trusted(settings: TrainerSettings) -> TrustedKeys:
    """Return the keys whose packages may be loaded."""
    return TrustedKeys.from_folder(settings.trusted_keys_folder)


def no_keys() -> TrustedKeys:
    """Return the keys of a process that loads no package."""
    return TrustedKeys([])
