"""Explanations at the doors; and that no answer is lost for want of one."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.explaining import shapley
from driftloop.scorer.explaining.explainer import (
    BACKGROUND_ROWS,
    Explainer,
    Unexplained,
    explainer_of,
)
from driftloop.scorer.explaining.pool import OFF, Explaining
from driftloop.scorer.explaining.wish import Times
from driftloop.scorer.open_inference.tensors import values_in
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Served, Shelf
from prometheus_client import REGISTRY
from pydantic import ValidationError

from tests.unit.scorer import packages
from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import HttpClient

TOKEN = "token-of-the-tests"
INFER, INVOKE = f"/v2/models/{NAME}/infer", f"/pipelines/{NAME}/invocations"
LENGTH = "Inference-Header-Content-Length"
SIZE = {"name": "size", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}
COLOUR = {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", "x"]}
BODY: dict[str, Any] = {"id": "42", "inputs": [SIZE, COLOUR]}
RECORDS = [{"size": 1.0, "colour": "red"}, {"size": 2.0, "colour": "x"}]
LONG_MS = 60_000
WISH = {"explain": True, "explain_ms": LONG_MS}
REFERENCE = pa.RecordBatch.from_pydict(
    {
        "id": [str(number) for number in range(100)],
        "size": [number / 10 for number in range(100)],
        "colour": ["red" if number < 25 else "blue" for number in range(100)],
        "cnt": [0.0] * 100,
    }
)
TAKEN = np.unique(np.linspace(0, 99, BACKGROUND_ROWS).astype(int))
"""Rows of it that answers are compared with: evenly over time."""
BASE_SIZE = float(np.mean([number / 10 for number in TAKEN]))
RED_SHARE = float(np.mean([number < 25 for number in TAKEN]))
CONTRIBUTIONS = [
    {"size": 1 - BASE_SIZE, "colour": 10 * (1 - RED_SHARE)},
    {"size": 2 - BASE_SIZE, "colour": -10 * RED_SHARE},
]
BASE = 1 + BASE_SIZE + 10 * RED_SHARE


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def versions(factory: Factory) -> dict[str, Loaded]:
    explained: dict[str, Any] = {"reference": REFERENCE}
    return {
        "one": factory.loaded(1, 1.0, **explained),
        "two": factory.loaded(2, 2.0, **explained),
        "binary": factory.loaded(3, -5.0, is_binary=True, **explained),
        "bare": factory.loaded(4, 1.0),
    }


class Door:
    """A scorer's doors with one version."""

    def __init__(self, loaded: Loaded, threads: int = 1, waiting: int = 1) -> None:
        self.shelf = Shelf()
        self.shelf.show(NAME, Served(1, loaded, is_settled=True))
        self.explaining = Explaining(threads, waiting, Times(LONG_MS, LONG_MS))
        settings = ScorerSettings.model_validate({"api_token": TOKEN})
        app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
        desk = Desk(self.shelf, Traffic(), None, self.explaining)
        open_doors(app, routers(desk, settings, lambda: True))
        self.client = HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})

    def infer(self, **parameters: Any) -> dict[str, Any]:
        reply = self.client.post(INFER, json=BODY | {"parameters": parameters})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def invoke(self, **parameters: Any) -> dict[str, Any]:
        reply = self.client.post(
            INVOKE, json={"dataframe_records": RECORDS, "params": parameters}
        )
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer


@pytest.fixture
def door(versions: dict[str, Loaded]) -> Iterator[Door]:
    door = Door(versions["one"])
    yield door
    door.explaining.close()


def counted(outcome: str) -> float:
    labels = {"pipeline": NAME, "outcome": outcome}
    name = "driftloop_scorer_explanations_total"
    return REGISTRY.get_sample_value(name, labels) or 0.0


# ── what is told ────────────────────────────────────────────────────────────


