"""``driftloop export`` and ``driftloop edges``, as a person runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.edge import command
from driftloop.cli.edge.command import edge_table
from driftloop.runtime.artifacts import ArtifactStore
from rich.console import Console

from tests.unit.cli.running import run
from tests.unit.edge.exported import SPEC
from tests.unit.edge.exported import run as run_runner
from tests.unit.scorer.packages import NAME, Factory


class Installed:
    """An installation whose registry knows version 3, the champion, and 4."""

    def __init__(self, factory: Factory) -> None:
        self.home = factory.home
        self.store: ArtifactStore = factory.store
        package = factory.package(is_binary=True).model_dump()
        common = {"pipeline": NAME, "package": package}
        three = {**common, "version": 3, "state": "deployed"}
        four = {**common, "version": 4, "state": "rolled_back"}
        edge = {
            "pipeline": NAME, "edge": "line-4", "version": 4, "problem": None,
            "last_at": "2012-01-01T01:15:00Z", "row_count": 200, "error_count": 1,
            "unfamiliar_row_count": 10, "lost_report_count": 0,
            "last": {"latency_p99_seconds": 0.0021},
        }  # fmt: skip
        bad = {**edge, "edge": "line-5", "problem": "was taken back", "row_count": 0}
        self.edges: list[Any] = [edge, bad]
        self.answers: dict[str, Any] = {
            f"/models/{NAME}/versions/3": three,
            f"/models/{NAME}/versions/4": four,
            f"/models/{NAME}/aliases/champion": three,
            f"/pipelines/{NAME}": {"spec": SPEC},
        }

    def request(self, method: str, path: str, **options: Any) -> Any:
        assert method == "GET"
        if path == "/edges":
            after = int(options["params"].get("cursor", 0))
            more = str(after + 1) if after + 1 < len(self.edges) else None
            return {"items": self.edges[after : after + 1], "next_cursor": more}
        if path not in self.answers:
            raise CommandError(f"there is no {path}")
        return self.answers[path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    found = Installed(Factory(tmp_path / "home"))
    monkeypatch.setattr(command, "connect", lambda _: found)
    return found


@pytest.mark.parametrize("model", [f"{NAME}/3", NAME, f"{NAME}@champion"])
def test_a_version_is_exported(
    installed: Installed, tmp_path: Path, model: str
) -> None:
    done = run("export", model, "--to", str(tmp_path / "x"), "--container", "--json")
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)
    assert (written["version"], written["pipeline"]) == (3, NAME)
    assert (tmp_path / "x" / "Dockerfile").is_file()
    digest, signer = written["digest"], written["signer"]
    code, said = run_runner(tmp_path / "x", "check", "--signer", signer, DIGEST=digest)
    assert code == 0, said


def test_people_are_told_what_to_do_with_it(
    installed: Installed, tmp_path: Path
) -> None:
    done = run("export", NAME, "--to", str(tmp_path / "x"))
    assert f"{NAME}/3 in {tmp_path / 'x'}: " in done.output.replace("\n", "")
    assert "for DRIFTLOOP_EDGE_DIGEST: " in done.output
    assert not (tmp_path / "x" / "Dockerfile").exists()


def test_a_version_that_was_taken_back_takes_a_reason(
    installed: Installed, tmp_path: Path
) -> None:
    to = ("--to", str(tmp_path / "x"))
    with pytest.raises(CommandError, match=f"{NAME}/4 is rolled back: only versions"):
        run("export", f"{NAME}/4", *to)
    assert not (tmp_path / "x").exists()
    done = run("export", f"{NAME}/4", *to, "--force", "--reason", "to look into it")
    assert "is rolled back; forced: to look into it" in done.output.replace("\n", "")
    said = run_runner(tmp_path / "x", "check")[1]
    assert f"exported although {NAME}/4 is rolled back: to look into it" in said


@pytest.mark.parametrize("model", [f"{NAME}/3@champion", "@champion", f"{NAME}@"])
def test_a_name_that_is_none_is_refused(installed: Installed, model: str) -> None:
    with pytest.raises(CommandError, match="name a version as bike-demand/3, or"):
        run("export", model, "--to", "x")


def test_a_package_that_is_not_as_signed_is_not_exported(
    installed: Installed, tmp_path: Path
) -> None:
    for path in (tmp_path / "home" / "keys" / "trusted").iterdir():
        path.unlink()
    with pytest.raises(CommandError, match="cannot be exported: .* not trusted"):
        run("export", NAME, "--to", str(tmp_path / "x"))


def test_runners_are_listed(installed: Installed) -> None:
    """All pages of them; one with a bad version is named."""
    done = run("edges")
    assert "line-4" in done.output
    assert "line-5: bike-demand/4 was taken back; export another" in done.output
    assert [edge["edge"] for edge in json.loads(run("edges", "--json").stdout)] == [
        "line-4", "line-5"
    ]  # fmt: skip
    installed.edges.clear()
    installed.edges.append({**EMPTY})
    output = io.StringIO()
    Console(file=output, width=120).print(edge_table(installed.edges))
    assert "line-4" in output.getvalue()


EMPTY = {
    "pipeline": NAME, "edge": "line-4", "version": 4, "problem": None,
    "last_at": "2012-01-01T01:15:00Z", "row_count": 0, "error_count": 0,
    "unfamiliar_row_count": 0, "lost_report_count": 0, "last": {},
}  # fmt: skip
