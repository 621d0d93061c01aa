"""Both doors by their protocols: routes, shapes, errors, who answers."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.open_inference.tensors import values_in
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Pace, Served, Shelf
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.routing import Match

from tests.unit.scorer import packages
from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import HttpClient

TOKEN = "token-of-the-tests"
OPEN = {"/v2/health/live", "/v2/health/ready", "/ping", "/health"}
JSON_LENGTH = "Inference-Header-Content-Length"
INFER = f"/v2/models/{NAME}/infer"
SIZE = {"name": "size", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}
COLOUR = {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", "x"]}
BODY = {"id": "42", "inputs": [SIZE, COLOUR]}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    loaded = Factory(tmp_path_factory.mktemp("home")).loaded
    return {
        "one": loaded(1, 1.0),
        "two": loaded(2, 2.0),
        "bad": loaded(2, extra=packages.NAN_ABOVE_100),
        "binary": loaded(3, -5.0, is_binary=True),
    }


@pytest.fixture
def shelf(versions: dict[str, Loaded]) -> Shelf:
    shelf = Shelf()
    shelf.show(NAME, Served(1, versions["one"], is_settled=True))
    return shelf


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def app(shelf: Shelf, traffic: Traffic) -> FastAPI:
    settings = ScorerSettings.model_validate(
        {"api_token": TOKEN, "max_body_bytes": 2000}
    )
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    is_ready = lambda: bool(shelf.pipelines())  # noqa: E731 - as the service gives one
    open_doors(app, routers(Desk(shelf, traffic), settings, is_ready))
    return app


@pytest.fixture
def client(app: FastAPI) -> HttpClient:
    return HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})


def without(body: dict[str, Any], *path: Any) -> dict[str, Any]:
    """Return a copy of a request whose first input has other fields."""
    return body | {"inputs": [SIZE | dict(path), COLOUR]}


def test_every_route_but_the_probes_needs_the_token(app: FastAPI) -> None:
    stranger = HttpClient(app)
    paths = app.openapi()["paths"]
    assert set(paths) > OPEN
    for path, methods in paths.items():
        for method in methods:
            url = path.replace("{model}", NAME).replace("{version}", "1")
            status = stranger.request(method, url).status_code
            assert (status == 401) is (path not in OPEN), (method, path, status)
    wrong = {"Authorization": "Bearer other"}
    assert stranger.get("/v2", headers=wrong).status_code == 401


def test_a_wrong_token_is_an_error_of_the_protocol(app: FastAPI) -> None:
    response = HttpClient(app).post(INFER, json=BODY)
    assert list(response.json()) == ["error"]
    assert response.headers["www-authenticate"] == "Bearer"
    response = HttpClient(app).post("/invocations", json={})
    assert response.json()["error_code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("method", "url", "host", "status"),
    [
        ("POST", INFER, "localhost", 200),
        ("POST", INFER, "elsewhere.example", 400),
        ("GET", INFER, "localhost", 405),
        ("POST", f"{INFER}/", "localhost", 307),
        ("POST", f"{INFER}/more", "localhost", 404),
    ],
)
def test_a_door_takes_what_is_its_own(
    client: HttpClient, method: str, url: str, host: str, status: int
) -> None:
    """It is found before other routes; who may ask, and the rest, are as with them."""
    answer = client.request(method, url, json=BODY, headers={"host": host})
    assert answer.status_code == status


def test_requests_find_their_door_before_the_router(app: FastAPI) -> None:
    doors = app.router.routes[0]

    def found(method: str, path: str) -> dict[str, str] | None:
        asked = {"type": "http", "method": method, "path": path}
        match, scope = doors.matches(asked)
        return scope["path_params"] if match is Match.FULL else None

    versioned = "/v2/models/bikes/versions/3/infer"
    assert found("POST", versioned) == {"model": "bikes", "version": "3"}
    assert found("POST", "/invocations") == {}
    assert found("GET", "/invocations") is None
    assert found("GET", "/v2/health/ready") is None  # a probe: it is no door


def test_server_and_health(client: HttpClient, shelf: Shelf) -> None:
    about = client.get("/v2").json()
    assert (about["name"], about["extensions"]) == (
        "driftloop",
        ["binary_tensor_data", "model_repository(index)"],
    )
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
    shelf.show(NAME, Served(2))
    response = client.get("/v2/health/ready")
    assert (response.status_code, response.json()["ready"]) == (503, False)


def test_metadata(client: HttpClient) -> None:
    for url in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/1"):
        assert client.get(url).json() == {
            "name": NAME,
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": "size", "datatype": "FP64", "shape": [-1, 1]},
                {"name": "colour", "datatype": "BYTES", "shape": [-1, 1]},
            ],
            "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [-1, 1]}],
        }
        assert client.get(f"{url}/ready").json() == {"name": NAME, "ready": True}


@pytest.mark.parametrize(
    "path",
    ["other", "Bike-Demand", f"{NAME}/versions/2", f"{NAME}/versions/x"],
)
def test_what_is_not_served_is_not_found(client: HttpClient, path: str) -> None:
    for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        body = BODY if method == "POST" else None
        response = client.request(method, f"/v2/models/{path}{end}", json=body)
        assert response.status_code == 404
        assert "not served" in response.json()["error"] or "no model" in response.text


@pytest.mark.parametrize("url", [INFER, f"/v2/models/{NAME}/versions/1/infer"])
def test_inference(client: HttpClient, url: str) -> None:
    response = client.post(url, json=BODY)
    assert response.status_code == 200
    assert response.headers["x-driftloop-model-version"] == "1"
    assert response.json() == {
        "model_name": NAME,
        "model_version": "1",
        "id": "42",
        "parameters": {"role": "champion"},
        "outputs": [
            {
                "name": "prediction",
                "datatype": "FP64",
                "shape": [2, 1],
                "data": [12.0, 3.0],
            }
        ],
    }


def learned_from(loaded: Loaded, least: float, greatest: float) -> Loaded:
    size, colour = loaded.manifest.inputs
    inputs = [size.model_copy(update={"least": least, "greatest": greatest}), colour]
    manifest = loaded.manifest.model_copy(update={"inputs": inputs})
    return replace(loaded, manifest=manifest)


def test_values_not_learned_from_are_told(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    """By the version that answers; the answer is given all the same."""
    before = counted_unfamiliar()
    within, beyond = (learned_from(versions["one"], 0, most) for most in (2, 1))
    for loaded, warned in ((within, False), (beyond, True)):
        shelf.show(NAME, Served(1, loaded, is_settled=True))
        answer = client.post(INFER, json=BODY)
        rows = {"size": 1.0, "colour": "red"}, {"size": 2.0, "colour": "x"}
        as_mlflow = client.post("/invocations", json={"dataframe_records": rows})
        said = answer.json()["parameters"].get("warnings")
        words = "size: 1 row not within 0 to 1, as in training"
        assert said == (words if warned else None)
        header = answer.headers.get("x-driftloop-unfamiliar")
        assert header == as_mlflow.headers.get("x-driftloop-unfamiliar")
        assert header == ("size" if warned else None)
        assert answer.json()["outputs"][0]["data"] == [12.0, 3.0]
    assert counted_unfamiliar() == before + 2


def counted_unfamiliar() -> float:
    name = "driftloop_scorer_unfamiliar_requests_total"
    return REGISTRY.get_sample_value(name, {"pipeline": NAME}) or 0.0


def test_nested_data_null_and_integers(client: HttpClient) -> None:
    body = without(BODY, ("data", [[1], [3]]), ("datatype", "INT64"))
    assert client.post(INFER, json=body).json()["outputs"][0]["data"] == [12.0, 4.0]


def test_an_id_is_made_where_none_is_given(client: HttpClient) -> None:
    body = {"inputs": BODY["inputs"]}
    assert len(client.post(INFER, json=body).json()["id"]) == 36
    sent = client.post(INFER, json=body, headers={"X-Request-Id": "mine"}).json()
    assert sent["id"] == "mine"


def test_a_classifier(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, versions["binary"]))
    label, score = client.post(INFER, json=BODY).json()["outputs"]
    assert (label["datatype"], label["data"]) == ("BYTES", ["yes", "no"])
    assert (score["name"], score["shape"]) == ("score", [2, 1])
    assert score["data"] == pytest.approx([1 / (1 + np.exp(-6)), 1 / (1 + np.exp(3))])
    asked = BODY | {"outputs": [{"name": "score"}]}
    (only,) = client.post(INFER, json=asked).json()["outputs"]
    assert only == score
    declared = client.get(f"/v2/models/{NAME}").json()["outputs"]
    assert [o["datatype"] for o in declared] == ["BYTES", "FP64"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b"\xff", "not JSON"),
        ({}, "expected 'inputs'"),
        ({"inputs": []}, "expected 'inputs'"),
        ({"inputs": [3]}, "has no 'name'"),
        ({"inputs": [SIZE]}, "missing: colour"),
        ({"inputs": [SIZE, COLOUR, SIZE]}, "comes twice"),
        ({"inputs": [SIZE, COLOUR, SIZE | {"name": "x"}]}, "has no input 'x'"),
        (without(BODY, ("datatype", "BYTES")), "is a number: send FP64, not BYTES"),
        (without(BODY, ("datatype", "FP99")), "unknown datatype"),
        (without(BODY, ("shape", [3, 1])), "does not fit 2 values"),
        (without(BODY, ("shape", [2, 2])), "does not fit 2 values"),
        (without(BODY, ("shape", "2")), "expected shape"),
        (without(BODY, ("shape", [True])), "expected shape"),
        (without(BODY, ("data", "ab")), "expected 'data'"),
        (without(BODY, ("data", ["a", 1])), "size: row 0"),
        (without(BODY, ("shape", [1]), ("data", [1.0])), "colour has 2 values"),
        (BODY | {"id": 3}, "'id' must be text"),
        (BODY | {"outputs": [{"name": "x"}]}, "has no output 'x'"),
        (BODY | {"outputs": 3}, "expected 'outputs'"),
    ],
)
def test_a_request_that_is_not_right(
    client: HttpClient, body: Any, message: str
) -> None:
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = client.post(INFER, **content)
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


def test_a_body_that_is_too_long(client: HttpClient) -> None:
    response = client.post(INFER, content=b"[" * 3000)
    assert response.status_code == 413
    assert "at most 2000 bytes" in response.json()["error"]

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"[" * 1000

    assert client.post(INFER, content=chunks()).status_code == 413


def test_a_candidate_answers_its_share_by_request_id(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, versions["one"], versions["two"], 0.5))
    answers = {}
    for number in range(60):
        body = BODY | {"id": f"request-{number}"}
        answers[number] = client.post(INFER, json=body).json()["model_version"]
        assert client.post(INFER, json=body).json()["model_version"] == answers[number]
    assert 15 < list(answers.values()).count("2") < 45
    shelf.show(NAME, Served(3, versions["one"], versions["two"], 0.0))
    for number in range(20):
        body = BODY | {"id": f"request-{number}"}
        assert client.post(INFER, json=body).json()["model_version"] == "1"
    explicit = client.post(f"/v2/models/{NAME}/versions/2/infer", json=BODY).json()
    assert explicit["model_version"] == "2"
    assert explicit["parameters"] == {"role": "candidate"}


def test_a_candidate_that_fails_harms_nobody_and_is_counted(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded], traffic: Traffic
) -> None:
    shelf.show(NAME, Served(2, versions["one"], versions["bad"], 1.0))
    body = without(BODY, ("data", [500.0, 1.0]))
    answer = client.post(INFER, json=body).json()
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["data"] == [511.0, 2.0]
    assert traffic.has_errors()
    (((pipeline, generation), (champion, candidate)),) = traffic.drain().items()
    assert (pipeline, generation) == (NAME, 2)
    assert (champion.row_count, champion.error_count) == (2, 0)
    assert (candidate.row_count, candidate.error_count) == (2, 2)
    assert candidate.role == "candidate"
    assert "no finite answer for 1 of 2 rows" in candidate.detail
    assert traffic.drain() == {}


def test_a_champion_that_fails_says_so(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, versions["bad"]))
    response = client.post(INFER, json=without(BODY, ("data", [500.0, 1.0])))
    assert response.status_code == 500
    assert "no finite answer for 1 of 2 rows" in response.json()["error"]


def test_a_slow_model_leaves_the_event_loop(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, replace(versions["one"], pace=Pace(1.0, 1.0))))
    assert client.post(INFER, json=BODY).json()["outputs"][0]["data"] == [12.0, 3.0]


# ── binary tensors, encodings, the index ────────────────────────────────────


def packed(*inputs: dict[str, Any], more: bytes = b"", **fields: Any) -> dict[str, Any]:
    """Return content and headers; an input's ``raw`` goes behind the JSON."""
    raw = b"".join(given.get("raw", b"") for given in inputs)
    described = [
        {k: v for k, v in given.items() if k != "raw"}
        | (
            {"parameters": {"binary_data_size": len(given["raw"])}}
            if "raw" in given and "parameters" not in given
            else {}
        )
        for given in inputs
    ]
    text = json.dumps({"id": "42", "inputs": described, **fields}).encode()
    return {
        "content": text + raw + more,
        "headers": {"Inference-Header-Content-Length": str(len(text))},
    }


