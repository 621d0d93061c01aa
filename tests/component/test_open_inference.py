"""The Open Inference Protocol on real sockets: Triton's client, as it is; raw gRPC."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from driftloop.runtime.http import http_app
from driftloop.runtime.identity.guard import Guard
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.explaining.pool import Explaining
from driftloop.scorer.explaining.wish import Times
from driftloop.scorer.open_inference import open_inference_pb2 as pb
from driftloop.scorer.open_inference.rpc import SERVICE, grpc_server
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Served, Shelf

from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import NAME, Factory

FOLDER = Path(__file__).parent
CLIENT = FOLDER.parents[1] / ".venv-triton/bin/python"
TOKEN = "token-of-the-tests"
MAX_BYTES = 200_000
LABELS, SCORES = ["yes", "no"], [0.997527, 0.047426]
ANSWER = [LABELS, SCORES]
REFERENCE = pa.RecordBatch.from_pydict(
    {"size": [0.0, 2.0, 4.0, 6.0], "colour": ["red", "blue", "blue", "red"]}
)
HEAD = ["order-42", NAME, "3", {"role": "champion"}]


@dataclass
class Scorer:
    http: str
    grpc: str
    shelf: Shelf


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    factory = Factory(tmp_path_factory.mktemp("home"))
    loaded = factory.loaded(3, -5.0, is_binary=True, reference=REFERENCE)
    shelf = Shelf()
    shelf.show(NAME, Served(1, loaded, is_settled=True))
    shirts = factory.loaded(1, pipeline="shirts")
    shelf.show("shirts", Served(1, shirts, is_settled=True))
    settings = ScorerSettings.model_validate({"api_token": TOKEN})
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    explaining = Explaining(1, 1, Times(60_000, 60_000))
    desk = Desk(shelf, Traffic(), None, explaining)
    open_doors(app, routers(desk, settings, lambda: True))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    found: list[Scorer] = []
    started = threading.Event()

    async def serve() -> None:
        arguments = (desk, Guard(settings), lambda: True, "127.0.0.1", 0, MAX_BYTES)
        async with grpc_server(*arguments) as address:
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            found.append(Scorer(f"127.0.0.1:{port}", address, shelf))
            started.set()
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(120)
    try:
        yield found[0]
    finally:
        server.should_exit = True
        thread.join(120)
        explaining.close()


@pytest.fixture(scope="module")
def told(scorer: Scorer) -> dict[str, Any]:
    """What Triton's client was told by both doors."""
    assert CLIENT.exists(), "run `make setup-triton`"
    done = subprocess.run(
        [CLIENT, FOLDER / "triton_story.py", scorer.http, scorer.grpc, TOKEN, NAME],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_tritons_client_gets_its_answers(told: dict[str, Any], door: str) -> None:
    said = told[door]
    assert (said["live"], said["ready"]) == (True, True)
    assert said["model_ready"] == [True, False]
    assert said["server"]["name"] == "driftloop"
    assert "binary_tensor_data" in said["server"]["extensions"]
    assert said["model"]["name"] == NAME
    assert said["model"]["inputs"] == [
        {"name": "size", "datatype": "FP64", "shape": shape(door, [-1, 1])},
        {"name": "colour", "datatype": "BYTES", "shape": shape(door, [-1, 1])},
    ]
    assert said["head"] == HEAD
    assert said["answer"] == ANSWER
    assert said["datatypes"] == [ANSWER] * 4
    assert said["async"] == ANSWER


def shape(door: str, sizes: list[int]) -> list[Any]:
    """Return a shape as JSON has it; that of a message has its int64 as texts."""
    return sizes if door == "http" else [str(size) for size in sizes]


def test_tritons_client_over_http_only(told: dict[str, Any]) -> None:
    said = told["http"]
    assert said["json"] == ANSWER
    assert said["compressed"] == [ANSWER, ANSWER]
    assert said["index"] == [
        {"name": NAME, "version": "3", "state": "READY", "reason": ""},
        {"name": "shirts", "version": "1", "state": "READY", "reason": ""},
    ]


def test_tritons_client_is_told_what_is_wrong(told: dict[str, Any]) -> None:
    http, rpc = told["http"]["refused"], told["grpc"]["refused"]
    assert [status for status, _ in http] == ["401", "400", "404", "400"]
    assert [status for status, _ in rpc] == [
        f"StatusCode.{name}"
        for name in (
            "UNAUTHENTICATED",
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "NOT_FOUND",
            "INVALID_ARGUMENT",
        )
    ]
    assert "missing: colour" in http[1][1]
    assert "missing: colour" in rpc[1][1]
    assert "classification" in http[3][1]
    assert "classification" in rpc[4][1]


def test_the_program_on_the_page(scorer: Scorer, tmp_path: Path) -> None:
    """With the addresses of this test, and a token in its place."""
    page = (FOLDER.parents[1] / "docs/serving.md").read_text("utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (program,) = [text for text in programs if "tritonclient" in text]
    token = tmp_path / ".driftloop/secrets/api-token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    for module, address, port in (
        ("tritonclient.http", scorer.http, "7003"),
        ("tritonclient.grpc", scorer.grpc, "7003"),
    ):
        source = program.replace("tritonclient.http", module)
        source = source.replace(f"127.0.0.1:{port}", address)
        done = subprocess.run(
            [CLIENT, "-c", source],
            check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["[[11.]", "[", "2.]]"]


# ── gRPC, message by message ────────────────────────────────────────────────


@pytest.fixture
def call(scorer: Scorer) -> Iterator[Any]:
    """A function that calls a method, by default with the token."""
    with grpc.insecure_channel(scorer.grpc) as channel:

        def call(method: str, message: Any, token: str | None = TOKEN) -> Any:
            answers = getattr(pb, f"{method}Response")
            send = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=answers.FromString,
            )
            metadata = [("authorization", f"Bearer {token}")] if token else []
            return send(message, metadata=metadata, timeout=100)

        yield call


def request(**fields: Any) -> Any:
    message = pb.ModelInferRequest(model_name=NAME, id="42", **fields)
    size = message.inputs.add(name="size", datatype="FP64", shape=[2])
    size.contents.fp64_contents.extend([1.0, 2.0])
    colour = message.inputs.add(name="colour", datatype="BYTES", shape=[2, 1])
    colour.contents.bytes_contents.extend([b"red", "größe".encode()])
    return message


def raw_request(**fields: Any) -> Any:
    message = request(**fields)
    for given in message.inputs:
        given.ClearField("contents")
    texts = b"\3\0\0\0red" + b"\7\0\0\0" + "größe".encode()
    message.raw_input_contents.extend([np.array([1.0, 2.0]).tobytes(), texts])
    return message


def test_typed_contents_are_answered_typed_and_raw_ones_raw(call: Any) -> None:
    label, score = call("ModelInfer", request()).outputs
    assert list(label.contents.bytes_contents) == [b"yes", b"no"]
    assert list(score.contents.fp64_contents) == pytest.approx(SCORES, abs=1e-6)
    answer = call("ModelInfer", raw_request())
    assert answer.raw_output_contents[0] == b"\3\0\0\0yes\2\0\0\0no"
    scores = np.frombuffer(answer.raw_output_contents[1], "<f8")
    assert scores == pytest.approx(SCORES, abs=1e-6)
    assert (answer.id, answer.model_version) == ("42", "3")


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("FP32", "fp32_contents"), ("INT8", "int_contents"), ("INT16", "int_contents"),
        ("INT32", "int_contents"), ("INT64", "int64_contents"),
        ("UINT8", "uint_contents"), ("UINT16", "uint_contents"),
        ("UINT32", "uint_contents"), ("UINT64", "uint64_contents"),
    ],
)  # fmt: skip
def test_typed_contents_of_each_datatype(call: Any, datatype: str, field: str) -> None:
    message = request()
    message.inputs[0].datatype = datatype
    message.inputs[0].ClearField("contents")
    getattr(message.inputs[0].contents, field).extend([1, 2])
    assert call("ModelInfer", message).outputs[0].contents.bytes_contents == [
        b"yes",
        b"no",
    ]


