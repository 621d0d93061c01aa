"""How tests are shared out to processes: a shared set-up is made once, not in each."""

import importlib.util
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

REPORT = re.compile(r"^\[(gw\d+)\].* PASSED (\S+?)::", re.MULTILINE)
FILES = ("tests/e2e/test_a.py", "tests/e2e/test_b.py", "tests/unit/test_c.py")
CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """\
import time
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    time.sleep(0.1)  # so that another process would take some of them
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Processes in which tests of each file ran."""
    project = tmp_path_factory.mktemp("project")
    for name in FILES:
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TESTS)
    (project / "tests/conftest.py").write_text(CONFTEST.read_text("utf-8"))
    (project / "tests/servers.py").write_text("PostgresqlServer = S3Server = None\n")
    (project / "pytest.ini").write_text(
        "[pytest]\naddopts = -v --import-mode=importlib\npythonpath = .\n"
        "markers = broker\n slow\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses=2", "tests"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found: dict[str, set[str]] = defaultdict(set)
    for process, file in REPORT.findall(run.stdout):
        found[file].add(process)
    assert set(found) == set(FILES), run.stdout
    return found


def test_what_is_set_up_once_stays_in_one_process(
    processes: dict[str, set[str]],
) -> None:
    """A file's tests, and all end-to-end tests: they share one installation."""
    assert all(len(processes[file]) == 1 for file in FILES)
    assert processes[FILES[0]] == processes[FILES[1]]
    assert processes[FILES[0]] != processes[FILES[2]]  # the control: there are two


def test_files_that_share_nothing_exist_and_set_nothing_up() -> None:
    """Else their set-up would be made in every process."""
    spec = importlib.util.spec_from_file_location("tests_conftest", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    for name in conftest._SHARES_NOTHING:
        text = (CONFTEST.parents[1] / name).read_text("utf-8")
        assert 'scope="' not in text, name
        assert conftest.runs_with(f"{name}::a") != conftest.runs_with(f"{name}::b")
    rows = "tests/component/test_rows.py"  # the control
    assert 'scope="' in (CONFTEST.parents[1] / rows).read_text("utf-8")
    assert conftest.runs_with(f"{rows}::a") == conftest.runs_with(f"{rows}::b")
