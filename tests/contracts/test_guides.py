"""The guides show files as they are, and their pipeline files are valid."""

import re
import textwrap
from pathlib import Path

import pytest
from driftloop.contracts.pipeline import (
    PipelineFileError,
    PipelineSpec,
    load_pipeline,
)

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"
PUBLISHERS = ROOT / "examples/publishers"
WHOLE = re.compile(
    r"^ *```yaml\n( *# pipeline\.yaml\n.*?)^ *```$", re.DOTALL | re.MULTILINE
)
PROGRAMS = (
    "python/publish.py",
    "java/src/main/java/Publish.java",
    "go/main.go",
    "node/publish.js",
    "curl/publish.sh",
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def shows(page: str, program: str) -> bool:
    return any(block == program for block in blocks(page, r"\w+"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_shows_each_program_as_it_is(name: str) -> None:
    """Negative control: another byte is found."""
    page = (GUIDES / "publishers.md").read_text("utf-8")
    program = (PUBLISHERS / name).read_text("utf-8")
    assert shows(page, program)
    assert not shows(page, program.replace("ndjson", "json", 1))


def pipelines() -> list[tuple[str, str]]:
    """Return each page's whole pipeline files, without the list's indentation."""
    return [
        (page.name, textwrap.dedent(block))
        for page in sorted(GUIDES.glob("*.md"))
        for block in WHOLE.findall(page.read_text("utf-8"))
    ]


def fragments() -> list[str]:
    """Return what own-parts.md shows of pipeline files."""
    page = (GUIDES / "own-parts.md").read_text("utf-8")
    return [b for b in blocks(page, "yaml") if b.startswith("# of a pipeline file")]


def load(folder: Path, text: str) -> PipelineSpec:
    file = folder / "pipeline.yaml"
    file.write_text(text, "utf-8")
    return load_pipeline(file)


@pytest.mark.parametrize(("name", "text"), pipelines())
def test_each_pipeline_file_is_valid(name: str, text: str, tmp_path: Path) -> None:
    """Negative control: a key that there is not."""
    spec = load(tmp_path, text)
    assert spec.automation == "approve"
    assert set(spec.data.features) == {"hour", "temp"}
    with pytest.raises(PipelineFileError, match="retrains"):
        load(tmp_path, text + "retrains: weekly\n")


def test_the_dags_schedule_window_and_judge_are_the_files(tmp_path: Path) -> None:
    """What the page says of the weekly DAG stands in its pipeline file."""
    spec = load(tmp_path, dict(pipelines())["from-airflow.md"])
    assert spec.retrain.schedule is not None
    assert spec.retrain.schedule.cron == "0 3 * * 1"
    assert not spec.retrain.on_drift
    assert (spec.train.window_days, spec.train.holdout_days) == (90, 14)
    assert spec.train.metric == "mae"


@pytest.mark.parametrize("text", fragments())
def test_parts_of_ones_own_are_valid(text: str, tmp_path: Path) -> None:
    features = "features: {temp: {type: number}, season: {type: integer}}"
    head = f"name: bikes\ntask: regression\ndata:\n  target: cnt\n  {features}\n"
    load(tmp_path, head + text)
