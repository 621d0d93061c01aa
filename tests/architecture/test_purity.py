"""Cores decide the same on every run: no clock, no environment, no loose dice, no IO.

Imports of clients are import-linter's business (``test_imports.py``); this is
about calls to the standard library and numpy.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HIDDEN_INPUT_MODULES = frozenset({"time", "os", "secrets", "locale", "getpass"})
HIDDEN_INPUTS = frozenset(
    {
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
        "uuid.uuid1",
        "uuid.uuid4",
        "random.SystemRandom",
    }
)
NEED_A_SEED = frozenset({"random.Random", "numpy.random.default_rng"})
"""Fine with an argument, a hidden input without."""
SEEDED_NUMPY = frozenset(
    {"default_rng", "Generator", "PCG64", "SeedSequence", "RandomState"}
)
IO_CALLS = frozenset({"open", "input", "print", "io.open"})
IO_METHODS = frozenset(
    {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink"}
)
IO_MODULES = frozenset({"sys", "shutil", "tempfile", "glob", "socket", "signal"})


def impurities(source: str, *, io_allowed: bool = False) -> Iterator[str]:
    """Name each hidden input (and each IO) of a module's source, with its line."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    modules = HIDDEN_INPUT_MODULES | (frozenset() if io_allowed else IO_MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in _modules(node):
                if module.split(".")[0] in modules:
                    yield f"line {node.lineno}: imports {module}"
        elif isinstance(node, ast.Call):
            called = _called(node.func, names)
            if problem := _problem(called, node, io_allowed):
                yield f"line {node.lineno}: {problem}"


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return local name to full name for everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                yield (alias.asname or top), (alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name), f"{node.module}.{alias.name}"


def _called(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_called(node.value, names)}.{node.attr}"
    return ""


def _problem(called: str, node: ast.Call, io_allowed: bool) -> str | None:
    parts = called.split(".")
    if called in NEED_A_SEED:
        unseeded = not (node.args or node.keywords)
        return f"{called}() without a seed" if unseeded else None
    if called in HIDDEN_INPUTS:
        return f"calls {called}"
    if parts[0] == "random" and len(parts) > 1:
        return f"{called} draws from a generator that nobody seeded"
    if parts[:2] == ["numpy", "random"] and parts[2] not in SEEDED_NUMPY:
        return f"{called} draws from numpy's global generator"
    if not io_allowed and (called in IO_CALLS or parts[-1] in IO_METHODS):
        return f"{called} is IO"
    return None


def core_modules(root: Path, service: str) -> list[Path]:
    """``core.py`` and the service's own modules that it imports, near and far."""
    package = root / f"services/{service}/driftloop/{service}"
    found: list[Path] = []
    todo = [package / "core.py"]
    while todo:
        path = todo.pop()
        if path in found or not path.exists():
            continue
        found.append(path)
        for full_name in dict(_imported(ast.parse(path.read_text("utf-8")))).values():
            parts = full_name.split(".")
            if parts[:2] == ["driftloop", service]:
                todo += [package / f"{part}.py" for part in parts[2:]]
    return found


def test_core_is_pure(root: Path, service: str) -> None:
    """Nothing that decides reads a clock, the environment, a file or loose dice."""
    problems = [
        f"{path.relative_to(root)} {problem}"
        for path in core_modules(root, service)
        for problem in impurities(path.read_text("utf-8"))
    ]
    assert problems == []


def test_contracts_have_no_hidden_input(root: Path) -> None:
    """The contracts say the same everywhere; they may read files."""
    problems = [
        f"{path.relative_to(root)} {problem}"
        for path in sorted((root / "libs/contracts/driftloop").rglob("*.py"))
        for problem in impurities(path.read_text("utf-8"), io_allowed=True)
    ]
    assert problems == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import os.path",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "from datetime import date\ndate.today()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4 as new\nnew()",
        "import random\nrandom.random()",
        "from random import choice\nchoice([1])",
        "import random\nrandom.Random()",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import default_rng\ndefault_rng()",
        "open('x')",
        "print('x')",
        "from pathlib import Path\nPath('x').read_text()",
        "import tempfile",
    ],
)
def test_impure_source_is_found(source: str) -> None:
    """Negative control: each kind of hidden input."""
    assert list(impurities(source))


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrandom.Random(7)",
        "import numpy as np\nnp.random.default_rng(seed)",
        "from numpy.random import default_rng\ndefault_rng(seed=7)",
        "from datetime import datetime\ndatetime.fromisoformat(text)",
        "from uuid import uuid5\nuuid5(a, b)",
        "import math\nmath.log(2)",
    ],
)
def test_pure_source_is_left_alone(source: str) -> None:
    """Negative control of the control: seeded dice and plain sums are fine."""
    assert list(impurities(source)) == []


def test_modules_behind_a_core_are_checked(tmp_path: Path) -> None:
    """A pure core cannot hide a clock in a module next to it."""
    package = tmp_path / "services/ingest/driftloop/ingest"
    package.mkdir(parents=True)
    (package / "core.py").write_text("from driftloop.ingest import times", "utf-8")
    (package / "times.py").write_text("from driftloop.ingest.clock import x", "utf-8")
    (package / "clock.py").write_text("import time", "utf-8")
    found = {path.name for path in core_modules(tmp_path, "ingest")}
    assert found == {"core.py", "times.py", "clock.py"}
