"""Trainings as Jobs of a Kubernetes cluster, by the API server's REST interface.

The installation's template says what only it can know: image, secrets, where pods may
run. What a training needs of its Job is set here, whatever the template says.

Source: Kubernetes API reference, "Job v1 batch" and "Pod v1 core".
"""

import copy
import math
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import yaml
from driftloop.runtime.errors import Retry
from driftloop.trainer.remote.launching import Launch
from driftloop.trainer.remote.settings import RemoteSettings

TIMEOUT_S = 10.0
KEPT_S = 3600
"""After its end, for people who look at its log; a template may say another time."""
MAX_SAID = 500
LABEL = "app.kubernetes.io/component"
Json = dict[str, Any]


class TemplateError(ValueError):
    """The template of Jobs cannot be used, and why."""


class KubernetesJobs:
    """Starts and ends Jobs of one namespace.

    Raises
    ------
    ValueError
        When a setting is missing, or the template is no Job.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        for name in ("artifacts_url", "datasets_url"):
            if not str(getattr(settings, name)).startswith("s3://"):
                raise ValueError(
                    "trainings run as Jobs of Kubernetes, which reach a store by its "
                    f"address only: set DRIFTLOOP_{name.upper()} to s3://BUCKET/PREFIX"
                )
        if settings.job_gpus % 1:
            raise ValueError(
                "DRIFTLOOP_TRAINER_JOB_GPUS: Kubernetes has whole ones only"
            )
        self._settings = settings
        self._template = read_template(settings.kubernetes_template)
        account = settings.kubernetes_account
        self._token_file = account / "token"
        if not self._token_file.is_file():
            raise ValueError(
                f"no account for the API server: {self._token_file} is not there "
                "(DRIFTLOOP_TRAINER_KUBERNETES_ACCOUNT)"
            )
        namespace = self._template.get("metadata", {}).get("namespace")
        self._namespace = namespace or (account / "namespace").read_text().strip()
        url = settings.kubernetes_url
        self._http = httpx.Client(
            base_url=url, timeout=TIMEOUT_S, verify=_context(url, account / "ca.crt")
        )

    def start(self, launch: Launch) -> None:
        job = job_of(self._template, launch, self._settings)
        self._ask("POST", self._jobs(), job, is_known=(HTTPStatus.CONFLICT,))

    def problem(self, name: str) -> str | None:
        found = self._ask("GET", f"{self._jobs()}/{name}")
        if found is None:
            return "its Job is gone"
        for condition in found.get("status", {}).get("conditions") or []:
            if condition["status"] == "True" and condition["type"] in (
                "Failed", "Complete",
            ):  # fmt: skip
                said = f"{condition.get('reason', '')} {condition.get('message', '')}"
                why = [condition["type"], said.strip(), *self._pods_say(name)]
                return "; ".join(part for part in why if part)[:MAX_SAID]
        return None

    def _pods_say(self, name: str) -> list[str]:
        """Return why a Job's containers ended: lack of memory is said only here."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        found = self._ask("GET", f"{path}?labelSelector=job-name%3D{name}") or {}
        said = []
        for pod in found.get("items", []):
            status = pod.get("status", {})
            said.append(status.get("reason", ""))
            for container in status.get("containerStatuses") or []:
                for state in container.get("state", {}).values():
                    code = state.get("exitCode")
                    told = state.get("reason", "")
                    said.append(told if code is None else f"{told} (exit code {code})")
        return said

    def end(self, name: str) -> None:
        path = f"{self._jobs()}/{name}?propagationPolicy=Background"
        self._ask("DELETE", path)

    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._namespace}/jobs"

    def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        is_known: tuple[int, ...] = (),
    ) -> Json | None:
        """Return the answer; None: there is no such object, or it is known already."""
        try:
            token = self._token_file.read_text().strip()  # replaced every hour
            headers = {"Authorization": f"Bearer {token}"}
            answer = self._http.request(method, path, json=body, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise Retry(f"Kubernetes does not answer: {error}") from error
        is_absent = answer.status_code == HTTPStatus.NOT_FOUND and method != "POST"
        if is_absent or answer.status_code in is_known:
            return None
        if answer.is_error:
            raise Retry(
                f"Kubernetes refuses ({answer.status_code}): {answer.text[:MAX_SAID]}"
            )
        found: Json = answer.json()
        return found


def _context(url: str, authority: Path) -> ssl.SSLContext | bool:
    """Trust the cluster's own authority where there is one."""
    if url.startswith("https://") and authority.is_file():
        return ssl.create_default_context(cafile=str(authority))
    return True


def read_template(path: Path | None) -> Json:
    """Return the installation's Job.

    Raises
    ------
    TemplateError
        When it is missing, or no Job with one container.
    """
    where = "DRIFTLOOP_TRAINER_KUBERNETES_TEMPLATE"
    if path is None:
        raise TemplateError(f"trainings run on Kubernetes: set {where}")
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        containers = found["spec"]["template"]["spec"]["containers"]
        is_job = found["kind"] == "Job" and len(containers) == 1
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise TemplateError(f"{where} cannot be read: {path}: {error}") from error
    if not is_job:
        raise TemplateError(f"{where} is no Job with one container: {path}")
    template: Json = found
    return template


def job_of(template: Json, launch: Launch, settings: RemoteSettings) -> Json:
    """Return the Job that runs a try.

    Once, as who asked for it tries again by itself; never longer than a training may
    take; without an account, as a training has no business with the API server.
    """
    job = copy.deepcopy(template)
    metadata = job.setdefault("metadata", {})
    metadata["name"] = launch.name
    spec = job["spec"]
    spec["backoffLimit"] = 0
    spec["activeDeadlineSeconds"] = math.ceil(launch.time_limit_s)
    spec.setdefault("ttlSecondsAfterFinished", KEPT_S)
    for owner in (job, spec["template"]):
        owner.setdefault("metadata", {}).setdefault("labels", {})[LABEL] = "training"
    pod = spec["template"]["spec"]
    pod["restartPolicy"] = "Never"
    pod["automountServiceAccountToken"] = False
    [container] = pod["containers"]
    container["command"] = ["python"]
    container["args"] = list(launch.arguments)
    own = launch.environment
    kept = [one for one in container.get("env", []) if one["name"] not in own]
    container["env"] = kept + [{"name": n, "value": v} for n, v in sorted(own.items())]
    container["resources"] = _resources(settings)
    return job


def _resources(settings: RemoteSettings) -> Json:
    asked = {
        "cpu": f"{round(settings.job_cpus * 1000)}m",
        "memory": f"{round(settings.job_memory_gib * 1024)}Mi",
    }
    if settings.job_gpus:
        asked[settings.kubernetes_gpu] = f"{settings.job_gpus:g}"
    return {"requests": dict(asked), "limits": dict(asked)}
