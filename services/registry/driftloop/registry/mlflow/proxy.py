"""The HTTP side of files: MLflow's artifact proxy, and the paths that its page uses."""

import mimetypes
import re
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import quote

from driftloop.registry.mlflow import logged_models, runs
from driftloop.registry.mlflow.access import CallRoute
from driftloop.registry.mlflow.call import Call, Json
from driftloop.registry.mlflow.depot import Depot
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.files import Entry, File, checked_path
from driftloop.registry.mlflow.http import (
    Endpoint,
    answer,
    answering,
    fields_of,
    refused,
)
from driftloop.registry.mlflow.parts import MAX_PARTS, VALID_S, Part, Signer, Upload
from driftloop.registry.mlflow.places import Spot, spot_of, spot_of_uri
from driftloop.runtime.identity.routing import GuardedRouter, openly
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PREFIX = "/api/2.0/mlflow-artifacts"
GRANT = "X-Driftloop-Grant"
"""The header that lets a client send one part, in place of the token."""
READ_BYTES = 1024 * 1024
UNKNOWN_TYPE = "application/octet-stream"
SHOWN_AS_TEXT = re.compile(r"text/.*|application/(json|x?-?yaml|xml|javascript)")
CAPABILITIES = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": True,
    "multipart_downloads_enabled": False,
}


