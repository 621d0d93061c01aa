"""A user of MLflow brings a model of their own into a pipeline, with its own client.

Run by the Python of the client's environment: ``python mlflow_pipeline.py STEP
PIPELINE FILE [VERSION]`` with ``MLFLOW_TRACKING_URI`` and the user set. Prints what it
was answered as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

WAIT_S = 240


def register(client: MlflowClient, pipeline: str, file: str) -> Any:
    """Log a file to a run, register it under the pipeline, wait until it is ready."""
    run = client.create_run("0").info.run_id
    client.log_artifact(run, file, "model")
    source = f"runs:/{run}/model"
    made = client.create_model_version(pipeline, source, run, await_creation_for=WAIT_S)
    return _told(client.get_model_version(pipeline, made.version))


def promote(client: MlflowClient, pipeline: str, _: str, version: str) -> Any:
    """Ask that a version goes into service."""
    client.set_registered_model_alias(pipeline, "champion", version)
    return _told(client.get_model_version(pipeline, version))


def champion(client: MlflowClient, pipeline: str, folder: str) -> Any:
    """Fetch what is in service, by its alias."""
    version = client.get_model_version_by_alias(pipeline, "champion")
    uri = f"models:/{pipeline}@champion"
    Path(folder).mkdir(exist_ok=True)
    place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
    files = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
    flavors = sorted(json.loads((place / "MLmodel").read_text("utf-8"))["flavors"])
    return {
        **_told(version), "files": files, "place": str(place), "flavors": flavors,
    }  # fmt: skip


def _told(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "status": version.status,
        "stage": version.current_stage,
        "tags": version.tags,
        "aliases": list(version.aliases),
        "user": version.user_id,
    }


STEPS: dict[str, Callable[..., Any]] = {
    "register": register,
    "promote": promote,
    "champion": champion,
}


def main(step: str, *arguments: str) -> None:
    """Do one step; a refusal is an answer, too."""
    try:
        told = STEPS[step](MlflowClient(), *arguments)
    except MlflowException as error:
        told = {"refused": error.error_code, "message": error.message}
    print(json.dumps(told))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(*sys.argv[1:])
