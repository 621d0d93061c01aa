"""The protocol over gRPC, in the event loop of the process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from driftloop.runtime.identity.callers import (
    DeniedError,
    IdentityError,
    NotReadyError,
)
from driftloop.runtime.identity.guard import Guard, credential_in
from driftloop.scorer.answering import Desk, ModelFailed, NotServed
from driftloop.scorer.door import REQUEST_ID_HEADER, VERSION_HEADER
from driftloop.scorer.explaining.wish import wish_in
from driftloop.scorer.feeds import BadRequest
from driftloop.scorer.open_inference import open_inference_pb2 as pb
from driftloop.scorer.open_inference.explained import tensors_of
from driftloop.scorer.open_inference.messages import (
    answer_message,
    parameters_in,
    set_parameters,
    tensors_in,
)
from driftloop.scorer.open_inference.rest import (
    SERVER,
    found,
    metadata_of,
    number_of,
    parameters_of,
)
from driftloop.scorer.open_inference.tensors import columns_of, outputs_of

SERVICE = "inference.GRPCInferenceService"
STOP_GRACE_S = 5.0
OVERHEAD_BYTES = 1024 * 1024
"""Of a message beside its values: names, shapes, parameters."""

CODES: Sequence[tuple[type[Exception], grpc.StatusCode]] = (
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (NotServed, grpc.StatusCode.NOT_FOUND),
    (ModelFailed, grpc.StatusCode.INTERNAL),
    (IdentityError, grpc.StatusCode.UNAUTHENTICATED),
    (DeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
)
Method = Callable[[Any, Any], Awaitable[Any]]


class Methods:
    """The six methods; each takes a message and the call's context."""

    def __init__(self, desk: Desk, guard: Guard, is_ready: Callable[[], bool]) -> None:
        self._desk = desk
        self._guard = guard
        self._is_ready = is_ready

    async def server_live(self, _: Any, __: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _: Any, __: Any) -> Any:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def server_metadata(self, _: Any, context: Any) -> Any:
        await self._admit(context, None)
        return pb.ServerMetadataResponse(**SERVER)

    async def model_ready(self, request: Any, context: Any) -> Any:
        await self._admit(context, request.name)
        try:
            found(self._desk, request.name, request.version or None)
        except NotServed:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def model_metadata(self, request: Any, context: Any) -> Any:
        await self._admit(context, request.name)
        name = request.name
        found_there = found(self._desk, name, request.version or None)
        return pb.ModelMetadataResponse(**metadata_of(name, *found_there))

    async def model_infer(self, request: Any, context: Any) -> Any:
        metadata = await self._admit(context, request.model_name)
        name = request.model_name
        columns, fits = columns_of(tensors_in(request))
        version = request.model_version
        number = number_of(version, name) if version else None
        request_id = request.id or metadata.get(REQUEST_ID_HEADER)
        wish = wish_in(parameters_in(request), self._desk.explaining.times)
        reply = await self._desk.answer(
            name, columns, request_id, number, fits, explain=wish
        )
        told = {VERSION_HEADER: str(reply.version), **reply.headers()}
        context.set_trailing_metadata(tuple(told.items()))
        head = {
            "model_name": name,
            "model_version": str(reply.version),
            "id": reply.request_id,
        }
        answer = answer_message(
            head, outputs_of(reply.said), request, tensors_of(reply.explanation)
        )
        set_parameters(answer, parameters_of(reply))
        return answer

    async def _admit(self, context: Any, pipeline: str | None) -> dict[str, str]:
        """Let only those pass who may; return the call's metadata."""
        metadata = dict(context.invocation_metadata() or ())
        header = metadata.get("authorization", "")
        caller = await self._guard.caller(credential_in(str(header)).secret)
        self._guard.check(caller, "score", pipeline)
        return metadata


def _answering(method: Method) -> Method:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except tuple(kind for kind, _ in CODES) as error:
            code = next(code for kind, code in CODES if isinstance(error, kind))
            await context.abort(code, str(error))

    return answer


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


@asynccontextmanager
async def grpc_server(
    desk: Desk,
    guard: Guard,
    is_ready: Callable[[], bool],
    host: str,
    port: int,
    max_bytes: int,
    *,
    is_shared: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> AsyncIterator[str]:
    """Serve the protocol; the value is ``host:port``.

    Parameters
    ----------
    is_shared : other processes may serve at the same port.
    tls : certificate and key (PEM); None: without TLS.

    Raises
    ------
    RuntimeError
        When the port is taken.
    """
    methods = Methods(desk, guard, is_ready)
    table: dict[str, tuple[Method, Any]] = {
        "ServerLive": (methods.server_live, pb.ServerLiveRequest),
        "ServerReady": (methods.server_ready, pb.ServerReadyRequest),
        "ServerMetadata": (methods.server_metadata, pb.ServerMetadataRequest),
        "ModelReady": (methods.model_ready, pb.ModelReadyRequest),
        "ModelMetadata": (methods.model_metadata, pb.ModelMetadataRequest),
        "ModelInfer": (methods.model_infer, pb.ModelInferRequest),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(method),
            request.FromString,
            _serialized,
        )
        for name, (method, request) in table.items()
    }
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes + OVERHEAD_BYTES),
            ("grpc.so_reuseport", int(is_shared)),
        ]
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, handlers),)
    )
    if tls is None:
        bound = server.add_insecure_port(f"{host}:{port}")
    else:
        certificate, key = (file.read_bytes() for file in tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        bound = server.add_secure_port(f"{host}:{port}", credentials)
    await server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        await server.stop(STOP_GRACE_S)