class Proxy:
    """The routes' work."""

    def __init__(self, depot: Depot, signer: Signer) -> None:
        self._depot = depot
        self._signer = signer

    async def upload(self, request: Request) -> Response:
        """Store a file: the body, whatever its type says."""
        spot = _file_in_path(request)
        length = _length(request)
        await run_in_threadpool(self._depot.check, spot, length)
        with self._depot.scratch() as file:
            await self._depot.receive(request.stream().__aiter__(), file)
            by = request.state.user
            await run_in_threadpool(self._depot.keep, by, spot, file)
        return answer({})

    async def download(self, request: Request) -> Response:
        return await self._send(_file_in_path(request))

    async def _send(self, spot: Spot) -> Response:
        file = await run_in_threadpool(self._depot.find, spot)
        return await run_in_threadpool(self._opened, file)

    def _opened(self, file: File) -> Response:
        scratch = self._depot.scratch()
        try:
            self._depot.copy(file.sha256, file.size_bytes, scratch)
        except BaseException:
            scratch.close()
            raise
        return FileAnswer(scratch, file)

    async def list_place(self, request: Request) -> Response:
        """Return what lies in a place, by its last names."""
        return await self._listing(request, self._list_place)

    def _list_place(self, call: Call) -> Json:
        entries = self._depot.list(spot_of(call.text("path")))
        return _listed(entries, lambda entry: entry.path.rpartition("/")[2])

    async def _listing(
        self, request: Request, listed: Callable[[Call], Json]
    ) -> Response:
        call = await self._call(request)
        return answer(await run_in_threadpool(listed, call))

    async def delete(self, request: Request) -> Response:
        """Remove a file, or a folder with all that is in it."""
        spot = _spot_in_path(request)
        await run_in_threadpool(self._depot.delete, request.state.user, spot)
        return answer({})

    async def list_of_run(self, request: Request) -> Response:
        """Return what lies in a folder of a run."""
        return await self._listing(request, self._list_of_run)

    def _list_of_run(self, call: Call) -> Json:
        return self._list_below(call, self._root_of_run(call), "path")

    async def list_of_model(self, request: Request) -> Response:
        """Return what lies in a folder of a logged model."""
        return await self._listing(request, self._list_of_model)

    def _list_of_model(self, call: Call) -> Json:
        root = self._root_of_model(call)
        return self._list_below(call, root, "artifact_directory_path")

    def _list_below(self, call: Call, root: str, field: str) -> Json:
        folder = call.text(field, "").removesuffix("/")
        if folder:
            checked_path(folder, field)
        spot = spot_of_uri(root)._replace(path=folder)
        return {**_listed(self._depot.list(spot)), "root_uri": root}

    async def file_of_run(self, request: Request) -> Response:
        """Return a file of a run, as MLflow's page asks for it."""
        return await self._file_below(request, "path", self._root_of_run)

    async def file_of_model(self, request: Request) -> Response:
        """Return a file of a logged model, as MLflow's page asks for it."""
        return await self._file_below(
            request, "artifact_file_path", self._root_of_model
        )

    async def _file_below(
        self, request: Request, field: str, root: Callable[[Call], str]
    ) -> Response:
        call = await self._call(request)
        path = checked_path(call.text(field), field)
        place = await run_in_threadpool(root, call)
        return await self._send(spot_of_uri(place)._replace(path=path))

    def _root_of_run(self, call: Call) -> str:
        with call.reading() as connection:
            return str(runs.of_id(connection, call.run_id()).artifact_uri)

    def _root_of_model(self, call: Call) -> str:
        with call.reading() as connection:
            row = logged_models.of_id(connection, call.text("model_id"))
            return str(row.artifact_location)

    async def _call(self, request: Request) -> Call:
        fields, size = await fields_of(request)
        fields |= request.path_params
        return Call(self._depot.journal, fields, request.state.user, size)

    async def begin_parts(self, request: Request) -> Response:
        """Begin an upload in parts; say where each is sent, and what lets it in."""
        call = await self._call(request)
        spot, place = _file_of_parts(request, call)
        count = call.number("num_parts", 1)
        if not 1 <= count <= MAX_PARTS:
            raise invalid(f"num_parts: {count} is not between 1 and {MAX_PARTS}")
        await run_in_threadpool(self._depot.check, spot, 0)
        upload_id = self._signer.id_of(Upload(place, count, int(time.time()) + VALID_S))
        base = f"{str(request.base_url).rstrip('/')}{PREFIX}/mpu/parts/{upload_id}"
        return answer(
            {
                "upload_id": upload_id,
                "credentials": [
                    {
                        "url": f"{base}/{number}",
                        "part_number": number,
                        "headers": {GRANT: self._signer.grant_of(upload_id, number)},
                    }
                    for number in range(1, count + 1)
                ],
            }
        )

    async def take_part(self, request: Request) -> Response:
        """Store a part's bytes; the answer's ETag is what completes the upload."""
        upload_id = request.path_params["upload_id"]
        number = request.path_params["number"]
        grant = request.headers.get(GRANT, "")
        if not self._signer.allows(grant, upload_id, number):
            raise Refusal(
                "PERMISSION_DENIED",
                f"{GRANT}: not the one that mpu/create gave for this part",
            )
        upload = self._signer.upload_of(upload_id, time.time())
        await run_in_threadpool(
            self._depot.check, spot_of(upload.place), _length(request)
        )
        with self._depot.scratch() as file:
            await self._depot.receive(request.stream().__aiter__(), file)
            ref = await run_in_threadpool(self._depot.put, file)
        found = answer({})
        part = Part(ref.sha256, ref.size_bytes)
        tag = self._signer.tag_of(upload_id, number, part)
        found.headers["ETag"] = f'"{tag}"'
        return found

    async def complete_parts(self, request: Request) -> Response:
        """Put an upload's parts together."""
        call = await self._call(request)
        spot, place = _file_of_parts(request, call)
        upload_id = call.text("upload_id")
        upload = self._upload(upload_id, place)
        parts = self._signer.parts_of(upload_id, upload, call.objects("parts"))
        by = request.state.user
        await run_in_threadpool(self._put_together, by, spot, parts)
        return answer({})

    def _put_together(self, by: str, spot: Spot, parts: list[Part]) -> None:
        self._depot.check(spot, sum(part.size_bytes for part in parts))
        with self._depot.scratch() as file:
            for part in parts:
                self._depot.copy(part.sha256, part.size_bytes, file)
            self._depot.keep(by, spot, file)

    async def abort_parts(self, request: Request) -> Response:
        """Take note that an upload will not be completed; the sweep tidies up."""
        call = await self._call(request)
        _, place = _file_of_parts(request, call)
        self._upload(call.text("upload_id"), place)
        return answer({})

    def _upload(self, upload_id: str, place: str) -> Upload:
        upload = self._signer.upload_of(upload_id, time.time())
        if upload.place != place:
            raise invalid("upload_id: it was given for another file")
        return upload


