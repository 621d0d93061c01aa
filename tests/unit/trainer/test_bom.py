"""The bill of materials: CycloneDX by its own schema, whole, and the same each time."""

import copy
import hashlib
import json
from collections.abc import Callable

import pytest
from driftloop.contracts.events import ServedModel
from driftloop.models.package import canonical_json
from driftloop.trainer import package_files
from driftloop.trainer.bom import BOM_FILE, bom_of

from tests.unit.trainer.test_training import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("bom"))


@pytest.fixture(scope="module")
def champion(place) -> ServedModel:
    return ServedModel(version=4, package=place.package(place.train("champion")))


@pytest.fixture(scope="module")
def trained(place, champion):
    spec = place.request.spec.model_copy(update={"owner": "rides@example.org"})
    update = {"champion": champion, "spec": spec}
    return place.train("candidate", place.request.model_copy(update=update))


@pytest.fixture(scope="module")
def files(trained) -> dict[str, bytes]:
    return package_files.files_of(trained)


@pytest.fixture(scope="module")
def bom(files) -> dict:
    return json.loads(files[BOM_FILE])


@pytest.fixture(scope="module")
def problem() -> Callable[[dict], object]:
    """Return what says how content breaks the official schema; None: it does not."""
    validation = pytest.importorskip(
        "cyclonedx.validation.json",
        reason="a tool of the workspace, not of the trainer",
    )
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    return lambda content: validator.validate_str(json.dumps(content))


def test_it_keeps_the_official_schema(bom, problem) -> None:
    assert problem(bom) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("serialNumber",), "urn:uuid:1"),
        (("components", 0, "type"), "dataset"),
        (("metadata", "component", "modelCard", "metrics"), []),
        (("metadata", "component", "components", 0, "hashes", 0, "content"), "abc"),
    ],
)
def test_the_schema_refuses_what_is_wrong(bom, problem, path, value) -> None:
    """Else the test above would prove nothing."""
    wrong = copy.deepcopy(bom)
    inner = wrong
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert problem(wrong) is not None


def test_a_multiclass_model_without_a_champion_keeps_it_too(tmp_path, problem) -> None:
    place = Place(tmp_path, "multiclass", gate={"fairness": {"columns": ["kind"]}})
    bom = json.loads(package_files.files_of(place.train())[BOM_FILE])
    assert problem(bom) is None
    model = bom["metadata"]["component"]
    assert "pedigree" not in model
    [assessed] = model["modelCard"]["considerations"]["fairnessAssessments"]
    assert assessed["groupAtRisk"] == "kind"
    assert assessed["harms"].startswith("kind: ")


def test_it_names_each_other_file_with_its_digest(bom, files) -> None:
    listed = {
        part["name"]: part["hashes"][0]["content"]
        for part in bom["metadata"]["component"]["components"]
    }
    assert listed == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name != BOM_FILE
    }


def test_it_says_what_the_model_comes_from(bom, place, champion) -> None:
    data = [part for part in bom["components"] if part["type"] == "data"]
    [content] = data[0]["data"]
    assert (data[0]["version"], content["contents"]["url"]) == (
        "0", place.uri.as_uri())  # fmt: skip
    owner = content["governance"]["owners"][0]["organization"]["name"]
    assert owner == "rides@example.org"
    libraries = {p["purl"] for p in bom["components"] if p["type"] == "library"}
    assert len(libraries) == len(package_files.environment_lock())
    assert any(purl.startswith("pkg:pypi/scikit-learn@1.") for purl in libraries)
    assert "pkg:generic/driftloop-trainer@0.1.0" in libraries
    [ancestor] = bom["metadata"]["component"]["pedigree"]["ancestors"]
    assert ancestor["version"] == "4"
    assert ancestor["hashes"][0]["content"] == champion.package.digest
    [needs] = bom["dependencies"]
    assert set(needs["dependsOn"]) == libraries | {part["bom-ref"] for part in data}


def test_its_figures_are_the_evaluations_with_slices_and_intervals(
    bom, trained
) -> None:
    card = bom["metadata"]["component"]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    whole = metrics[0]
    assert whole["type"] == "mae"
    assert float(whole["value"]) == pytest.approx(trained.evaluation.candidate)
    for one in metrics:
        if "confidenceInterval" in one:
            ends = one["confidenceInterval"]
            low, high = float(ends["lowerBound"]), float(ends["upperBound"])
            assert low <= float(one["value"]) <= high
    slices = {one["slice"] for one in metrics if "slice" in one}
    told = trained.evaluation.measures.slices
    assert slices == {f"{one.column} = {one.value}" for one in told} != set()
    assert any(one["type"] == "mae of champion v4" for one in metrics)
    facts = {one["name"]: one["value"] for one in card["properties"]}
    assert facts["driftloop:rows:sha256"] == trained.rows_sha256


def test_the_same_job_gives_the_same_bytes_and_another_another_number(
    trained, files, bom
) -> None:
    again = package_files.files_of(trained)
    assert again[BOM_FILE] == files[BOM_FILE]
    assert "timestamp" not in bom["metadata"]
    other = package_files.manifest_of(trained).model_copy(update={"seed": 7})
    rest = {name: data for name, data in files.items() if name != BOM_FILE}
    changed = bom_of(other, json.loads(files["card.json"]), None, rest)
    assert changed["serialNumber"] != bom["serialNumber"]
    assert canonical_json(bom) == files[BOM_FILE]