def test_open_inference_tells_it_as_tensors(door: Door) -> None:
    before = counted("explained")
    answer = door.infer(**WISH)
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert list(outputs) == [
        "prediction", "explanation", "explanation_standard_error", "explanation_base",
    ]  # fmt: skip
    assert outputs["prediction"]["data"] == [12.0, 3.0]
    told = outputs["explanation"]
    assert (told["datatype"], told["shape"]) == ("FP64", [2, 2])
    wanted = [value for row in CONTRIBUTIONS for value in row.values()]
    assert told["data"] == pytest.approx(wanted, abs=1e-5)
    assert outputs["explanation_standard_error"]["data"] == [0.0] * 4
    assert outputs["explanation_base"]["shape"] == [2, 1]
    assert outputs["explanation_base"]["data"] == pytest.approx([BASE] * 2, abs=1e-5)
    assert answer["parameters"] == {
        "role": "champion",
        "explain_unit": "cnt",
        "explain_method": "exact",
        "explain_background_rows": BACKGROUND_ROWS,
        "explain_model_calls": 1,
        "explain_mixtures": 2 * BACKGROUND_ROWS * 2,
        "explain_timed_out": False,
        "explain_columns": '["size", "colour"]',
    }
    assert counted("explained") == before + 1


def test_invocations_tell_it_by_name(door: Door) -> None:
    answer = door.invoke(**WISH)
    assert answer["predictions"] == [12.0, 3.0]
    told = answer["explanations"]
    for row, wanted in zip(told.pop("rows"), CONTRIBUTIONS, strict=True):
        assert row["contributions"] == pytest.approx(wanted, abs=1e-5)
        assert row["standard_errors"] == {"size": 0.0, "colour": 0.0}
        assert row["base"] == pytest.approx(BASE, abs=1e-5)
        total = row["base"] + sum(row["contributions"].values())
        assert total == pytest.approx(row["answer"])
    assert told == {
        "unit": "cnt",
        "method": "exact",
        "background_rows": BACKGROUND_ROWS,
        "model_calls": 1,
        "mixtures": 2 * BACKGROUND_ROWS * 2,
        "timed_out": False,
    }


def test_a_csv_asks_in_its_address(door: Door) -> None:
    reply = door.client.post(
        f"{INVOKE}?explain=true&explain_ms={LONG_MS}",
        content=b"size,colour\n1,red\n2,x\n",
        headers={"content-type": "text/csv"},
    )
    (first, _) = reply.json()["explanations"]["rows"]
    assert first["contributions"] == pytest.approx(CONTRIBUTIONS[0], abs=1e-5)


@pytest.mark.parametrize(
    "parameters", [{}, {"explain": False}, {"explain": False, "explain_ms": 5}, None]
)
def test_who_does_not_ask_is_told_nothing(door: Door, parameters: Any) -> None:
    """Nor is anything computed for it."""
    before = [counted(o) for o in ("explained", "timed_out", "refused", "failed")]
    body = {"dataframe_records": RECORDS, "params": parameters}
    assert door.client.post(INVOKE, json=body).json() == {"predictions": [12.0, 3.0]}
    answer = door.client.post(INFER, json=BODY | {"parameters": parameters}).json()
    assert answer["parameters"] == {"role": "champion"}
    assert [output["name"] for output in answer["outputs"]] == ["prediction"]
    after = [counted(o) for o in ("explained", "timed_out", "refused", "failed")]
    assert after == before


@pytest.mark.parametrize("parameters", [{"explain": True}, {"explain_ms": LONG_MS}])
def test_each_parameter_alone_is_enough(door: Door, parameters: Any) -> None:
    assert "rows" in door.invoke(**parameters)["explanations"]
    assert door.infer(**parameters)["parameters"]["explain_timed_out"] is False


def test_a_class_is_explained_by_its_probability(versions: dict[str, Loaded]) -> None:
    """Of the class that was predicted, whichever of the two it is."""
    door = Door(versions["binary"])
    told = door.invoke(**WISH)
    assert told["predictions"] == ["yes", "no"]
    assert told["explanations"]["unit"] == "probability of the predicted class"
    first, second = told["explanations"]["rows"]
    yes = [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(3))]
    assert first["answer"] == pytest.approx(yes[0])
    assert second["answer"] == pytest.approx(1 - yes[1])
    for row in (first, second):
        total = row["base"] + sum(row["contributions"].values())
        assert total == pytest.approx(row["answer"])
    assert first["base"] == pytest.approx(1 - second["base"])
    assert first["contributions"]["colour"] > 0, "red makes it yes"
    assert second["contributions"]["colour"] > 0, "another makes it no"