def texts(*values: str) -> bytes:
    parts = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


RAW_COLOUR = {
    "name": "colour", "shape": [2], "datatype": "BYTES", "raw": texts("red", "größe")
}  # fmt: skip


def raw_size(datatype: str, values: list[float], kind: str) -> dict[str, Any]:
    return {
        "name": "size",
        "shape": [len(values)],
        "datatype": datatype,
        "raw": np.array(values, kind).tobytes(),
    }


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [
        ("FP64", "<f8"), ("FP32", "<f4"), ("FP16", "<f2"), ("INT64", "<i8"),
        ("INT32", "<i4"), ("INT16", "<i2"), ("INT8", "i1"), ("UINT64", "<u8"),
        ("UINT32", "<u4"), ("UINT16", "<u2"), ("UINT8", "u1"),
    ],
)  # fmt: skip
def test_binary_tensors_of_each_datatype(
    client: HttpClient, datatype: str, kind: str
) -> None:
    request = packed(raw_size(datatype, [1, 2], kind), RAW_COLOUR)
    answer = client.post(INFER, **request)
    assert answer.json()["outputs"][0]["data"] == [12.0, 3.0]
    mixed = packed(raw_size(datatype, [1, 2], kind), COLOUR)
    assert client.post(INFER, **mixed).json() == answer.json()