def changed(message: Any, **fields: Any) -> Any:
    """Return a request whose first input has other fields."""
    for name, value in fields.items():
        if name == "shape":
            message.inputs[0].ClearField("shape")
            message.inputs[0].shape.extend(value)
        else:
            setattr(message.inputs[0], name, value)
    return message


def with_extra(message: Any, place: str) -> Any:
    {
        "request": message,
        "input": message.inputs[0],
    }[place].parameters["sequence_id"].int64_param = 7
    return message


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (changed(request(), datatype="FP99"), "INVALID_ARGUMENT", "unknown datatype"),
        (changed(request(), datatype="FP16"), "INVALID_ARGUMENT", "send FP16 in raw"),
        (changed(request(), datatype="FP32"), "INVALID_ARGUMENT", "2 values expected"),
        (changed(request(), shape=[3]), "INVALID_ARGUMENT", "3 values expected"),
        (changed(request(), shape=[2, 2]), "INVALID_ARGUMENT", "4 values expected"),
        (changed(request(), shape=[-1]), "INVALID_ARGUMENT", "expected shape"),
        (changed(request(), name="colour"), "INVALID_ARGUMENT", "comes twice"),
        (changed(raw_request(), datatype="FP32"), "INVALID_ARGUMENT", "are 8 bytes"),
        (with_extra(request(), "request"), "INVALID_ARGUMENT", "no sequences"),
        (with_extra(raw_request(), "input"), "INVALID_ARGUMENT", "no sequences"),
        (
            pb.ModelInferRequest(model_name=NAME),
            "INVALID_ARGUMENT",
            "expected 'inputs'",
        ),
        (pb.ModelInferRequest(model_name="other"), "INVALID_ARGUMENT", "'inputs'"),
        (request(model_version="9"), "NOT_FOUND", "version 9"),
        (request(model_version="x"), "NOT_FOUND", "version 'x'"),
        (request(raw_input_contents=[b"1"]), "INVALID_ARGUMENT", "1 for 2 inputs"),
        (request(raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "both contents"),
        (request(raw_input_contents=[b"0" * 2_000_000]), "RESOURCE_EXHAUSTED", ""),
    ],
)
def test_a_message_that_is_not_right(
    call: Any, message: Any, code: str, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call("ModelInfer", message)
    assert refused.value.code().name == code
    assert words in refused.value.details()


def test_every_method_but_the_probes_needs_the_token(call: Any) -> None:
    for method, message in (
        ("ServerMetadata", pb.ServerMetadataRequest()),
        ("ModelReady", pb.ModelReadyRequest(name=NAME)),
        ("ModelMetadata", pb.ModelMetadataRequest(name=NAME)),
        ("ModelInfer", request()),
    ):
        for token in (None, "other"):
            with pytest.raises(grpc.RpcError) as refused:
                call(method, message, token)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        call(method, message)
    for method in ("ServerLive", "ServerReady"):
        call(method, getattr(pb, f"{method}Request")(), None)


def test_a_method_that_there_is_not(scorer: Scorer) -> None:
    with grpc.insecure_channel(scorer.grpc) as channel:
        unknown = channel.unary_unary(f"/{SERVICE}/ModelConfig")
        with pytest.raises(grpc.RpcError) as refused:
            unknown(b"", timeout=100)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ── explanations ────────────────────────────────────────────────────────────


def test_an_answer_is_explained(call: Any) -> None:
    """Typed or raw, as the values came; the parameters have their own types."""
    for made in (request, raw_request):
        message = made()
        message.parameters["explain"].bool_param = True
        message.parameters["explain_ms"].int64_param = 60_000
        answer = call("ModelInfer", message)
        assert [output.name for output in answer.outputs] == [
            "prediction", "score",
            "explanation", "explanation_standard_error", "explanation_base",
        ]  # fmt: skip
        assert list(answer.outputs[2].shape) == [2, 2]
        values, errors, base = (
            np.frombuffer(answer.raw_output_contents[place], "<f8")
            if answer.raw_output_contents
            else np.array(answer.outputs[place].contents.fp64_contents)
            for place in (2, 3, 4)
        )
        chances = [SCORES[0], 1 - SCORES[1]]
        sums = values.reshape(2, 2).sum(axis=1) + base
        assert sums == pytest.approx(chances, abs=1e-5)
        assert not errors.any()
        told = answer.parameters
        assert told["role"].string_param == "champion"
        assert told["explain_method"].string_param == "exact"
        assert told["explain_timed_out"].WhichOneof("parameter_choice") == "bool_param"
        assert told["explain_background_rows"].int64_param == 4
        assert json.loads(told["explain_columns"].string_param) == ["size", "colour"]


def test_no_explanation_is_told_that_was_not_asked_for(call: Any) -> None:
    answer = call("ModelInfer", request())
    assert [output.name for output in answer.outputs] == ["prediction", "score"]
    assert list(answer.parameters) == ["role"]


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("explain", "string_param", "true"),
        ("explain", "int64_param", 1),
        ("explain_ms", "int64_param", 0),
        ("explain_ms", "double_param", 5.5),
    ],
)
def test_a_wrong_wish_is_named(call: Any, name: str, kind: str, value: Any) -> None:
    message = request()
    setattr(message.parameters[name], kind, value)
    with pytest.raises(grpc.RpcError) as refused:
        call("ModelInfer", message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{name}: expected")


def test_tritons_client_is_told_why(told: dict[str, Any]) -> None:
    """By its own ``parameters``, through both doors."""
    for door in ("http", "grpc"):
        values, base, columns = told[door]["explained"]
        sums = [sum(row) + start for row, start in zip(values, base, strict=True)]
        assert sums == pytest.approx([SCORES[0], 1 - SCORES[1]], abs=1e-5)
        assert json.loads(columns) == ["size", "colour"]