def test_tensors_come_beside_the_outputs_asked_for(
    door: Door, versions: dict[str, Loaded]
) -> None:
    door.shelf.show(NAME, Served(2, versions["binary"]))
    for names, wanted in (
        (["score"], ["score"]),
        (["explanation"], []),
        (["explanation_base", "prediction"], ["prediction"]),
    ):
        body = BODY | {"outputs": [{"name": name} for name in names]}
        answer = door.client.post(INFER, json=body | {"parameters": WISH}).json()
        assert [output["name"] for output in answer["outputs"]] == [
            *wanted, "explanation", "explanation_standard_error", "explanation_base",
        ]  # fmt: skip
    refused = door.client.post(
        INFER, json=BODY | {"outputs": [{"name": "explanation"}]}
    )
    assert refused.status_code == 400, "negative control: it was not asked for"


def test_tensors_as_bytes(door: Door) -> None:
    body = BODY | {"parameters": WISH | {"binary_data_output": True}}
    reply = door.client.post(INFER, json=body)
    length = int(reply.headers[LENGTH.lower()])
    outputs = json.loads(reply.content[:length])["outputs"]
    at, found = length, {}
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        part = reply.content[at : at + size]
        found[output["name"]] = values_in(part, output["name"], "FP64", size // 8)
        at += size
    wanted = [value for row in CONTRIBUTIONS for value in row.values()]
    assert found["explanation"] == pytest.approx(wanted, abs=1e-5)


def test_the_version_that_answered_is_the_one_explained(
    door: Door, versions: dict[str, Loaded]
) -> None:
    door.shelf.show(NAME, Served(2, versions["one"], versions["two"], 1.0))
    answer = door.infer(**WISH)
    base = next(o for o in answer["outputs"] if o["name"] == "explanation_base")
    assert answer["model_version"] == "2"
    assert base["data"] == pytest.approx([BASE + 1] * 2, abs=1e-5)


# ── what is wrong ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"explain": "yes"}, "explain: expected true or false, not 'yes'"),
        ({"explain": 1}, "explain: expected true or false, not 1"),
        ({"explain_ms": 0}, "explain_ms: expected a whole number of milliseconds"),
        ({"explain_ms": LONG_MS + 1}, f"from 1 to {LONG_MS}, not {LONG_MS + 1}"),
        ({"explain_ms": 2.5}, "explain_ms: "),
        ({"explain_ms": True}, "explain_ms: "),
        ({"explain_ms": "50"}, "explain_ms: "),
        ({"explain": True, "explain_ms": []}, "explain_ms: "),
    ],
)
def test_a_wrong_parameter_is_named(
    door: Door, parameters: dict[str, Any], message: str
) -> None:
    reply = door.client.post(INFER, json=BODY | {"parameters": parameters})
    assert reply.status_code == 400
    assert message in reply.json()["error"]
    body = {"dataframe_records": RECORDS, "params": parameters}
    reply = door.client.post(INVOKE, json=body)
    assert (reply.status_code, reply.json()["error_code"]) == (400, "BAD_REQUEST")
    assert message in reply.json()["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("explain=perhaps", "explain: expected true or false, not 'perhaps'"),
        ("explain_ms=-3", "explain_ms: expected a whole number"),
        ("explain=", "explain: "),
    ],
)
def test_a_wrong_address_is_named(door: Door, query: str, message: str) -> None:
    body = {"dataframe_records": RECORDS}
    reply = door.client.post(f"{INVOKE}?{query}", json=body)
    assert reply.status_code == 400
    assert message in reply.json()["message"]


def test_params_are_an_object(door: Door) -> None:
    body = {"dataframe_records": RECORDS, "params": ["explain"]}
    reply = door.client.post(INVOKE, json=body)
    assert (reply.status_code, reply.json()["message"]) == (
        400,
        "params: expected an object",
    )