def test_a_nan_is_a_missing_value() -> None:
    raw = np.array([1, np.nan]).tobytes()
    assert values_in(raw, "size", "FP64", 2) == [1.0, None]


def test_binary_answers_where_they_are_asked_for(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, versions["binary"]))
    for fields in (
        {"parameters": {"binary_data_output": True}},
        {
            "outputs": [
                {"name": name, "parameters": {"binary_data": True}}
                for name in ("prediction", "score")
            ]
        },
    ):
        response = client.post(INFER, json=BODY | fields)
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["inference-header-content-length"])
        label, score = json.loads(response.content[:length])["outputs"]
        assert "data" not in label
        size = label["parameters"]["binary_data_size"]
        assert response.content[length : length + size] == texts("yes", "no")
        scores = np.frombuffer(response.content[length + size :], "<f8")
        assert len(scores) * 8 == score["parameters"]["binary_data_size"]
        assert scores == pytest.approx([1 / (1 + np.exp(-6)), 1 / (1 + np.exp(3))])
    one = [{"name": "score", "parameters": {"binary_data": False}}]
    asked = BODY | {"outputs": one, "parameters": {"binary_data_output": True}}
    assert "data" in client.post(INFER, json=asked).json()["outputs"][0]


SIZE_1 = raw_size("FP64", [1, 2], "<f8")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (packed(SIZE_1 | {"raw": b"1234567"}, COLOUR), "are 16 bytes, not 7"),
        (packed(SIZE_1 | {"data": [1]}, COLOUR), "both 'data' and binary_data_size"),
        (packed(SIZE_1, COLOUR, more=b"x"), "1 bytes behind the JSON"),
        (
            packed(SIZE_1 | {"parameters": {"binary_data_size": 17}}, COLOUR),
            "behind the JSON are 16 bytes more",
        ),
        (
            packed(SIZE_1 | {"parameters": {"binary_data_size": "16"}}, COLOUR),
            "binary_data_size is '16'",
        ),
        (packed(SIZE_1, RAW_COLOUR | {"raw": texts("a")}), "2 values expected, 1"),
        (packed(SIZE_1, RAW_COLOUR | {"raw": b"\1\0\0"}), "end within a length"),
        (packed(SIZE_1, RAW_COLOUR | {"raw": b"\2\0\0\0a"}), "end within a value"),
        (
            packed(SIZE_1, RAW_COLOUR | {"raw": b"\1\0\0\0\xff" * 2}),
            "value 0 is not UTF-8",
        ),
        (packed(raw_size("FP64", [1, np.inf], "<f8"), COLOUR), "row 1 is no number"),
        (packed(raw_size("BOOL", [1, 2], "u1"), COLOUR), "is 0 or 1"),
        (
            packed(SIZE_1, COLOUR) | {"headers": {JSON_LENGTH: "9999"}},
            "is not the length",
        ),
        (packed(SIZE_1, COLOUR) | {"headers": {JSON_LENGTH: "-1"}}, "not the length"),
        (packed(SIZE_1, COLOUR, parameters=[1]), "expected 'parameters'"),
        (
            packed(SIZE_1 | {"parameters": {"shared_memory_region": "a"}}, COLOUR),
            "no shared memory",
        ),
        (
            packed(
                SIZE_1, COLOUR,
                outputs=[{"name": "prediction", "parameters": {"classification": 3}}],
            ),
            "no classification extension",
        ),
        (packed(SIZE_1, COLOUR, outputs=[{"name": 3}]), "expected 'outputs'"),
    ],
)  # fmt: skip
def test_binary_tensors_that_are_not_right(
    client: HttpClient, request_: dict[str, Any], message: str
) -> None:
    response = client.post(INFER, **request_)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body(client: HttpClient, encoding: str, compress: Any) -> None:
    request = packed(SIZE_1, RAW_COLOUR)
    headers = request["headers"] | {"Content-Encoding": encoding}

    def post(content: bytes) -> Any:
        return client.post(INFER, content=content, headers=headers)

    sent = compress(request["content"])
    assert post(sent).json()["outputs"][0]["data"] == [12.0, 3.0]
    for broken in (sent[:-3], sent + b"more", request["content"]):
        assert post(broken).status_code == 400
        assert f"is not {encoding}" in post(broken).json()["error"]
    assert post(compress(b"[" * 1_000_000)).status_code == 413
    headers["Content-Encoding"] = "br"
    refused = post(sent)
    assert refused.status_code == 415
    assert "gzip, deflate" in refused.json()["error"]


