"""Install one service alone and run its unit tests: what it does not declare is missed.

A shared environment hides undeclared dependencies. This makes an environment for
each service from the lock, with only the distributions that it names (and those
that they name), plus pytest. ``make isolated SERVICE=trainer``; without a service,
all of them, as many at a time as the machine has cores.

Every environment is new, but those that follow each other have the same place, and
Python's compiled code lies beside it: what two services share is compiled once.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
OWN_PREFIX = "driftloop-"
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-randomly", "hypothesis", "httpx")
VENV_TIMEOUT_S = 60
INSTALL_TIMEOUT_S = 600
TEST_TIMEOUT_S = 900  # they take a minute; another load may slow them down a lot


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


def run(command: list[str], timeout_s: float, **environment: str) -> tuple[int, str]:
    """Return the exit code and all that was said."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=inherited | environment,
            timeout=timeout_s,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return 1, f"{said}\nnot done within {timeout_s:g} s: {' '.join(command)}\n"
    return ended.returncode, ended.stdout.decode(errors="replace")


def check(service: str, uv: str, place: Path) -> tuple[int, str]:
    """Install ``service`` into a new environment in ``place``; run its unit tests."""
    venv = place / "venv"
    install = [
        uv, "pip", "install", "--quiet", "--no-sources",
        "--constraint", "requirements.lock", "--build-constraint",
        "requirements.lock", *TEST_TOOLS, *requirements(service),
    ]  # fmt: skip
    tests = [
        str(venv / "bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "--confcutdir", "tests/unit", f"tests/unit/{service}",
    ]  # fmt: skip
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)]
    for command, timeout_s in (
        (make, VENV_TIMEOUT_S),
        (install, INSTALL_TIMEOUT_S),
        (tests, TEST_TIMEOUT_S),
    ):
        code, said = run(
            command,
            timeout_s,
            VIRTUAL_ENV=str(venv),
            PYTHONPYCACHEPREFIX=str(place / "compiled"),
        )
        if code:
            break
    return code, said


def check_all(services: list[str], uv: str, side_by_side: int) -> int:
    """Check each; return the worst exit code."""
    with tempfile.TemporaryDirectory(prefix="driftloop-isolated-") as folder:
        places: SimpleQueue[Path] = SimpleQueue()
        for number in range(side_by_side):
            places.put(Path(folder) / str(number))

        def check_one(service: str) -> int:
            place, started = places.get(), time.monotonic()
            try:
                code, said = check(service, uv, place)
            finally:
                places.put(place)
            verdict = "ok" if code == 0 else "FAILED"
            seconds = time.monotonic() - started
            sys.stdout.write(f"{said}{service}: {verdict} in {seconds:.0f} s\n")
            sys.stdout.flush()
            return code

        with ThreadPoolExecutor(side_by_side) as workers:
            return max(workers.map(check_one, services))


def main() -> int:
    """Check the services that are named, or all."""
    services = sorted(path.parent.name for path in ROOT.glob("services/*/Dockerfile"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", nargs="*", metavar="SERVICE")
    parser.add_argument("--uv", default="uv", help="the uv command")
    options = parser.parse_args()
    if unknown := set(options.service) - set(services):
        parser.error(f"no such service: {', '.join(sorted(unknown))}; know {services}")
    wanted = options.service or services
    return check_all(wanted, options.uv, min(len(wanted), os.cpu_count() or 1))


if __name__ == "__main__":
    sys.exit(main())
