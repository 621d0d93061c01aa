"""The files of the loop's versions, as clients of MLflow fetch a model's.

``models:/NAME@champion`` leads to ``mlflow-artifacts:/pipelines/NAME/VERSION``: the
signed package, verified at each read, and beside it what MLflow looks for, ``MLmodel``.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from driftloop.contracts.events import ModelTrained, PackageRef
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import Manifest, PackageRefused
from driftloop.registry.mlflow.access import CallRoute
from driftloop.registry.mlflow.errors import Refusal, absent
from driftloop.registry.mlflow.http import answer, answering
from driftloop.registry.mlflow.proxy import PREFIX, Proxy
from driftloop.registry.tables import RegistryVersion
from driftloop.runtime.errors import Retry
from driftloop.runtime.identity.routing import GuardedRouter, check_about
from fastapi import Request, Response
from sqlalchemy import Engine
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

ROOT = "pipelines"
DESCRIPTION = "MLmodel"
T = TypeVar("T")
ONNX_RUNTIME = "CPUExecutionProvider"


class Packages:
    """Reads packages for clients.

    Parameters
    ----------
    manifest, file : verified parts of a package; see ``Inspection``.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: Callable[[PackageRef], Manifest],
        file: Callable[[PackageRef, str], bytes | None],
    ) -> None:
        self._engine = engine
        self._manifest = manifest
        self._file = file

    def list(self, name: str, version: int) -> list[dict[str, Any]]:
        """Return the files of a version as MLflow's ``FileInfo``."""
        manifest = self._read(self._manifest, name, version)
        sizes = {path: entry.size_bytes for path, entry in manifest.files.items()}
        sizes[DESCRIPTION] = len(description_of(manifest))
        return [
            {"path": path, "is_dir": False, "file_size": sizes[path]}
            for path in sorted(sizes)
        ]

    def file(self, name: str, version: int, path: str) -> bytes:
        """Return a file of a version.

        Raises
        ------
        Refusal
            When there is none of that path, or it is not what was signed.
        """
        if path == DESCRIPTION:
            return description_of(self._read(self._manifest, name, version))
        data = self._read(lambda ref: self._file(ref, path), name, version)
        if data is None:
            raise absent(f"path: {name} version {version} has no file {path!r}")
        return data

    def _read(self, read: Callable[[PackageRef], T], name: str, version: int) -> T:
        with Session(self._engine) as session:
            row = session.get(RegistryVersion, (name, version))
            if row is None:
                raise absent(f"path: {name!r} has no version {version} of the loop's")
            package = ModelTrained.model_validate(row.trained).package
        try:
            return read(package)
        except PackageRefused as error:
            raise Refusal(
                "DATA_LOSS", f"its package may not be read: {error}"
            ) from error
        except Retry as error:
            raise Refusal("TEMPORARILY_UNAVAILABLE", str(error)) from error


def description_of(manifest: Manifest) -> bytes:
    """Return ``MLmodel`` for a package: JSON, which is YAML."""
    environment = dict(line.split("==", 1) for line in manifest.environment)
    onnx = {
        "data": MODEL_FILE,
        "onnx_version": environment.get("onnx", ""),
        "providers": [ONNX_RUNTIME],
    }
    content = {
        "flavors": {
            "onnx": onnx,
            "python_function": {"data": MODEL_FILE, "loader_module": "mlflow.onnx"},
        },
        "metadata": {
            "driftloop.pipeline": manifest.pipeline,
            "driftloop.job_id": manifest.job_id,
        },
    }
    return json.dumps(content, indent=1, sort_keys=True).encode()


def packages_router(packages: Packages, proxy: Proxy) -> GuardedRouter:
    """Return the routes of packages; they come before those of clients' files."""
    router = GuardedRouter(route_class=CallRoute)
    at = f"{PREFIX}/artifacts"

    async def listing(request: Request) -> Response:
        """List what lies in a place: a package, or a client's files."""
        parts = request.query_params.get("path", "").removesuffix("/").split("/")
        if parts[0] != ROOT:
            return await proxy.list_place(request)
        if len(parts) != 3 or not parts[2].isdecimal():
            return answer({})  # of what is no folder nothing
        name, version = parts[1], int(parts[2])
        check_about(request, "read", name)
        found = await run_in_threadpool(packages.list, name, version)
        return answer({"files": found})

    async def download(request: Request) -> Response:
        """Send a file of a package."""
        name, version, path = (
            request.path_params[part] for part in ("name", "version", "path")
        )
        check_about(request, "read", name)
        data = await run_in_threadpool(packages.file, name, version, path)
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    for path, work in (
        (at, listing),
        (f"{at}/{ROOT}/{{name}}/{{version:int}}/{{path:path}}", download),
    ):
        name = f"GET {path}, packages"
        router.add_api_route(path, answering(work), methods=["GET"], name=name)
    return router