def test_the_index_of_models(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(1, versions["one"], failed={2: "it has no signature"}))
    assert client.post("/v2/repository/index").json() == [
        {"name": NAME, "version": "1", "state": "READY", "reason": ""},
        {
            "name": NAME,
            "version": "2",
            "state": "UNAVAILABLE",
            "reason": "it has no signature",
        },
    ]


# ── MLflow ──────────────────────────────────────────────────────────────────

RECORDS = [{"size": 1.0, "colour": "red"}, {"size": 2.0, "colour": "x"}]
ROWS = [[1.0, "red"], [2.0, "x"]]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": RECORDS},
        {"dataframe_split": {"columns": ["size", "colour"], "data": ROWS}},
        {
            "dataframe_split": {
                "index": [5, 6], "columns": ["colour", "size", "more"],
                "data": [["red", 1.0, 0], ["x", 2.0, 0]],
            },
            "params": {},
        },
        {"instances": RECORDS},
        {"instances": ROWS},
        {"inputs": {"size": [1.0, 2.0], "colour": ["red", "x"]}},
        {"inputs": {"size": [[1.0], [2.0]], "colour": [["red"], ["x"]]}},
        {"inputs": ROWS},
    ],
)  # fmt: skip
def test_each_form_of_invocation(client: HttpClient, body: Any) -> None:
    response = client.post("/invocations", json=body)
    assert response.json() == {"predictions": [12.0, 3.0]}
    assert response.headers["x-driftloop-model-version"] == "1"


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "TEXT/CSV"])
def test_invocation_with_csv(client: HttpClient, kind: str) -> None:
    response = client.post(
        "/invocations",
        content='colour,size,more\nred,1,a\n"x",2.0,b\n',
        headers={"content-type": kind},
    )
    assert response.json() == {"predictions": [12.0, 3.0]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "exactly one of"),
        ({"instances": ROWS, "inputs": ROWS}, "exactly one of"),
        ({"data": ROWS}, "it has 'data'"),
        ([1], "must be a JSON object, not a list"),
        ({"instances": 3}, "expected a list"),
        ({"instances": [[1.0]]}, "row 0 does not have 2 values"),
        ({"dataframe_split": ROWS}, "expected 'columns' and 'data'"),
        ({"dataframe_split": {"columns": 1, "data": ROWS}}, "must be lists"),
        ({"dataframe_split": {"columns": ["size"], "data": ROWS}}, "row 0"),
        (
            {"dataframe_split": {"columns": ["size", "size"], "data": ROWS}},
            "column 'size' comes twice",
        ),
        ({"dataframe_split": {"columns": ["size"], "data": RECORDS}}, "must be a list"),
        ({"dataframe_records": [{"size": 1.0}]}, "missing: colour"),
        ({"dataframe_records": [RECORDS[0], {"size": 1}]}, "colour: row 1 is None"),
        ({"inputs": {"size": [1.0], "colour": ["a", "b"]}}, "colour has 2 values"),
    ],
)
def test_an_invocation_that_is_not_right(
    client: HttpClient, body: Any, message: str
) -> None:
    response = client.post("/invocations", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error_code"] == "BAD_REQUEST"
    assert message in response.json()["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"size,colour\n1\n", "row 0 does not have 2 values"),
        (b"size,colour,size\n1,red,2\n", "column 'size' comes twice"),
        (b"size,colour\nx,red\n", "size: row 0 is 'x'"),
        (b"\xff\xfe", "not CSV in UTF-8"),
        (b'size,colour\n"1,red\n', "not CSV"),
    ],
)
def test_csv_that_is_not_right(
    client: HttpClient, content: bytes, message: str
) -> None:
    response = client.post(
        "/invocations", content=content, headers={"content-type": "text/csv"}
    )
    assert response.status_code == 400
    assert message in response.json()["message"]


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/json; charset=latin-1", "application/json; a=b"],
)
def test_a_content_type_that_is_not_supported(client: HttpClient, kind: str) -> None:
    response = client.post(
        "/invocations", content=b"{}", headers={"content-type": kind}
    )
    assert response.status_code == 415
    assert response.headers["content-type"].startswith("text/plain")


