"""What services handle and emit is what the topic table says."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from driftloop.contracts import alerts, estimates, events, identity, scoring
from driftloop.contracts.base import Event
from driftloop.contracts.topics import consumed_by, produced_by
from driftloop.runtime.handlers import handler_table

EVENT_NAMES = {
    name
    for module in (identity, events, scoring, alerts, estimates)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Event) and value is not Event
}
"""Without the base class: nothing makes one, and threads have an Event of their own."""
MADE_BY_RUNTIME = {"AuditNoted"}
"""Made for each service whose routes write, by what checks the rights of requests."""


def sources(root: Path, service: str) -> str:
    """Return the service's source, one text."""
    paths = sorted((root / f"services/{service}/driftloop/{service}").rglob("*.py"))
    return "\n".join(path.read_text("utf-8") for path in paths)


def constructed(source: str) -> Iterator[str]:
    """Name the event classes that a source makes instances of, or records with.

    Rows that go on as they came are never an event object: the record's ``ce_type``
    is asked of the class, ``ObservationArrived.type_name()``.
    """
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "type_name":
                node = ast.Call(node.func.value, [], [])  # noqa: PLW2901 - its class
            name = (
                aliases.get(node.func.id, node.func.id)
                if isinstance(node.func, ast.Name)
                else getattr(node.func, "attr", "")
            )
            if name in EVENT_NAMES:
                yield name


def test_handlers_are_the_table(service: str) -> None:
    """HANDLERS covers exactly the topics that the service consumes."""
    module = importlib.import_module(f"driftloop.{service}.handlers")
    handled = set(handler_table(module.HANDLERS).topics)
    expected = {topic.name for topic in consumed_by(service)}
    if service == "console":  # reads the whole log by position, see its follower
        assert handled <= expected
    else:
        assert handled == expected


def test_emitted_events_are_the_table(root: Path, service: str) -> None:
    """A service makes exactly the events that the table lets it publish."""
    made = set(constructed(sources(root, service)))
    allowed = {topic.event.__name__ for topic in produced_by(service)}
    assert made == allowed - MADE_BY_RUNTIME


def test_construction_is_seen() -> None:
    """Negative control: direct, by module and under another name."""
    source = (
        "from driftloop.contracts import events as e\n"
        "from driftloop.contracts.events import DriftDetected\n"
        "from driftloop.contracts.events import ModelTrained as Trained\n"
        "yield DriftDetected(pipeline='p')\n"
        "yield e.AlertRaised(pipeline='p')\n"
        "yield Trained(pipeline='p')\n"
        "headers = {'ce_type': e.LabelArrived.type_name()}\n"
        "x: BatchScored\n"
        "y = event.type_name()\n"
    )
    assert set(constructed(source)) == {
        "DriftDetected", "AlertRaised", "ModelTrained", "LabelArrived",
    }  # fmt: skip


def test_wrong_handler_name_is_refused() -> None:
    """Negative control: name and annotation must agree."""

    def on_something(event: events.DriftDetected, deps: None) -> Iterator[Event]:
        yield from ()

    with pytest.raises(TypeError, match="on_drift_detected"):
        handler_table([on_something])
