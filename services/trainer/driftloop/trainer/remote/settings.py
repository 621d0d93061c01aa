"""Settings of trainings that run elsewhere."""

from pathlib import Path
from typing import Literal

from driftloop.models.settings import PackageSettings
from pydantic import Field, SecretStr

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's own account."""


class RemoteSettings(PackageSettings):
    """Where trainings run, and what each of them asks for there."""

    runs_on: Literal["local", "ray", "kubernetes"] = Field(
        default="local", description="where a training runs"
    )
    job_cpus: float = Field(
        default=1, gt=0, description="a training asks for, elsewhere"
    )
    job_gpus: float = Field(
        default=0, ge=0, description="a training asks for, elsewhere"
    )
    job_memory_gib: float = Field(
        default=4, gt=0, description="a training asks for, elsewhere"
    )
    job_wait_minutes: float = Field(
        default=60, gt=0, description="for a node to start a training"
    )
    job_secrets_dir: str | None = Field(
        default=None,
        description="folder on the nodes with the secrets of the store, as "
        "DRIFTLOOP_SECRETS_DIR; default: they are in the nodes' environment",
    )
    ray_address: str | None = Field(
        default=None, description="of the Ray cluster's job server: http://HEAD:8265"
    )
    ray_token: SecretStr | None = Field(
        default=None, description="of a cluster that asks for one (RAY_AUTH_MODE=token)"
    )
    ray_resources: dict[str, float] = Field(
        default_factory=dict, description="custom resources a training asks for, JSON"
    )
    ray_python: str = Field(
        default="python", description="on the nodes, with driftloop-trainer installed"
    )
    kubernetes_url: str = Field(
        default="https://kubernetes.default.svc", description="of the API server"
    )
    kubernetes_account: Path = Field(
        default=SERVICE_ACCOUNT,
        description="folder with token, namespace and ca.crt of the account that may "
        "make Jobs",
    )
    kubernetes_template: Path | None = Field(
        default=None, description="a Job as YAML: image, secrets, where it may run"
    )
    kubernetes_gpu: str = Field(
        default="nvidia.com/gpu", description="name of the resource of GPUs"
    )
