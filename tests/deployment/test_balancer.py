"""The balancer's file: what its own program says, and its bounds are the scorer's."""

import re
import subprocess
from pathlib import Path

import pytest
from driftloop.scorer.settings import ScorerSettings

from tests.component.balancer import FILE, HAPROXY, NEEDED, written


def check(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HAPROXY), "-c", "-f", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(HAPROXY is None, reason=NEEDED)
def test_file_is_accepted(tmp_path: Path) -> None:
    """Without a warning; a misspelt word is found (negative control)."""
    result = check(FILE)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr.lower()
    broken = tmp_path / "haproxy.cfg"
    broken.write_text(written({"balance leastconn": "balance leastcon"}), "utf-8")
    assert check(broken).returncode != 0


def number_in(pattern: str) -> float:
    found = re.search(pattern, FILE.read_text("utf-8"))
    assert found, pattern
    return float(found[1])


def test_bounds_are_the_scorers() -> None:
    """A body that a scorer takes passes; what may take long has the time for it."""
    settings = ScorerSettings()
    assert number_in(r"content-length\) gt (\d+)") == settings.max_body_bytes
    longest_explanation_s = settings.explain_most_ms / 1000
    assert number_in(r"timeout server (\d+)s") > 10 * longest_explanation_s


def test_nothing_can_be_changed_or_looked_at() -> None:
    """No page, no socket for orders, no account."""
    words = FILE.read_text("utf-8").split()
    assert not {"stats", "userlist", "userlist:", "program", "lua-load"} & {*words}
