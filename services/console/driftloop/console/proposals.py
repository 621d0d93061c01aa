"""The schema that waits for a person, and what is different in it."""

from collections.abc import Iterable, Mapping
from typing import Any

from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.schema import differences, features_of

SHOWN_DIFFERENCES = 8


def proposal(
    name: str, spec: PipelineSpec | None, events: Iterable[Event]
) -> dict[str, Any] | None:
    """Return the newest proposal, unless it holds already or is overtaken.

    Parameters
    ----------
    events : decisions, oldest first.
    """
    newest: e.SchemaProposed | None = None
    accepted: e.SchemaAccepted | None = None
    for event in events:
        if isinstance(event, e.SchemaProposed):
            if newest is None or event.version >= newest.version:
                newest = event
        elif isinstance(event, e.SchemaAccepted):
            accepted = event
    if newest is None or spec is None:
        return None
    proposed = features_of(newest.columns)
    in_force = _in_force(spec, accepted)
    is_done = accepted is not None and accepted.version >= newest.version
    if spec.data.features:
        is_done = not differences(spec.data.features, proposed)
    if is_done:
        return None
    lines = differences(in_force, proposed) if in_force else []
    return {
        "version": newest.version,
        "rows": newest.row_count,
        "columns": len(newest.columns),
        "differences": lines[:SHOWN_DIFFERENCES],
        "more": max(0, len(lines) - SHOWN_DIFFERENCES),
        "reasons": [f"{c.column} {c.detail}" for c in newest.changes],
        "look": f"driftloop schema show {name} --version {newest.version}",
        "command": f"driftloop schema accept {name} --version {newest.version} "
        "--by YOUR-NAME",
    }


def _in_force(
    spec: PipelineSpec, accepted: e.SchemaAccepted | None
) -> Mapping[str, Feature]:
    if spec.data.features:
        return spec.data.features
    return features_of(accepted.columns) if accepted else {}
