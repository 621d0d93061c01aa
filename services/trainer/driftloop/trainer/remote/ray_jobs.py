"""Trainings as jobs of a Ray cluster, by the HTTP interface of its job server.

The service needs no Ray of its own: what goes to the cluster is a command line and some
environment variables, so a version of Ray is nobody's but the cluster's, and nothing of
ours is pickled.

Source: Ray Jobs REST API, docs.ray.io, "Ray Job Submission".
"""

import shlex
from http import HTTPStatus
from typing import Any

import httpx
from driftloop.runtime.errors import Retry
from driftloop.trainer.remote.launching import Launch
from driftloop.trainer.remote.settings import RemoteSettings

TIMEOUT_S = 25.0
"""Of one answer: a busy head takes its time; less than the lease is by default."""
GIB = 1024**3
ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}
MAX_SAID = 500


class RayJobs:
    """Starts and ends jobs of a cluster.

    Raises
    ------
    ValueError
        When no address is set.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        if not settings.ray_address:
            raise ValueError(
                "trainings run on Ray: set DRIFTLOOP_TRAINER_RAY_ADDRESS to the "
                "cluster's job server, http://HEAD:8265"
            )
        self._settings = settings
        token = settings.ray_token
        headers = (
            {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        )
        self._http = httpx.Client(
            base_url=settings.ray_address, headers=headers, timeout=TIMEOUT_S
        )

    def start(self, launch: Launch) -> None:
        asked = self._settings
        self._ask(
            "POST",
            "/api/jobs/",
            {
                "submission_id": launch.name,
                "entrypoint": shlex.join([asked.ray_python, *launch.arguments]),
                "runtime_env": {"env_vars": launch.environment},
                "entrypoint_num_cpus": asked.job_cpus,
                "entrypoint_num_gpus": asked.job_gpus,
                "entrypoint_memory": int(asked.job_memory_gib * GIB),
                "entrypoint_resources": asked.ray_resources,
            },
        )

    def problem(self, name: str) -> str | None:
        found = self._ask("GET", f"/api/jobs/{name}")
        if found is None:
            return "Ray does not know it any more"
        if found["status"] not in ENDED:
            return None
        said = str(found.get("message") or "")[-MAX_SAID:]
        return f"{found['status']}: {said}"

    def end(self, name: str) -> None:
        self._ask("POST", f"/api/jobs/{name}/stop")

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return the answer; None: there is no such job."""
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Retry(f"Ray does not answer: {error}") from error
        if answer.status_code == HTTPStatus.NOT_FOUND and "/api/jobs/training" in path:
            return None
        if answer.is_error:
            raise Retry(
                f"Ray refuses ({answer.status_code}): {answer.text[:MAX_SAID]}; "
                "look at DRIFTLOOP_TRAINER_RAY_ADDRESS and DRIFTLOOP_TRAINER_RAY_TOKEN"
            )
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise Retry(f"Ray's answer is no JSON: {answer.text[:MAX_SAID]}") from error
        return found
