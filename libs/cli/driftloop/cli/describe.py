"""How the terminal shows events: their colours."""

from typing import Any

from driftloop.cli.log import Entry
from driftloop.contracts.describe import compared, describe, percent

STYLES = {
    "drift-detected": "yellow",
    "verdict-overruled": "magenta",
    "alert-raised": "bold red",
    "alert-resolved": "green",
    "alert-delivered": "dim",
    "performance-estimated": "dim",
    "performance-settled": "dim",
    "training-failed": "bold red",
    "training-cancelled": "yellow",
    "training-skipped": "dim",
    "training-progressed": "dim",
    "scoring-progressed": "dim",
    "dataset-scored": "green",
    "scoring-failed": "bold red",
    "scoring-cancelled": "yellow",
    "model-rejected": "red",
    "model-rolled-back": "bold red",
    "model-deployed": "bold green",
    "model-trained": "cyan",
    "approval-requested": "magenta",
    "approval-reminded": "magenta",
    "approval-expired": "yellow",
}


def entry_json(entry: Entry) -> dict[str, Any]:
    """One event of the log for programs."""
    return {
        "time": entry.meta.time.isoformat(),
        "type": entry.topic,
        "id": entry.meta.id,
        "chain_id": entry.meta.chain.id,
        "causation_id": entry.meta.causation_id,
        "trace_id": entry.trace_id,
        "what": describe(entry.event),
        "data": entry.event.model_dump(mode="json"),
    }


__all__ = ["STYLES", "compared", "describe", "entry_json", "percent"]