def test_the_usual_time_may_not_be_more_than_the_most() -> None:
    wrong = {"api_token": TOKEN, "explain_ms": 10, "explain_most_ms": 9}
    with pytest.raises(ValidationError, match="explain_ms"):
        ScorerSettings.model_validate(wrong)
    ScorerSettings.model_validate(wrong | {"explain_most_ms": 10})


# ── no answer is lost ───────────────────────────────────────────────────────


def missing(door: Door) -> tuple[str, bool]:
    """Return why there is no explanation; both doors say the same, and answer."""
    answer, told = door.invoke(**WISH), door.infer(**WISH)
    assert answer["predictions"] == [12.0, 3.0]
    assert [output["name"] for output in told["outputs"]] == ["prediction"]
    reason: str = answer["explanations"]["missing"]
    assert told["parameters"]["explain_missing"] == reason
    is_late: bool = answer["explanations"]["timed_out"]
    assert told["parameters"]["explain_timed_out"] is is_late
    return reason, is_late


def test_a_version_without_rows_to_compare_with(versions: dict[str, Loaded]) -> None:
    before = counted("refused")
    reason, _ = missing(Door(versions["bare"]))
    assert "not explained: its package has no reference.arrow" in reason
    assert counted("refused") == before + 2


def test_explanations_that_are_off(versions: dict[str, Loaded]) -> None:
    assert missing(Door(versions["one"], threads=0)) == (OFF, False)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gate:
    """A model that answers once it is let through, so many calls at a time."""

    def __init__(self, model: OnnxModel, open_calls: int = 0) -> None:
        self._model = model
        self.places = threading.Semaphore(open_calls)
        self.is_asked = threading.Event()
        self.asked_count = 0

    def predict_arrays(
        self, feeds: dict[str, npt.NDArray[Any]], rows: int
    ) -> Predictions:
        self.is_asked.set()
        self.asked_count += 1
        assert self.places.acquire(timeout=120)
        return self._model.predict_arrays(feeds, rows)

    def open(self) -> None:
        self.places.release(1000)


def gated(loaded: Loaded, open_calls: int = 0) -> tuple[Loaded, Gate]:
    """Return a version that answers at once, and explains when it is let."""
    assert isinstance(loaded.explainer, Explainer)
    gate = Gate(loaded.model, open_calls)
    model: Any = gate
    explainer = replace(loaded.explainer, model=model)
    return replace(loaded, explainer=explainer), gate


def test_more_than_may_wait_are_answered_without(versions: dict[str, Loaded]) -> None:
    loaded, gate = gated(versions["one"])
    door = Door(loaded, threads=1, waiting=1)
    before = counted("refused")
    told: list[Any] = []
    asking = [
        threading.Thread(target=lambda: told.append(door.invoke(**WISH)))
        for _ in range(2)
    ]
    asking[0].start()
    assert gate.is_asked.wait(120)
    asking[1].start()
    wait_for(lambda: door.explaining.room == 0)
    reason, is_late = missing(door)
    assert "2 requests are being explained or wait for it" in reason
    assert is_late is False
    gate.open()
    for thread in asking:
        thread.join(120)
    assert all("rows" in answer["explanations"] for answer in told)
    assert counted("refused") == before + 2
    assert "rows" in door.invoke(**WISH)["explanations"], "places are free again"


def test_time_that_is_over_before_anything_was_found(
    versions: dict[str, Loaded],
) -> None:
    """The answer goes out while the model is still being asked."""
    loaded, gate = gated(versions["one"])
    door = Door(loaded)
    before = counted("timed_out")
    told = door.invoke(explain_ms=20)
    assert told["predictions"] == [12.0, 3.0]
    assert told["explanations"]["timed_out"] is True
    rows = told["explanations"].get("rows", [])
    assert [row["missing"] for row in rows] == ["there was no time for it"] * len(rows)
    assert not gate.places.acquire(blocking=False), "nothing was let through"
    assert counted("timed_out") == before + 1
    gate.open()


