"""Each image holds one service and what it declares, pinned by the lock."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from driftloop.contracts.topics import SERVICES


@pytest.fixture(scope="module")
def isolate() -> ModuleType:
    """``infra/isolate.py``, which knows what a service needs."""
    path = Path(__file__).parents[2] / "infra/isolate.py"
    spec = importlib.util.spec_from_file_location("isolate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copied(dockerfile: str) -> set[str]:
    """Return the distributions that an image copies in."""
    pattern = r"^COPY ((?:libs|services|infra)/\w+) \1$"
    return set(re.findall(pattern, dockerfile, re.MULTILINE))


def installed(dockerfile: str) -> set[str]:
    return set(re.findall(r"\./((?:libs|services|infra)/\w+)", dockerfile))


@pytest.mark.parametrize("service", SERVICES)
def test_image_holds_what_the_service_declares(
    root: Path, isolate: ModuleType, service: str
) -> None:
    """Neither another service nor a library that it does not name."""
    text = (root / "services" / service / "Dockerfile").read_text("utf-8")
    folders = isolate.folders()
    needed = {str(folders[n].relative_to(root)) for n in isolate.closure(service)}
    assert copied(text) == needed
    assert installed(text) == needed
    for part, extras in isolate.closure(service).items():
        for extra in extras:
            pattern = rf"{folders[part].relative_to(root)}\[[\w,]*\b{extra}\b"
            assert re.search(pattern, text), f"{part}[{extra}]"


@pytest.mark.parametrize("service", SERVICES)
def test_image_holds_compiled_code(root: Path, service: str) -> None:
    """Its user can keep none: else each start compiles all libraries anew."""
    text = (root / "services" / service / "Dockerfile").read_text("utf-8")
    assert "PYTHONDONTWRITEBYTECODE=1" in text
    installs = text.count("uv pip install")
    assert text.count("uv pip install --compile-bytecode") == installs > 0


@pytest.mark.parametrize("service", SERVICES)
def test_image_is_pinned_and_not_root(root: Path, service: str) -> None:
    """Versions come from the lock; the process has a user of its own."""
    text = (root / "services" / service / "Dockerfile").read_text("utf-8")
    assert "--constraint requirements.lock" in text
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert f'ENTRYPOINT ["python", "-m", "driftloop.{service}"]' in text


def hadolint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = str(Path(sys.executable).with_name("hadolint"))
    return subprocess.run(
        [command, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_dockerfiles_pass_hadolint(root: Path, tmp_path: Path) -> None:
    """hadolint has nothing to say, and would have about a careless file."""
    files = [*root.glob("services/*/Dockerfile"), *root.glob("infra/*/Dockerfile")]
    assert len(files) > len(SERVICES)
    result = hadolint(*files)
    assert result.returncode == 0, result.stdout
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python\nRUN cd /tmp && pip install uv\n", "utf-8")
    found = hadolint(careless)
    assert found.returncode != 0  # negative control
    assert "DL3006" in found.stdout


def test_closure_follows_extras(isolate: ModuleType) -> None:
    """What a library names is part of it, and so are extras that are asked for."""
    assert set(isolate.closure("scorer")) >= {
        "scorer",
        "runtime",
        "contracts",
        "models",
    }
    assert isolate.closure("validator")["runtime"] == {"data", "faust"}
    assert "validator" not in isolate.closure("scorer")
