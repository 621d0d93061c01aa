"""``driftloop backtest --replay``: the log's decisions under another policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from driftloop.cli.backtest import child
from driftloop.cli.context import Installation
from driftloop.cli.log import Entry, read_log
from driftloop.cli.options import plain_table
from driftloop.contracts.topics import TOPICS
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

TRAINER = "trainer"
SHOWN = 20
TOPICS_OF_TRAINER = tuple(
    topic.name
    for topic in TOPICS
    if TRAINER in (*topic.consumers, *topic.producers)
    and topic.retention is None
    and not topic.event.has_rows
)
"""What the trainer takes and says; kept for ever."""


def replayed(
    installation: Installation, pipeline: str, policies: Sequence[str]
) -> dict[str, Any]:
    """Return what each policy would have decided, against the record.

    Raises
    ------
    CommandError
        When the log knows no such pipeline, or a policy file is wrong.
    """
    found = read_log(installation.bootstrap, TOPICS_OF_TRAINER, installation.store)
    mine = [entry for entry in found if entry.event.pipeline == pipeline]
    asked = {
        "kind": "replay",
        "pipeline": pipeline,
        "policies": [str(Path(policy).resolve()) for policy in policies],
        "entries": [_entry(entry) for entry in mine],
    }
    return child.ask(asked, installation.home, lambda _: None)


def _entry(entry: Entry) -> dict[str, Any]:
    meta = entry.meta
    return {
        "topic": entry.topic,
        "body": entry.event.model_dump_json(),
        "id": meta.id,
        "time": meta.time.isoformat(),
        "source": meta.source,
        "chain_id": meta.chain.id,
        "causation_id": meta.causation_id,
        "partition": meta.partition,
        "offset": meta.offset,
    }


def replay_view(answer: dict[str, Any]) -> RenderableType:
    """Return, for each policy, whether it would have decided otherwise, and where."""
    own, *others = answer["policies"]
    total = len(answer["recorded"])
    parts: list[RenderableType] = [_own(own, total)]
    for policy in others:
        parts += [Text(), _policy(policy, total)]
    return Group(*parts)


def _own(own: dict[str, Any], total: int) -> RenderableType:
    if not own["differences"]:
        return Text(
            f"the policy that ran decides the same again: {total} of {total} decisions",
            style="green",
        )
    return Group(
        Text(
            f"the applied pipeline file decides otherwise in {len(own['differences'])} "
            f"of {total} decisions; it was another one when they were made, or a race "
            "between topics is not in the log",
            style="yellow",
        ),
        _differences(own["differences"]),
    )


def _policy(policy: dict[str, Any], total: int) -> RenderableType:
    found = policy["differences"]
    note = ""
    if kept := policy["as_recorded"]:
        note = (
            f" Changes of {' and '.join(kept)} do nothing here, as what others decided "
            "is taken as recorded; try them on data (--from)."
        )
    if not found:
        return Text(f"{policy['name']}: no decision would differ, of {total}.{note}")
    head = (
        f"{policy['name']}: {len(found)} decisions would differ, the first at "
        f"{found[0]['at'][:19].replace('T', ' ')}; {policy['equal']} are the same. "
        "After the first, models that this policy would have made are in no log: the "
        f"rest is told with the recorded ones.{note}"
    )
    return Group(Text(head, style="bold"), _differences(found))


def _differences(found: Sequence[dict[str, Any]]) -> Table:
    table = plain_table("", caption=_rest(found))
    table.add_column("at", no_wrap=True)
    table.add_column("trigger", overflow="fold")
    table.add_column("recorded", overflow="fold")
    table.add_column("would be", overflow="fold")
    for each in found[:SHOWN]:
        was, would = each["recorded"], each["replayed"]
        table.add_row(
            each["at"][:19].replace("T", " "),
            (was or would)["cause"].replace("_", " "),
            _said(was),
            _said(would),
        )
    return table


def _said(decision: dict[str, Any] | None) -> str:
    if decision is None:
        return "nothing"
    return f"{decision['outcome'].replace('_', ' ')}: {decision['detail']}"


def _rest(found: Sequence[dict[str, Any]]) -> str:
    left = len(found) - SHOWN
    return f"and {left} more: --json has all" if left > 0 else ""
