"""No pickle in the code; no addresses, secrets or machine paths in the files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PICKLE_MODULES = frozenset(
    {
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
    }
)
PICKLE_CALLS = frozenset({"read_pickle", "to_pickle"})
UNPICKLE_CALLS = frozenset({"load", "loads", "Unpickler"})
LOADERS = frozenset({"torch", "keras", "mlflow"})
"""Their ``load`` unpickles, or may."""

INDEX_HOSTS = re.compile(
    r"py[p]i\.org|python[h]osted\.org|registry\.(npm|yarn)[a-z]*\.|"
    r"repo\d?\.(maven|apache)|maven\.org|proxy\.golang\.org|static\.crates|"
    r"(?<![\w-])--?(extra-)?index-url[ =]|--find-links[ =]",
)
PRIVATE_ADDRESS = re.compile(
    r"(?<![\w.])(10(\.\d{1,3}){3}|192\.168(\.\d{1,3}){2}|"
    r"172\.(1[6-9]|2\d|3[01])(\.\d{1,3}){2})(?![\w.])"
)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
SECRET_FILES = re.compile(r"(^|/)(\.env|uv\.lock|[^/]*\.(pem|key|p12|jks))$")
URL_IN_LOCK = re.compile(r"https?://")


def pickling(source: str) -> Iterator[str]:
    """Name each use of a pickle-family module in a source, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            for module in modules:
                if module.split(".")[0] in PICKLE_MODULES:
                    yield f"line {node.lineno}: imports {module}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                if node.func.attr in PICKLE_CALLS or (
                    node.func.attr in UNPICKLE_CALLS
                    and owner in LOADERS | PICKLE_MODULES
                ):
                    yield f"line {node.lineno}: calls {owner}.{node.func.attr}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and getattr(
                    keyword.value, "value", True
                ):
                    yield f"line {node.lineno}: allow_pickle"


def test_no_pickle(root: Path, tracked: list[Path]) -> None:
    """Models and messages are data; nothing unpickles anything."""
    problems = [
        f"{path.relative_to(root)} {problem}"
        for path in tracked
        if path.suffix == ".py"
        for problem in pickling(path.read_text("utf-8"))
        # a test may write a pickle to see it refused; it may not read one
        if not (path.is_relative_to(root / "tests") and ": imports " in problem)
    ]
    assert problems == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import cloudpickle",
        "import pickle\npickle.loads(data)",
        "import torch\ntorch.load(path)",
        "import pandas as pd\npd.read_pickle(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_pickle_is_found(source: str) -> None:
    """Negative control: each way to unpickle."""
    assert list(pickling(source))


def leaks(text: str, *, is_lock: bool = False) -> list[str]:
    """Return what in a file's text should not be in any commit."""
    patterns = [INDEX_HOSTS, PRIVATE_ADDRESS, PRIVATE_KEY]
    if is_lock:
        patterns.append(URL_IN_LOCK)
    return [match[0] for pattern in patterns for match in pattern.finditer(text)]


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:4096]


def test_no_addresses_or_keys(root: Path, tracked: list[Path]) -> None:
    """Package indexes, private networks and keys stay out of the project."""
    own = Path(__file__)
    places = [f"{place}/" for place in (Path.home(), root) if len(place.parts) > 1]
    problems = []
    for path in tracked:
        if path == own or not is_text(path):
            continue
        text = path.read_text("utf-8", errors="replace")
        found = leaks(text, is_lock=path.suffix == ".lock")
        found += [place for place in places if place in text]
        problems += [f"{path.relative_to(root)}: {leak}" for leak in found]
    assert problems == []


def test_no_secret_files(root: Path, tracked: list[Path]) -> None:
    """Keys, environment files and uv.lock (it holds addresses) are not tracked."""
    names = [path.relative_to(root).as_posix() for path in tracked]
    assert [name for name in names if SECRET_FILES.search(name)] == []
    assert SECRET_FILES.search("a/b/server.key")  # negative controls
    assert SECRET_FILES.search("uv.lock")
    assert not SECRET_FILES.search("requirements.lock")


@pytest.mark.parametrize(
    ("text", "is_lock"),
    [
        ("see files.python" + "hosted.org/packages", False),
        ("broker = 192.168." + "1.20:9092", False),
        ("host 10." + "0.0.7", False),
        ("-----BEGIN " + "PRIVATE KEY-----", False),
        ("numpy @ https://example.org/numpy.whl", True),
        ("--extra-index-url " + "https://example.org", True),
    ],
)
def test_leak_is_found(text: str, is_lock: bool) -> None:
    """Negative control: each kind of leak."""
    assert leaks(text, is_lock=is_lock)


def test_versions_are_no_addresses() -> None:
    """Negative control of the control: a version of four numbers is no address."""
    assert leaks("snappy-java:1.1.10.5 and kafka 127.0.0.1:9092") == []
