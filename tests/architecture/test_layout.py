"""Each service has the same files, so that a stranger finds the way in all of them."""

import tomllib
from pathlib import Path

from driftloop.contracts.topics import SERVICES

MODULES = ("core", "handlers", "app", "__main__")
TOP_LEVEL = {
    "README.md", "README.ja.md", "Makefile", "docker-compose.yml", "pyproject.toml",
    "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "services", "libs", "infra", "tests",
    "docs", "examples", "requirements.lock", "requirements-torch.lock",
    "requirements-ray.lock",
    "requirements-mlflow.lock",
    "requirements-triton.lock",
}  # fmt: skip
"""What a visitor sees first; names with a leading dot are tools' business."""


def missing_files(folder: Path) -> list[str]:
    """Return what a service's folder lacks of the common layout."""
    name = folder.name
    wanted = [f"driftloop/{name}/{module}.py" for module in MODULES]
    wanted += ["pyproject.toml", "Dockerfile", f"driftloop/{name}/py.typed"]
    return [file for file in wanted if not (folder / file).is_file()]


def test_service_has_the_common_files(root: Path, service: str) -> None:
    """core, handlers, app, the way to start it, to install it and to build it."""
    assert missing_files(root / "services" / service) == []


def test_service_distribution_is_named_after_it(root: Path, service: str) -> None:
    """Folder, package, distribution and topic table use one name."""
    text = (root / "services" / service / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    assert project["name"] == f"driftloop-{service}"
    others = {f"driftloop-{other}" for other in SERVICES if other != service}
    assert not others & {name.split("[")[0] for name in project["dependencies"]}


def test_no_other_services(root: Path) -> None:
    """A folder of services/ is a line of the table and the other way round."""
    folders = {path.parent.name for path in root.glob("services/*/pyproject.toml")}
    assert folders == set(SERVICES)


def test_namespace_has_no_init(root: Path) -> None:
    """``driftloop`` is shared by all distributions (PEP 420)."""
    for pattern in ("libs/*", "services/*", "infra/*"):
        assert list(root.glob(f"{pattern}/driftloop/__init__.py")) == []


def test_top_level_is_as_agreed(root: Path, tracked: list[Path]) -> None:
    """Nothing new appears at the top without a decision."""
    names = {path.relative_to(root).parts[0] for path in tracked}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_missing_file_is_found(tmp_path: Path) -> None:
    """Negative control: a service without handlers or Dockerfile."""
    package = tmp_path / "ingest/driftloop/ingest"
    package.mkdir(parents=True)
    for module in ("core", "app", "__main__"):
        (package / f"{module}.py").touch()
    (package / "py.typed").touch()
    (tmp_path / "ingest/pyproject.toml").touch()
    assert missing_files(tmp_path / "ingest") == [
        "driftloop/ingest/handlers.py",
        "Dockerfile",
    ]
