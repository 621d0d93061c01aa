"""Install one service alone and run its unit tests: what it does not declare is missed.

A shared environment hides undeclared dependencies. This makes an environment for
each service from the lock, with only the distributions that it names (and those
that they name), plus pytest. ``make isolated SERVICE=trainer``; without a service,
all of them.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN_PREFIX = "driftloop-"
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-randomly", "hypothesis", "httpx")
INSTALL_TIMEOUT_S = 600
TEST_TIMEOUT_S = 300


def folders() -> dict[str, Path]:
    """Return every distribution's folder by its short name (``runtime``)."""
    found = [*ROOT.glob("libs/*"), *ROOT.glob("services/*"), *ROOT.glob("infra/*")]
    return {path.name: path for path in found if (path / "pyproject.toml").is_file()}


def closure(name: str) -> dict[str, set[str]]:
    """Return the own distributions that ``name`` needs, itself included.

    The value of each is the set of extras that are asked of it.
    """
    known = folders()
    needed: dict[str, set[str]] = {}
    todo: list[tuple[str, set[str]]] = [(name, set())]
    while todo:
        current, extras = todo.pop()
        first_time = current not in needed
        needed.setdefault(current, set()).update(extras)
        if not first_time:
            continue
        text = (known[current] / "pyproject.toml").read_text("utf-8")
        for line in tomllib.loads(text)["project"]["dependencies"]:
            match = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", line)
            if match and match[1].startswith(OWN_PREFIX):
                wanted = set(match[2].split(",")) if match[2] else set()
                todo.append((match[1].removeprefix(OWN_PREFIX), wanted))
    return needed


def requirements(name: str) -> list[str]:
    """Return what to hand to the installer: the folders with their extras."""
    known = folders()
    return [
        f"./{known[part].relative_to(ROOT)}"
        + (f"[{','.join(sorted(extras))}]" if extras else "")
        for part, extras in sorted(closure(name).items())
    ]


def run(command: list[str], timeout_s: float, **environment: str) -> int:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=timeout_s,
        check=False,
    ).returncode


def check(service: str, uv: str) -> int:
    """Install ``service`` into a new environment and run its unit tests there."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"driftloop-{service}-") as folder:
        venv = Path(folder) / "venv"
        install = [
            uv, "pip", "install", "--quiet", "--no-sources",
            "--constraint", "requirements.lock", "--build-constraint",
            "requirements.lock", *TEST_TOOLS, *requirements(service),
        ]  # fmt: skip
        python = str(venv / "bin/python")
        tests = [
            python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "--confcutdir", "tests/unit", f"tests/unit/{service}",
        ]  # fmt: skip
        code = (
            run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], 60)
            or run(install, INSTALL_TIMEOUT_S, VIRTUAL_ENV=str(venv))
            or run(tests, TEST_TIMEOUT_S)
        )
    seconds = time.monotonic() - started
    sys.stdout.write(
        f"{service}: {'ok' if code == 0 else 'FAILED'} in {seconds:.0f} s\n"
    )
    return code


def main() -> int:
    """Check the services that are named, or all."""
    services = sorted(path.parent.name for path in ROOT.glob("services/*/Dockerfile"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", nargs="*", metavar="SERVICE")
    parser.add_argument("--uv", default="uv", help="the uv command")
    options = parser.parse_args()
    if unknown := set(options.service) - set(services):
        parser.error(f"no such service: {', '.join(sorted(unknown))}; know {services}")
    results = [check(name, options.uv) for name in options.service or services]
    return max(results)


if __name__ == "__main__":
    sys.exit(main())
