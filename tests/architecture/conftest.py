"""Where things are, and which services there are."""

import subprocess
from pathlib import Path

import pytest
from driftloop.contracts.topics import SERVICES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """Each service in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file of the project, as git knows it, and new ones that it would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, timeout=30
    ).stdout
    paths = [ROOT / name for name in output.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]
