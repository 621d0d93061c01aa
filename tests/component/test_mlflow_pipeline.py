"""From a notebook into service: a registered model is measured, judged, approved."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    ModelApproved,
    ModelDeployed,
    ModelRegistered,
    ModelSubmitted,
    ModelTrained,
    PipelineApplied,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from onnx import TensorProto, helper

from tests.component.mlflow_client import CLIENT, FOLDER, QUIET
from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.component.trainer_process import Trainer, rows, running, spec_of
from tests.unit.scorer.packages import constant, node
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(900)]
API = "/api/2.0/mlflow"
NAME = "notebook"


def graph(slope: float, *, name: str = "a") -> bytes:
    """Return y = slope * a, plus 10 for the kind "big": what the rows follow."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["kind"], ["ten"], domain="ai.onnx.ml",
            keys_strings=["big"], values_floats=[10.0], default_float=0.0,
        ),
        constant("slope", slope),
        node("Mul", [name, "slope"], "part"),
        node("Add", ["part", "ten"], "prediction"),
    ]  # fmt: skip
    column = [None, 1]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, column),
        helper.make_tensor_value_info("kind", TensorProto.STRING, column),
    ]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, column)]
    made = helper.make_graph(nodes, "notebook", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    data: bytes = model.SerializeToString()
    return data


class Place:
    """A registry and a trainer, a pipeline with rows, and MLflow's client."""

    def __init__(self, home: Path, broker: str, trainer: Trainer) -> None:
        self.folder = home.parent
        self.trainer = trainer
        self.log = Log(broker, home)
        self.registry = ServiceProcess("registry", home, broker)

    def begin(self) -> None:
        """Apply the pipeline; what it has trained by itself is of no interest."""
        content = spec_of(NAME, "linear").model_dump(mode="json")
        content["automation"] = "approve"
        content["retrain"]["first_rows"] = 100_000  # no model of its own
        spec = PipelineSpec.model_validate(content)
        event = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, str(uuid.uuid4())))
        self.trainer.publish(self.trainer.append(NAME, rows(900), 900))
        wait_until(lambda: self.get("registered-models/get", name=NAME)[0] == 200, 120)

    def get(self, call: str, **fields: Any) -> tuple[int, Any]:
        answer = self.registry.client.get(f"{API}/{call}", params=fields)
        return answer.status_code, answer.json()

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def client(self, user: str, step: str, *arguments: str) -> Any:
        """Let MLflow's client do a step as a user; return what it was told."""
        env = {
            **os.environ,
            **QUIET,
            "MLFLOW_TRACKING_URI": self.registry.url,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": TOKEN,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        }
        command = [CLIENT, FOLDER / "mlflow_pipeline.py", step, NAME, *arguments]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not CLIENT.exists():
        pytest.skip("MLflow's client is not installed: make setup-mlflow")
    folder = tmp_path_factory.mktemp("notebook")
    home = folder / "home"
    with KafkaNode(folder / "kafka") as kafka, running(home, kafka.bootstrap) as it:
        found = Place(home, kafka.bootstrap, it)
        with found.registry:
            found.begin()
            yield found
        found.log.close()


@pytest.fixture(scope="module")
def story(place: Place) -> dict[str, Any]:
    """Registered by ann, asked for by her and by bob, then in service."""
    told = place.client("ann", "register", place.file("m.onnx", graph(3)))
    version = told["version"]
    own = place.client("ann", "promote", "-", version)
    asked = place.client("bob", "promote", "-", version)
    [approved] = place.log.read(ModelApproved, pipeline=NAME)
    assert isinstance(approved, ModelApproved)
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r", version=int(version),
        package=approved.package, generation=1,
    )  # fmt: skip
    place.log.publish(with_id(deployed, str(uuid.uuid4())))
    fields = {"name": NAME, "alias": "champion"}
    wait_until(lambda: place.get("registered-models/alias", **fields)[0] == 200, 120)
    found = place.get("registered-models/alias", **fields)[1]["model_version"]
    return {
        "told": told, "own": own, "asked": asked, "approved": approved, "found": found,
    }  # fmt: skip


def test_a_notebooks_model_goes_through_gate_and_approval(
    place: Place, story: dict[str, Any]
) -> None:
    """Measured on the hold-out by the trainer; asked for by another than its author."""
    told, version = story["told"], story["told"]["version"]
    assert (told["status"], told["user"]) == ("READY", "ann"), told
    assert told["tags"]["driftloop.state"] == "awaiting_approval"
    assert told["tags"]["driftloop.gate"] == "passed"
    assert told["tags"]["driftloop.algorithm"] == "registered_onnx"

    submitted = place.log.read(ModelSubmitted, pipeline=NAME)[0]
    trained = place.log.read(ModelTrained, pipeline=NAME)[0]
    assert isinstance(submitted, ModelSubmitted)
    assert isinstance(trained, ModelTrained)
    assert trained.job_id == submitted.job_id
    assert trained.meta.chain.id == submitted.meta.chain.id  # one story
    assert trained.evaluation.candidate < 0.2  # the noise that the rows have
    registered = place.log.read(ModelRegistered, pipeline=NAME)[0]
    assert isinstance(registered, ModelRegistered)
    assert str(registered.version) == version

    assert story["own"]["refused"] == "RESOURCE_CONFLICT"
    assert "another must approve" in story["own"]["message"]
    assert story["asked"]["tags"]["driftloop.state"] == "approved"
    assert story["asked"]["aliases"] == ["candidate"]  # a rollout makes it champion
    assert story["approved"].approved_by == ["bob"]
    found = story["found"]
    assert (found["version"], found["current_stage"]) == (version, "Production")


