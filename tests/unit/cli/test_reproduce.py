"""``driftloop reproduce``: what it compares, what it says, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driftloop.cli import app
from driftloop.cli.context import CommandError
from driftloop.cli.packages import child, command, comparison, work
from driftloop.cli.packages.comparison import compare
from driftloop.models.package import (
    Manifest,
    Package,
    TriedCandidate,
    read_package,
    write_package,
)
from driftloop.models.signing import Signer, TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from typer.testing import CliRunner

from tests.unit.scorer import packages

FILES = {"model.onnx": packages.onnx_bytes(0.0), "samples.json": b"[]"}
REQUEST = {"spec": {"train": {"timeout_minutes": 0.1}}}
ASKED = json.dumps(REQUEST)
Answer = dict[str, Any]


def manifest(**changes: Any) -> Manifest:
    found = packages.manifest("bikes", packages.INPUTS, is_binary=False)
    same = {"request": ASKED, "rows_sha256": "a" * 64, "environment": ["numpy==2.4"]}
    return found.model_copy(update={**same, **changes})


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    trusted = tmp_path / "home" / "keys" / "trusted" / "trainer.pem"
    return generate_key(tmp_path / "home" / "keys" / "trainer.pem", trusted)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "home" / "artifacts")


def packed(signer: Signer, store: FolderStore, **changes: Any) -> Package:
    ref = write_package(manifest(**changes), FILES, signer, store)
    return read_package(ref, store, TrustedKeys.from_pems([signer.public_pem]))


def reasons(package: Package, files: dict[str, bytes], **changes: Any) -> list[str]:
    found = compare(package.ref.digest, package.manifest, manifest(**changes), files)
    assert not found.is_same
    return found.reasons


def test_the_same_bytes_are_the_same_digest(signer: Signer, store: FolderStore) -> None:
    package = packed(signer, store)
    found = compare(package.ref.digest, package.manifest, manifest(), FILES)
    assert found.is_same
    assert found.reasons == []
    assert {file.state for file in found.files} == {"same"}
    assert [file.name for file in found.files] == [*sorted(FILES), "model.json"]


def test_each_difference_is_said_in_words(signer: Signer, store: FolderStore) -> None:
    package = packed(signer, store)
    other = FILES | {"model.onnx": packages.onnx_bytes(1.0)}
    [rows] = reasons(package, other, rows_sha256="b" * 64)
    assert "was changed since" in rows
    [code] = reasons(package, other, code_version="9.9")
    assert code.startswith("the trainer is 9.9; the package was made by ")
    [libraries] = reasons(package, other, environment=["numpy==2.5"])
    assert libraries == "the libraries differ: numpy 2.4 became 2.5"
    assert reasons(package, other) == [comparison.ROUNDING]


@pytest.mark.parametrize("is_blend", [False, True])
def test_another_device_is_said_in_words(
    signer: Signer, store: FolderStore, is_blend: bool
) -> None:
    def at(**facts: Any) -> Answer:
        own = {"hidden": [64], **facts}
        linear = {"name": "linear"}
        return {"parameters": {"members": [linear, own]} if is_blend else own}

    there = at(device="cuda", gpu="NVIDIA L4", precision="bfloat16", processes=2)
    here = at(device="cpu", precision="float32", processes=1)
    package = packed(signer, store, **there)
    other = FILES | {"model.onnx": packages.onnx_bytes(1.0)}
    [told] = reasons(package, other, **here)
    assert (
        "elsewhere: device cuda, gpu NVIDIA L4, precision bfloat16, processes 2; "
        "here: device cpu, precision float32, processes 1" in told
    )
    assert "DRIFTLOOP_TRAINER_DEVICE" in told
    # The control: in the same place it is not the device.
    assert reasons(package, other, **there) == [comparison.ROUNDING]


def test_a_library_more_leaves_the_model_as_it_is(
    signer: Signer, store: FolderStore
) -> None:
    package = packed(signer, store)
    assert reasons(package, FILES, environment=["numpy==2.4", "pytest==9.0"]) == [
        "the libraries differ: pytest 9.0 is new",
        "the model itself is the same, byte by byte",
        "only what lists libraries and digests differs",
    ]


def test_files_may_come_and_go(signer: Signer, store: FolderStore) -> None:
    package = packed(signer, store)
    files = {"model.onnx": FILES["model.onnx"], "card.json": b"{}"}
    found = compare(package.ref.digest, package.manifest, manifest(), files)
    assert {file.name: file.state for file in found.files} == {
        "card.json": "new",
        "model.json": "different",
        "model.onnx": "same",
        "samples.json": "missing",
    }


def test_many_libraries_are_not_all_told() -> None:
    before = [f"p{number:02d}==1" for number in range(20)]
    [text] = comparison._libraries(before, [])
    assert text.endswith("p07 1 is not here; and 12 more")


# ── making it again ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(("minutes", "counted"), [(5, {"linear": 2}), (None, None)])
def test_a_search_that_time_may_have_ended_is_asked_for_by_its_trials(
    minutes: float | None, counted: dict[str, int] | None
) -> None:
    asked = json.dumps({"spec": {"train": {"search": {"minutes": minutes}}}})
    trials = (None, 1, 2)
    tried = [TriedCandidate(name="linear", validation_loss=1, trial=n) for n in trials]
    found = work._asked(manifest(tried=tried, request=asked), asked)
    assert json.loads(found).get("searched") == counted
    assert work._asked(manifest(), ASKED) == ASKED


def trains(files: dict[str, bytes], **changes: Any) -> Callable[..., Answer]:
    """Return a training that leaves these files."""

    def train(request: str, home: Path, folder: Path, _: object) -> Answer:
        assert request == ASKED
        assert folder.parent == home.resolve()
        (folder / "package").mkdir()
        for name, data in files.items():
            (folder / "package" / name).write_bytes(data)
        found = manifest(**changes).model_dump(mode="json")
        return {"type": "trained", "manifest": found, "files": sorted(files)}

    return train


def ask(
    package: Package, monkeypatch: pytest.MonkeyPatch, home: Path, *options: str
) -> tuple[int, str]:
    """Run the command against a registry that knows this package."""
    known = {
        "pipeline": "bikes",
        "version": 3,
        "package": package.ref.model_dump(mode="json"),
    }
    asked = []

    def request(method: str, path: str) -> Any:
        asked.append((method, path))
        return known

    installation = SimpleNamespace(
        home=home, request=request, store=FolderStore(home / "artifacts")
    )
    monkeypatch.setattr(command, "connect", lambda _: installation)
    result = CliRunner().invoke(app.app, ["reproduce", "bikes@3", *options])
    assert asked == [("GET", "/models/bikes/versions/3")]
    return result.exit_code, result.output


def test_the_command_ends_by_what_it_found(
    signer: Signer,
    store: FolderStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, package = tmp_path / "home", packed(signer, store)
    monkeypatch.setattr(work, "train", trains(FILES))
    code, said = ask(package, monkeypatch, home, "--at", str(tmp_path / "kept"))
    assert (code, f"is reproduced: package {package.ref.digest}" in said) == (0, True)
    assert (tmp_path / "kept" / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert (tmp_path / "kept" / "model.json").exists()

    monkeypatch.setattr(work, "train", trains(FILES, rows_sha256="b" * 64))
    code, said = ask(package, monkeypatch, home, "--json")
    found = json.loads(said[said.index("{") :])
    assert (code, found["same"], found["version"]) == (1, False, 3)
    assert "was changed since" in found["reasons"][0]

    code, said = ask(package, monkeypatch, home, "--at", str(tmp_path / "kept"))
    assert (code, "name a new folder" in said) == (2, True)
    assert not list(home.glob("reproduce-*"))


def test_what_cannot_be_made_again_says_why(
    signer: Signer,
    store: FolderStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, old = tmp_path / "home", packed(signer, store, request=None)
    code, said = ask(old, monkeypatch, home)
    assert (code, "from before packages could be reproduced" in said) == (2, True)
    (home / "keys" / "trusted" / "trainer.pem").unlink()
    code, said = ask(old, monkeypatch, home)
    assert (code, "which is not trusted" in said) == (2, True)


# ── the program that trains ─────────────────────────────────────────────────

PROGRAM = """
import json, os, sys
print(json.dumps({"type": "ready"}), flush=True)
job = json.loads(sys.stdin.readline())
request = json.loads(job["request"])
print(json.dumps({"type": "started"}), flush=True)
home = os.environ["DRIFTLOOP_HOME"]
print(json.dumps({"type": "progress", "step": home}), flush=True)
if "crash" in request:
    sys.exit("out of luck")
