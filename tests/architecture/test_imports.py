"""The import rules of ``pyproject.toml`` hold, and each of them bites."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = {
    "a service imports another": (
        "faulty/core.py",
        "import driftloop.scorer",
        "Services talk only through Kafka topics",
    ),
    "a core imports a Kafka client": (
        "faulty/core.py",
        "import confluent_kafka",
        "Cores and contracts know no Kafka",
    ),
    "a core reaches the database by way of the runtime": (
        "faulty/core.py",
        "from driftloop.runtime import database",
        "Cores and contracts know no Kafka",
    ),
    "a core imports its handlers": (
        "faulty/core.py",
        "from driftloop.faulty import handlers",
        "Within a service",
    ),
    "handlers import the application": (
        "faulty/handlers.py",
        "from driftloop.faulty import app",
        "Within a service",
    ),
    "a service imports the command line": (
        "faulty/app.py",
        "import driftloop.cli",
        "Distributions build on each other",
    ),
    "a service imports the backtest, which imports services": (
        "faulty/app.py",
        "import driftloop.backtest.errors",
        "Distributions build on each other",
    ),
    "a service imports the local stack": (
        "faulty/app.py",
        "import driftloop.local",
        "Distributions build on each other",
    ),
}


def lint_imports(config: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter, with packages in ``paths`` beside the installed ones."""
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--config",
        str(config),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "COLUMNS": "200",
    }
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_import_rules_are_kept(root: Path) -> None:
    """Independent services, one direction of layers, pure cores."""
    result = lint_imports(root / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_import_rule_bites(root: Path, tmp_path: Path, name: str) -> None:
    """Negative control: a service in the deployer's place breaks one rule."""
    file, line, rule = BROKEN[name]
    package = tmp_path / "driftloop/faulty"
    package.mkdir(parents=True)
    for module in ("__init__", "core", "handlers", "app"):
        (package / f"{module}.py").touch()
    (tmp_path / "driftloop" / file).write_text(line + "\n", encoding="utf-8")
    rules = (root / "pyproject.toml").read_text("utf-8")
    config = tmp_path / "pyproject.toml"
    config.write_text(rules.replace("driftloop.deployer", "driftloop.faulty"), "utf-8")

    result = lint_imports(config, tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if "BROKEN" in line]
    assert any(rule in line for line in broken), result.stdout