def test_what_cannot_be_served_is_refused_before_it_has_a_number(
    place: Place, story: dict[str, Any]
) -> None:
    """A pickle is named, never opened; a graph of other inputs is told which."""
    before = len(place.get("model-versions/search")[1]["model_versions"])
    marker = place.folder / "opened"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    trap = place.file("model.onnx", pickle.dumps(Trap()))
    told = place.client("ann", "register", trap)
    assert told["refused"] == "INVALID_PARAMETER_VALUE"
    assert "model/model.onnx is a pickle, which is never opened" in told["message"]
    assert "skl2onnx" in told["message"]
    assert not marker.exists()

    other = place.client("ann", "register", place.file("x.onnx", graph(3, name="X")))
    assert "'X' are no features of the pipeline" in other["message"]
    assert "shape (n, 1)" in other["message"]
    assert len(place.get("model-versions/search")[1]["model_versions"]) == before


def test_what_is_in_service_is_fetched_by_its_alias(
    place: Place, story: dict[str, Any]
) -> None:
    """``models:/NAME@champion``: the signed package, with what MLflow looks for."""
    folder = place.folder / "fetched"
    told = place.client("ann", "champion", str(folder))
    assert told.get("version") == story["told"]["version"], told
    assert {"MLmodel", "model.onnx", "card.html", "samples.json"} <= {*told["files"]}
    assert (Path(told["place"]) / "model.onnx").read_bytes() == graph(3)
    assert told["flavors"] == ["onnx", "python_function"]
    unknown = place.registry.client.get(
        f"/api/2.0/mlflow-artifacts/artifacts/pipelines/{NAME}/1/../../x"
    )
    assert unknown.status_code in {400, 404}


def test_a_poor_model_is_a_version_that_never_goes_into_service(
    place: Place, story: dict[str, Any]
) -> None:
    """Negative control: the gate rejects it, and no alias leads around the gate."""
    told = place.client("ann", "register", place.file("poor.onnx", graph(-3)))
    assert told["status"] == "READY", told
    assert told["tags"]["driftloop.state"] == "rejected"
    refused = place.client("bob", "promote", "-", told["version"])
    assert refused["refused"] == "RESOURCE_CONFLICT"
    assert "significantly_better" in refused["message"]
    assert place.log.read(ModelApproved, pipeline=NAME) == [story["approved"]]


def test_one_that_cannot_be_measured_says_why(
    place: Place, story: dict[str, Any]
) -> None:
    """Its answers are no numbers: the version failed, and the client is told so."""
    bad = place.client("ann", "register", place.file("nan.onnx", graph(float("nan"))))
    assert "FAILED_REGISTRATION" in bad["message"], bad
    assert "not all finite" in bad["message"]


def test_the_loop_keeps_its_own(place: Place, story: dict[str, Any]) -> None:
    """No client renames, deletes or re-labels what the loop decides about."""
    client, mine = place.registry.client, story["told"]["version"]

    def refusal(method: str, call: str, **fields: Any) -> str:
        answer = client.request(method, f"{API}/{call}", json={"name": NAME, **fields})
        assert answer.status_code >= 400, answer.text
        message: str = answer.json()["message"]
        return message

    post, delete = "POST", "DELETE"
    models, versions = "registered-models", "model-versions"
    assert "is a pipeline" in refusal(post, f"{models}/create")
    assert "cannot be renamed" in refusal(post, f"{models}/rename", new_name="x")
    assert "cannot be deleted" in refusal(delete, f"{models}/delete")
    assert "cannot be deleted" in refusal(delete, f"{versions}/delete", version=mine)
    alias = {"alias": "candidate", "version": mine}
    assert "follows from what is in service" in refusal(
        post, f"{models}/alias", **alias
    )
    assert "driftloop rollback" in refusal(delete, f"{models}/alias", alias="champion")
    stage = {"version": mine, "stage": "Archived"}
    assert "'Production' asks" in refusal(post, f"{versions}/transition-stage", **stage)
    tag = {"version": mine, "key": "driftloop.state", "value": "deployed"}
    assert "choose another key" in refusal(post, f"{versions}/set-tag", **tag)
    nobody = {"alias": "champion", "version": mine}
    assert "MLFLOW_TRACKING_USERNAME" in refusal(post, f"{models}/alias", **nobody)
    done = client.post(
        f"{API}/{versions}/set-tag",
        json={"name": NAME, "version": mine, "key": "ticket", "value": "7"},
    )
    assert done.status_code == 200
    found = place.get(f"{versions}/search", filter="tags.`driftloop.gate` = 'passed'")
    put = {"name": NAME, "alias": "blessed", "version": mine}
    assert client.post(f"{API}/{models}/alias", json=put).status_code == 200
    history = client.get(f"/api/v1/models/{NAME}/history").json()["items"]
    assert {"alias:champion", "alias:blessed"} <= {line["subject"] for line in history}
    moved = client.get(f"/api/v1/registered-models/{NAME}/history").json()["items"]
    assert [line["subject"] for line in moved] == ["alias:blessed"]
    tags = {tag["key"]: tag["value"] for tag in found[1]["model_versions"][0]["tags"]}
    assert (tags["ticket"], tags["driftloop.state"]) == ("7", "deployed")