def _spot_in_path(request: Request) -> Spot:
    if request.url.query:
        raise invalid("path: it has a '?', which no file's may")
    if not request.scope["path"].isprintable():  # routing drops a newline at the end
        raise invalid("path: it has a sign that is not printed, which no file's may")
    return spot_of(request.path_params["path"])


def _file_in_path(request: Request) -> Spot:
    spot = _spot_in_path(request)
    if not spot.path:
        raise invalid("path: it names all files of an owner where one file should be")
    return spot


def _file_of_parts(request: Request, call: Call) -> tuple[Spot, str]:
    """Return the file that a body names within the folder that the path names."""
    name = re.split(r"[/\\]", call.text("path"))[-1]  # the client sends its own path
    folder = request.path_params["folder"].removesuffix("/")
    place = f"{folder}/{name}"
    return spot_of(place), place


def _length(request: Request) -> int:
    given = request.headers.get("content-length", "0")
    return int(given) if given.isdigit() else 0


def _listed(
    entries: list[Entry], name: Callable[[Entry], str] = lambda entry: entry.path
) -> Json:
    files = [entry.as_json(name(entry)) for entry in entries]
    return {"files": files} if files else {}


class FileAnswer(StreamingResponse):
    """Sends verified bytes from a file that lies open, then closes it."""

    def __init__(self, scratch: BinaryIO, file: File) -> None:
        scratch.seek(0)
        self._scratch = scratch
        name = file.path.rpartition("/")[2]
        super().__init__(
            _pieces(scratch),
            headers={
                "Content-Length": str(file.size_bytes),
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox",
                "ETag": f'"{file.sha256}"',
            },
            media_type=_type_of(name),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._scratch:
            await super().__call__(scope, receive, send)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(READ_BYTES):
        yield piece


def _type_of(name: str) -> str:
    kind = mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
    return "text/plain" if SHOWN_AS_TEXT.fullmatch(kind) else kind


def proxy_router(proxy: Proxy) -> GuardedRouter:
    """Return the routes of files; each asks who it is but for parts' own."""
    router = GuardedRouter(route_class=CallRoute)
    at, mlflow = f"{PREFIX}/artifacts", "/api/2.0/mlflow"
    model = "mlflow/logged-models/{model_id}/artifacts"
    routes: tuple[tuple[str, str, Endpoint], ...] = (
        ("GET", at, proxy.list_place),
        ("GET", f"{at}/{{path:path}}", proxy.download),
        ("PUT", f"{at}/{{path:path}}", proxy.upload),
        ("DELETE", f"{at}/{{path:path}}", proxy.delete),
        ("POST", f"{PREFIX}/mpu/create/{{folder:path}}", proxy.begin_parts),
        ("POST", f"{PREFIX}/mpu/complete/{{folder:path}}", proxy.complete_parts),
        ("POST", f"{PREFIX}/mpu/abort/{{folder:path}}", proxy.abort_parts),
        ("GET", f"{mlflow}/artifacts/list", proxy.list_of_run),
        ("GET", f"/api/2.0/{model}/directories", proxy.list_of_model),
        ("GET", f"/ajax-api/2.0/{model}/files", proxy.file_of_model),
        ("GET", "/get-artifact", proxy.file_of_run),
        ("GET", "/api/3.0/mlflow/server-info", _capabilities),
    )
    for method, path, work in routes:
        name = f"{method} {path}"
        router.add_api_route(path, answering(work), methods=[method], name=name)

    @router.api_route(
        f"{PREFIX}/{{path:path}}",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    def unknown(path: str) -> Response:
        return refused(
            Refusal("ENDPOINT_NOT_FOUND", f"{path}: this call is not kept here")
        )

    grant = openly("a part's address is signed, and holds for this part alone")
    whole = GuardedRouter(dependencies=[grant])
    whole.add_api_route(
        f"{PREFIX}/mpu/parts/{{upload_id}}/{{number:int}}",
        answering(proxy.take_part),
        methods=["PUT"],
        name="PUT part",
    )
    whole.include_router(router)
    return whole


async def _capabilities(_: Request) -> Response:
    """Return what clients ask before they send a large file."""
    return answer(CAPABILITIES)
