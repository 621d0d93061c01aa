"""The compose file, anchors and merges resolved, and the manifests as built."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployment.kustomized import OVERLAYS, Object, build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    whole: dict[str, Any] = yaml.safe_load(text)
    return whole


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def objects(root: Path, overlay: str) -> list[Object]:
    return build(root / "infra/kubernetes/overlays" / overlay)


@pytest.fixture
def production(root: Path) -> list[Object]:
    return build(root / "infra/kubernetes/overlays/production")
