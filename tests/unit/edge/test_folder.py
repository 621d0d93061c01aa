"""What an export holds, and that it is the same each time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.edge.folder import (
    DOCKERFILE,
    FROM_PACKAGE,
    REQUIREMENTS,
    Forced,
    digest_of,
    folder_files,
)
from driftloop.cli.edge.runner import package as runner_package
from driftloop.cli.edge.work import forced_of, write_export
from driftloop.models.package import write_package

from tests.unit.edge.exported import SPEC, VERSION, origin_of
from tests.unit.scorer.packages import (
    CLASSES,
    INPUTS,
    NAME,
    Factory,
    manifest,
    onnx_bytes,
)

SAMPLES = {"inputs": {"size": [1.0], "colour": ["red"]}, "prediction": [11.0],
           "score": None}  # fmt: skip
ROOT = Path(__file__).parents[3]


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(tmp_path / "home")


def listed(files: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["model.json"])
    return found


def test_it_is_the_same_bit_by_bit(factory: Factory, tmp_path: Path) -> None:
    ref = factory.package(is_binary=True)
    for name in ("one", "two"):
        write_export(origin_of(factory, ref), tmp_path / name, is_container=True)
    one, two = (
        {p.relative_to(tmp_path / n).as_posix(): p.read_bytes()
         for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "two")
    )  # fmt: skip
    assert one == two
    other = folder_files(origin_of(factory, factory.package(1.0)))  # the control
    assert digest_of(other) != digest_of(one)


def test_it_lists_every_file_but_the_list(factory: Factory) -> None:
    files = folder_files(origin_of(factory, factory.package(is_binary=True)))
    found = listed(files)
    assert set(found["files"]) == set(files) - {"model.json"}
    for name, entry in found["files"].items():
        assert entry["sha256"] == hashlib.sha256(files[name]).hexdigest()
        assert entry["size_bytes"] == len(files[name])
    assert "Dockerfile" not in files
    assert found["classes"] == CLASSES
    assert [column["name"] for column in found["inputs"]] == ["size", "colour"]
    assert found["version"] == VERSION
    assert found["samples"] == json.loads(files["samples.json"])
    assert found["forced"] is None
    assert digest_of(files) == hashlib.sha256(files["model.json"]).hexdigest()


def test_what_only_a_training_needs_stays_at_home(factory: Factory) -> None:
    """Rows of the training most of all."""
    files = {
        "model.onnx": onnx_bytes(0.0),
        "samples.json": json.dumps(SAMPLES).encode(),
        "explanation.json": b"{}",
        "evaluation.json": b"{}",
        "continue.river.json": b"{}",
        "card.json": b"{}",
    }
    about = manifest(NAME, INPUTS, is_binary=False)
    ref = write_package(about, files, factory.signer, factory.store)
    found = folder_files(origin_of(factory, ref))
    assert {"model.onnx", "samples.json", "card.json"} <= set(found)
    assert not {"explanation.json", "evaluation.json", "continue.river.json"} & set(
        found
    )
    assert "reference.arrow" not in FROM_PACKAGE
    opened = runner_package.open_package(found)
    assert opened.digest == ref.digest


def test_a_model_that_goes_on_learning_is_exported_as_it_was(
    factory: Factory, tmp_path: Path
) -> None:
    files = {
        "model.onnx": onnx_bytes(0.0),
        "samples.json": json.dumps(SAMPLES).encode(),
        "continue.river.json": b"{}",
    }
    about = manifest(NAME, INPUTS, is_binary=False)
    ref = write_package(about, files, factory.signer, factory.store)
    written = write_export(origin_of(factory, ref), tmp_path / "x", is_container=False)
    assert any("goes on learning at home" in note for note in written.notes)


def test_a_folder_that_is_there_is_left_alone(factory: Factory, tmp_path: Path) -> None:
    origin = origin_of(factory, factory.package())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(CommandError, match="is there already; name a new folder"):
        write_export(origin, tmp_path / "mine", is_container=False)
    assert (tmp_path / "mine" / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    write_export(origin, tmp_path / "empty", is_container=False)
    assert (tmp_path / "empty" / "runner.py").is_file()


STATES = ["approved", "deployed", "superseded"]
OTHERS = ["registered", "rejected", "awaiting_approval", "expired", "rolled_back"]


@pytest.mark.parametrize("state", STATES)
def test_a_version_that_was_approved_is_exported(state: str) -> None:
    found = {"pipeline": NAME, "version": 3, "state": state}
    assert forced_of(found, force=False, reason=None) is None
    assert forced_of(found, force=True, reason="be sure") is None


@pytest.mark.parametrize("state", OTHERS)
def test_another_is_not_unless_somebody_says_why(state: str) -> None:
    found = {"pipeline": NAME, "version": 3, "state": state}
    words = state.replace("_", " ")
    with pytest.raises(CommandError, match=f"{NAME}/3 is {words}: only versions that"):
        forced_of(found, force=False, reason="because")
    with pytest.raises(CommandError, match="--force needs a --reason"):
        forced_of(found, force=True, reason=" ")
    forced = forced_of(found, force=True, reason="to look into it")
    assert forced == Forced(f"{NAME}/3 is {words}", "to look into it")


def test_the_reason_goes_with_the_export(factory: Factory) -> None:
    forced = Forced("it was taken back", "to look into it")
    files = folder_files(origin_of(factory, factory.package(), forced=forced))
    told = runner_package.open_package(files).forced
    assert told == "it was taken back: to look into it"


def test_rules_for_personal_data_are_named(factory: Factory) -> None:
    spec = {"data": SPEC["data"] | {"privacy": {"size": {}, "id": {}}}}
    files = folder_files(origin_of(factory, factory.package(), spec))
    assert runner_package.open_package(files).home.private == ["id", "size"]


def test_requirements_are_those_of_the_packages() -> None:
    """The runner's least versions are those that models are made and served with."""
    project = (ROOT / "libs/models/pyproject.toml").read_text("utf-8")
    for line in REQUIREMENTS.splitlines():
        least, most = line.split(",")
        assert f'"{least}"' in project
        assert most.startswith("<")


def test_the_dockerfile_is_well_made(tmp_path: Path) -> None:
    """By hadolint, as those of the services are; and it is no root who serves."""
    file = tmp_path / "Dockerfile"
    file.write_text(DOCKERFILE)
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--failure-threshold", "style", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "USER 10001" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    file.write_text(DOCKERFILE.replace("--no-cache-dir ", ""))  # the control
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