def test_ping_and_version(client: HttpClient, shelf: Shelf) -> None:
    assert client.get("/version").text.count(".") >= 1
    for path in ("/ping", "/health"):
        assert client.get(path).status_code == 200
    shelf.show(NAME, Served(2))
    for path in ("/ping", "/health"):
        assert client.get(path).status_code == 404
    response = client.post("/invocations", json={"instances": ROWS})
    assert response.status_code == 404
    assert response.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_which_pipeline_is_named_where_there_are_several(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show("other", Served(1, versions["two"]))
    body = {"instances": ROWS}
    response = client.post("/invocations", json=body)
    assert response.status_code == 400
    assert f"{NAME}, other" in response.json()["message"]
    named = {
        "/pipelines/other/invocations": {},
        "/invocations": {"X-Driftloop-Pipeline": "other"},
        "/invocations?pipeline=other": {},
    }
    for url, headers in named.items():
        response = client.post(url, json=body, headers=headers)
        assert response.json() == {"predictions": [13.0, 4.0]}
    missing = client.post("/pipelines/none/invocations", json=body)
    assert missing.status_code == 404


def test_a_classifier_invoked(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    shelf.show(NAME, Served(2, versions["binary"]))
    response = client.post("/invocations", json={"instances": ROWS})
    assert response.json() == {"predictions": ["yes", "no"]}


def test_calls_and_versions_are_metrics(
    client: HttpClient, shelf: Shelf, versions: dict[str, Loaded]
) -> None:
    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"pipeline": "metered", **labels})

    rows = {"role": "champion", "door": "requests"}
    shelf.show("metered", Served(1, versions["one"], versions["bad"]))
    client.post("/v2/models/metered/infer", json=BODY)
    assert value("driftloop_scorer_rows_total", outcome="answered", **rows) == 2
    assert value("driftloop_scorer_call_duration_seconds_count", **rows) == 1
    info = "driftloop_model_serving_info"
    assert value(info, version="2", role="candidate") == 1
    shelf.show("metered", Served(2, versions["bad"]))
    assert value(info, version="2", role="candidate") is None
    assert value(info, version="1", role="champion") is None
    assert value(info, version="2", role="champion") == 1
    client.post("/v2/models/metered/infer", json=without(BODY, ("data", [500.0, 1.0])))
    assert value("driftloop_scorer_rows_total", outcome="failed", **rows) == 2