secret = [name for name in os.environ if name.endswith("_API_TOKEN")]
print(json.dumps({"error": "no rows", "secret": secret, **request["says"]}), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "child.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DRIFTLOOP_API_TOKEN", "secret")
    monkeypatch.setattr(child, "PROGRAM", "stand_in.child")


@pytest.mark.usefixtures("program")
def test_a_child_gets_the_request_and_its_last_word_is_returned(tmp_path: Path) -> None:
    seen: list[Answer] = []
    request = {**REQUEST, "says": {"type": "trained"}}
    answer = child.train(json.dumps(request), tmp_path, tmp_path, seen.append)
    assert (answer["type"], answer["secret"]) == ("trained", [])
    assert [message["step"] for message in seen] == [str(tmp_path.resolve())]


@pytest.mark.usefixtures("program")
def test_a_child_that_gives_no_model_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {**REQUEST, "says": {"type": "refused"}}
    with pytest.raises(CommandError, match="gave no model: no rows"):
        child.train(json.dumps(refused), tmp_path, tmp_path, lambda _: None)
    crashing = json.dumps({**REQUEST, "crash": 1})
    with pytest.raises(CommandError, match="without an answer.*out of luck"):
        child.train(crashing, tmp_path, tmp_path, lambda _: None)
    monkeypatch.setattr(child, "PROGRAM", "driftloop.nowhere.child")
    with pytest.raises(CommandError, match="trainer is not installed"):
        child.train(ASKED, tmp_path, tmp_path, lambda _: None)


# ── bill of materials ───────────────────────────────────────────────────────


def test_a_bill_of_materials_is_printed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def request(_: str, path: str) -> Answer:
        asked.append(path)
        return {"pipeline": "bikes", "version": 3}

    def fetch(_: str, path: str) -> Any:
        asked.append(path)
        return SimpleNamespace(content=b'{"bomFormat":"CycloneDX"}')

    registry = SimpleNamespace(request=request, fetch=fetch)
    monkeypatch.setattr(command, "connect", lambda _: registry)
    printed = CliRunner().invoke(app.app, ["bom", "bikes"])
    assert json.loads(printed.output) == {"bomFormat": "CycloneDX"}
    file = tmp_path / "bom.json"
    CliRunner().invoke(app.app, ["bom", "bikes", "--version", "3", "-o", str(file)])
    assert json.loads(file.read_text()) == {"bomFormat": "CycloneDX"}
    assert asked == [
        "/models/bikes/aliases/champion",
        "/models/bikes/versions/3/bom",
        "/models/bikes/versions/3",
        "/models/bikes/versions/3/bom",
    ]
    nowhere = ["bom", "bikes/3", "-o", str(tmp_path / "no" / "bom.json")]
    assert "cannot write" in str(CliRunner().invoke(app.app, nowhere).exception)