def test_time_that_is_over_midway_gives_what_was_found(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, Loaded]
) -> None:
    """With an error, as only a part of all rows was compared with; it still sums up."""
    monkeypatch.setattr(shapley, "CALL_ROWS", 8)
    loaded, gate = gated(versions["one"], open_calls=3)

    async def over_at_the_fourth_call(future: Any, timeout: float) -> None:
        assert timeout == LONG_MS / 1000
        await asyncio.to_thread(wait_for, lambda: gate.asked_count == 4)
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "wait_for", over_at_the_fourth_call)
        explained = Door(loaded).invoke(**WISH)["explanations"]
    assert (explained["timed_out"], explained["model_calls"]) == (True, 3)
    for row in explained["rows"]:
        total = row["base"] + sum(row["contributions"].values())
        assert total == pytest.approx(row["answer"])
        assert row["standard_errors"]["size"] > 0
    gate.open()


def test_who_waits_behind_others_too_long_is_answered_in_time(
    versions: dict[str, Loaded],
) -> None:
    loaded, gate = gated(versions["one"])
    door = Door(loaded, threads=1, waiting=1)
    first = threading.Thread(target=lambda: door.invoke(**WISH))
    first.start()
    assert gate.is_asked.wait(120)
    told = door.infer(explain_ms=20)
    assert told["parameters"]["explain_timed_out"] is True
    assert "before its turn came" in told["parameters"]["explain_missing"]
    gate.open()
    first.join(120)


class Broken:
    """A model that fails on mixtures."""

    def predict_arrays(self, feeds: dict[str, Any], rows: int) -> Predictions:
        raise RuntimeError("no such mixture")


def test_explaining_that_fails(versions: dict[str, Loaded]) -> None:
    explainer = versions["one"].explainer
    assert isinstance(explainer, Explainer)
    broken: Any = Broken()
    before = counted("failed")
    door = Door(replace(versions["one"], explainer=replace(explainer, model=broken)))
    reason, is_late = missing(door)
    assert (reason, is_late) == ("explaining failed: no such mixture", False)
    assert counted("failed") == before + 2


def test_a_pool_that_is_closed_harms_no_answer(door: Door) -> None:
    door.explaining.close()
    assert "explaining failed" in missing(door)[0]
    assert "explaining failed" in missing(door)[0], "and nobody keeps a place"


def test_too_many_rows(door: Door) -> None:
    body = {"inputs": {"size": [1.0] * 1001, "colour": ["x"] * 1001}, "params": WISH}
    told = door.client.post(INVOKE, json=body).json()
    assert len(told["predictions"]) == 1001
    assert "1 to 1000 rows" in told["explanations"]["missing"]
    body["inputs"] = {"size": [1.0] * 1000, "colour": ["x"] * 1000}
    told = door.client.post(INVOKE, json=body).json()
    assert len(told["explanations"]["rows"]) == 1000


def test_mixtures_without_a_finite_answer(
    factory: Factory,
) -> None:
    """A red row has one, and large ones do: not so a large red one."""
    rows = REFERENCE.set_column(
        1, "size", pa.array([80.0] * 99 + [95.0], pa.float64())
    ).slice(25)
    loaded = factory.loaded(5, extra=packages.NAN_ABOVE_100, reference=rows)
    told = Door(loaded).invoke(**WISH)
    first, second = told["explanations"]["rows"]
    assert told["predictions"] == [11.0, 2.0]
    assert "no finite answer to mixtures" in first["missing"]
    assert second["contributions"]["colour"] == 0


# ── what a version needs ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (None, "no reference.arrow"),
        (b"no stream", "its reference.arrow cannot be read"),
        (REFERENCE.slice(0, 1), "fewer than 2 rows"),
        (REFERENCE.select(["id", "size"]), "feature 'colour' is missing"),
    ],
)
def test_rows_that_cannot_be_compared_with(
    versions: dict[str, Loaded], reference: Any, reason: str
) -> None:
    if isinstance(reference, pa.RecordBatch):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, reference.schema) as writer:
            writer.write_batch(reference)
        reference = sink.getvalue().to_pybytes()
    one = versions["one"]
    found = explainer_of(one.model, one.manifest, reference)
    assert isinstance(found, Unexplained)
    assert found.reason.startswith("this version's answers are not explained: ")
    assert reason in found.reason


def test_the_same_request_gets_the_same_explanation(door: Door) -> None:
    assert door.invoke(**WISH) == door.invoke(**WISH)
