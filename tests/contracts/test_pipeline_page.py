"""The reference of the pipeline file is complete, and its examples work."""

import re
from pathlib import Path

import pytest
from driftloop.contracts.pipeline import (
    PipelineFileError,
    PipelineSpec,
    Section,
    load_pipeline,
    parse_pipeline,
)

LINE = re.compile(r"^\| `([\w.]+)` \| .* \| ([^|]*) \|$", re.MULTILINE)


def page_of(root: Path) -> str:
    return (root / "docs/pipeline.md").read_text("utf-8")


def keys_of(section: type[Section]) -> set[str]:
    """Return every key of the file, sections in sections by their path."""
    keys = set()
    for name, field in section.model_fields.items():
        keys.add(name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            keys |= keys_of(kind)
    return keys


def test_every_key_has_a_meaning(root: Path) -> None:
    """No key is missing, and none stands there without a word."""
    lines = LINE.findall(page_of(root))
    named = {part for key, _ in lines for part in key.split(".")}
    assert keys_of(PipelineSpec) <= named
    assert [key for key, meaning in lines if not meaning.strip()] == []
    assert "retrain_when" not in named  # negative control


def test_examples_on_the_page_are_pipelines(root: Path) -> None:
    """What a reader copies is accepted."""
    blocks = re.findall(r"```yaml\n(.*?)```", page_of(root), re.DOTALL)
    files = [block for block in blocks if block.startswith("name:")]
    assert files
    for block in files:
        spec = parse_pipeline(block)
        features = next(b for b in blocks if b.startswith("features:"))
        indented = "".join(f"  {line}\n" for line in features.splitlines())
        assert parse_pipeline(block + indented).data.features
        with pytest.raises(PipelineFileError, match="did you mean 'target'"):
            parse_pipeline(block.replace("target:", "taget:"))  # negative control
        assert spec.automation == "full"


def test_files_of_the_examples_are_pipelines(root: Path) -> None:
    """Each example's file is accepted as it stands."""
    files = sorted(root.glob("examples/*/pipeline.yaml"))
    assert files
    for file in files:
        assert load_pipeline(file).name == file.parent.name
