"""What counts as a breaking change, and that the gate stops one."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.compatibility import breaches
from driftloop.contracts.generate import main, snapshot_path
from driftloop.contracts.topics import BY_NAME

DRIFT = BY_NAME["drift-detected"]


def record(**fields: Any) -> dict[str, Any]:
    """Return an object schema whose fields are required unless they have a default."""
    required = [name for name, schema in fields.items() if "default" not in schema]
    return {"type": "object", "properties": fields, "required": required}


TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NULL = {"type": "null"}
ITSELF = {"$ref": "#/$defs/R"}
NESTED = {"$defs": {"R": record(b=ITSELF)}, **record(a=ITSELF)}

BREAKING = {
    "field removed": (record(a=TEXT, b=TEXT), record(a=TEXT), "b: field removed"),
    "field renamed": (record(a=TEXT), record(b=TEXT), "a: field removed or renamed"),
    "new required field": (record(a=TEXT), record(a=TEXT, b=TEXT), "b: new required"),
    "required now": (
        record(a=TEXT | {"default": ""}), record(a=TEXT), "a: required now",
    ),
    "other type": (record(a=TEXT), record(a=WHOLE), "a: string is no longer"),
    "number to integer": (
        record(a={"type": "number"}), record(a=WHOLE), "a: number is no longer",
    ),
    "null refused": (
        record(a={"anyOf": [TEXT, NULL]}), record(a=TEXT), "a: null is no longer",
    ),
    "enum value gone": (
        record(a={"type": "string", "enum": ["x", "y"]}),
        record(a={"type": "string", "enum": ["x"]}),
        r"a: \['y'\] is no longer accepted",
    ),
    "enum introduced": (
        record(a=TEXT), record(a={"type": "string", "enum": ["x"]}), "a: only",
    ),
    "higher minimum": (
        record(a=WHOLE | {"minimum": 0}), record(a=WHOLE | {"minimum": 1}), "minimum",
    ),
    "new maximum": (record(a=WHOLE), record(a=WHOLE | {"maximum": 9}), "maximum"),
    "pattern changed": (
        record(a=TEXT | {"pattern": "a"}), record(a=TEXT | {"pattern": "b"}), "pattern",
    ),
    "in a list": (
        record(a={"type": "array", "items": record(b=TEXT)}),
        record(a={"type": "array", "items": record(c=TEXT)}),
        r"a\[\].b: field removed",
    ),
    "behind a reference": (
        {"$defs": {"R": record(b=TEXT)}, **record(a={"$ref": "#/$defs/R"})},
        {"$defs": {"S": record(b=WHOLE)}, **record(a={"$ref": "#/$defs/S"})},
        "a.b: string is no longer",
    ),
    "unknown fields refused": (
        record(a=TEXT) | {"additionalProperties": True},
        record(a=TEXT) | {"additionalProperties": False},
        "additionalProperties is narrowed",
    ),
}  # fmt: skip

ADDITIVE = {
    "the same": (record(a=TEXT), record(a=TEXT)),
    "field with a default": (record(a=TEXT), record(a=TEXT, b=TEXT | {"default": ""})),
    "integer to number": (record(a=WHOLE), record(a={"type": "number"})),
    "null allowed": (record(a=TEXT), record(a={"anyOf": [TEXT, NULL]})),
    "enum grows": (
        record(a={"type": "string", "enum": ["x"]}),
        record(a={"type": "string", "enum": ["x", "y"]}),
    ),
    "bound dropped": (record(a=WHOLE | {"minimum": 0}), record(a=WHOLE)),
    "lower minimum": (
        record(a=WHOLE | {"minimum": 1}), record(a=WHOLE | {"minimum": 0}),
    ),
    "description changed": (record(a=TEXT), record(a=TEXT | {"description": "new"})),
    "no longer required": (record(a=TEXT), record(a=TEXT | {"default": ""})),
    "contains itself": (NESTED, copy.deepcopy(NESTED)),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKING)
def test_breaking_change_is_found(name: str) -> None:
    """Each kind of narrowing is named, with its place."""
    old, new, expected = BREAKING[name]
    found = breaches(old, new)
    assert len(found) >= 1
    with pytest.raises(ValueError, match=expected):
        raise ValueError("; ".join(map(str, found)))


@pytest.mark.parametrize("name", ADDITIVE)
def test_additive_change_is_allowed(name: str) -> None:
    """Negative control: what only widens is no breach."""
    old, new = ADDITIVE[name]
    assert breaches(old, new) == []


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of everything that the generator reads and writes."""
    for folder in ("libs/contracts/examples", "libs/contracts/schemas"):
        shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    for file in ("libs/contracts/asyncapi.yaml", "docs/chain.md", "docs/pipeline.md"):
        shutil.copy(root / file, tmp_path / file)
    return tmp_path


def edit_published(checkout: Path, change: Any) -> None:
    path = checkout / snapshot_path(DRIFT)
    schema = json.loads(path.read_text("utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")


def test_generated_files_are_current(root: Path) -> None:
    """Schemas, AsyncAPI document and picture say what the contracts say."""
    assert main(["--check", "--root", str(root)]) == 0


def test_gate_stops_a_breaking_change(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that was published and is no more: refused, with who would break."""
    edit_published(
        checkout,
        lambda schema: schema["properties"].update(severity={"type": "string"}),
    )
    before = (checkout / snapshot_path(DRIFT)).read_text("utf-8")

    for mode in (["--check"], []):
        assert main([*mode, "--root", str(checkout)]) == 1
        error = capsys.readouterr().err
        assert "drift-detected: the change breaks monitor" not in error
        assert "drift-detected: the change breaks trainer, registry, console" in error
        assert "severity: field removed or renamed" in error
    assert (checkout / snapshot_path(DRIFT)).read_text("utf-8") == before


def test_gate_stops_a_removed_topic(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A published schema whose topic is gone is a breaking change too."""
    shutil.copy(
        checkout / snapshot_path(DRIFT),
        checkout / "libs/contracts/schemas/drift-suspected.v1.json",
    )
    assert main(["--root", str(checkout)]) == 1
    assert "drift-suspected.v1.json: its topic is gone" in capsys.readouterr().err


def test_additive_change_only_needs_a_new_snapshot(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check says which file is stale; the plain command mends it."""
    edit_published(checkout, lambda schema: schema["properties"].pop("features"))

    assert main(["--check", "--root", str(checkout)]) == 1
    assert "drift-detected.v1.json is not what" in capsys.readouterr().err
    assert main(["--root", str(checkout)]) == 0
    assert main(["--check", "--root", str(checkout)]) == 0
