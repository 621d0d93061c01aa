"""Erasures as the registry tells of them, and what people decide."""

from collections.abc import Sequence
from typing import Any

from driftloop.cli.context import Installation, every
from driftloop.cli.options import plain_table
from rich.console import Group, RenderableType
from rich.text import Text

PAGE = 500


def erasures(installation: Installation, pipeline: str | None) -> list[dict[str, Any]]:
    """Return all erasures, newest first."""
    return every(installation, "/erasures", pipeline=pipeline or None, limit=PAGE)


def erasure(installation: Installation, erasure_id: str) -> dict[str, Any]:
    """Return one erasure.

    Raises
    ------
    CommandError
        When there is none of that id.
    """
    answer: dict[str, Any] = installation.request("GET", f"/erasures/{erasure_id}")
    return answer


def settle(
    installation: Installation,
    erasure_id: str,
    versions: Sequence[int],
    decision: str,
    by: str,
    reason: str,
) -> dict[str, Any]:
    """Say what becomes of models; return the erasure as it is then.

    Raises
    ------
    CommandError
        When the registry refuses it, with its explanation.
    """
    answer: dict[str, Any] = installation.request(
        "POST",
        f"/erasures/{erasure_id}/settle",
        json={
            "versions": list(versions),
            "decision": decision,
            "by": by,
            "reason": reason,
        },
    )
    return answer


def erasure_table(found: Sequence[dict[str, Any]]) -> RenderableType:
    """Return erasures as a table."""
    if not found:
        return Text("nobody has been erased")
    table = plain_table("erasures, newest first")
    for name in ("erasure", "pipeline", "erased", "models", "is"):
        table.add_column(name, overflow="fold")
    for item in found:
        table.add_row(
            item["erasure_id"],
            item["pipeline"],
            item["erased_at"][:16].replace("T", " "),
            ", ".join(f"v{model['version']}" for model in item["models"]) or "none",
            _state(item),
        )
    return table


def _state(item: dict[str, Any]) -> str:
    if item["is_completed"]:
        return "completed"
    waiting = [m for m in item["models"] if m["state"] == "waiting_for_decision"]
    if waiting:
        return f"waits for {len(waiting)} decisions"
    return "waits for trainings"


def erasure_view(item: dict[str, Any]) -> RenderableType:
    """Return one erasure for people: what was destroyed, and what it affects."""
    lines = [
        Text(f"{item['pipeline']}: {item['subject']}, {_state(item)}", style="bold"),
        Text(
            f"asked for by {item['requested_by']}, erased {item['erased_at'][:16]}: "
            f"{item['key_count']} key, {item['token_count']} tokens, "
            f"{item['payload_count']} payloads"
        ),
    ]
    for version in item["datasets"]:
        span = version["span"]
        lines.append(
            Text(
                f"{version['kind']} at version {version['version']}: "
                f"{version['row_count']} rows, {span['start'][:10]} to "
                f"{span['end'][:10]}"
            )
        )
    lines += [_model_line(model) for model in item["models"]]
    lines += [Text(f"training {job} has not ended") for job in item["open_trainings"]]
    return Group(*lines)


def _model_line(model: dict[str, Any]) -> Text:
    settled = model["settled"]
    if settled is None:
        what = model["state"].replace("_", " ")
    elif settled["replaced_by"]:
        what = f"retrained, replaced by v{settled['replaced_by']}"
    else:
        what = settled["settlement"].replace("_", " ")
    why = f" ({model['by']}: {model['reason']})" if model["by"] else ""
    return Text(f"model v{model['version']}: {what}{why}")
