"""Versions: what they are worth, why they are there, decisions about them."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.describe import STYLES, describe, entry_json
from driftloop.cli.log import CHAIN_TOPICS, read_log
from driftloop.cli.options import plain_table
from driftloop.cli.why import Story, UnknownModelError, parse_model, tell
from driftloop.contracts.approval import in_words
from driftloop.contracts.pipeline import PRODUCTION
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

CARD_FORMS = (".html", ".json")


def versions(installation: Installation, pipeline: str | None) -> list[dict[str, Any]]:
    """Return the registry's versions, newest first."""
    names = (
        [pipeline]
        if pipeline
        else [m["pipeline"] for m in installation.request("GET", "/models")["items"]]
    )
    found: list[dict[str, Any]] = []
    for name in names:
        found += installation.request("GET", f"/models/{name}/versions")["items"]
    return found


def why(installation: Installation, model: str) -> Story:
    """Collect the causal story of a version from the log.

    Raises
    ------
    UnknownModelError
        Names the versions that there are.
    """
    pipeline, version = parse_model(model)
    entries = read_log(installation.bootstrap, CHAIN_TOPICS, installation.store)
    return tell(entries, pipeline, version)


def story_json(story: Story) -> dict[str, Any]:
    """Return a story for programs."""
    return {
        "pipeline": story.pipeline,
        "version": story.version,
        "trace_ids": sorted(story.trace_ids),
        "missing_causes": sorted(story.missing_causes),
        "events": [entry_json(entry) for entry in story.entries],
    }


def story_tree(story: Story, with_ids: bool = False) -> Group:
    """Draw a story for people: each event below its cause, the time before it."""
    days = {f"{entry.meta.time:%Y-%m-%d}" for entry in story.entries}
    head = Text("why ", style="dim")
    head.append(f"{story.pipeline}/v{story.version}", style="bold not dim")
    head.append(f"   {min(days)}" if len(days) == 1 else "")
    tree = Tree(head)
    branches: dict[str, Tree] = {}
    form = "%H:%M:%S" if len(days) == 1 else "%Y-%m-%d %H:%M:%S"
    for entry in story.entries:
        line = Text(f"{entry.meta.time:{form}} ", style="dim")
        line.append(f"{entry.topic} ", style=STYLES.get(entry.topic, "bold"))
        line.append(describe(entry.event))
        if with_ids:
            line.append(f"  {entry.meta.id}", style="dim")
        parent = branches.get(entry.meta.causation_id or "", tree)
        branches[entry.meta.id] = parent.add(line)
    if story.missing_causes:
        count = len(story.missing_causes)
        tree.add(Text(f"causes no longer in the log: {count}", style="dim"))
    traces = Text(f"trace {', '.join(sorted(story.trace_ids)) or 'none'}", style="dim")
    return Group(tree, traces)


def decide(
    installation: Installation, decision: str, model: str, by: str | None, reason: str
) -> dict[str, Any]:
    """Say yes or no to a version through the registry: what its route is called.

    Raises
    ------
    UnknownModelError
        When the version is not named.
    """
    answer: dict[str, Any] = installation.request(
        "POST",
        f"{_path(model)}/{decision}",
        json={"by": installation.speaker(by), "reason": reason},
    )
    return answer


def ask_again(
    installation: Installation, route: str, model: str, by: str | None, reason: str
) -> dict[str, Any]:
    """Ask people anew about a version whose request has expired.

    Parameters
    ----------
    route : ``request-approval`` or ``request-promotion``.

    Raises
    ------
    UnknownModelError
        When the version is not named.
    """
    answer: dict[str, Any] = installation.request(
        "POST",
        f"{_path(model)}/{route}",
        json={"requested_by": installation.speaker(by), "reason": reason},
    )
    return answer


def standing(answer: dict[str, Any], otherwise: str) -> str:
    """Return where a version is after a decision, in words.

    >>> asked = {"people": 2, "role": "approver", "said_yes": ["ann"], "is_open": True}
    >>> standing({"state": "awaiting_approval", "approval_request": asked}, "approve")
    'awaiting approval, 1 of 2 approver said yes (ann)'
    """
    state = str(answer.get("state", otherwise)).replace("_", " ")
    asked = answer.get("approval_request")
    if not asked or not asked["is_open"]:
        return state
    names = f" ({', '.join(asked['said_yes'])})" if asked["said_yes"] else ""
    wanted = in_words({asked["role"]: asked["people"], **asked.get("also", {})})
    count = f"{len(asked['said_yes'])} of {wanted}"
    end = asked.get("expires_at")
    until = f", until {end[:16].replace('T', ' ')} UTC" if end else ""
    return f"{state}, {count} said yes{names}{until}"


def rollback(
    installation: Installation,
    pipeline: str,
    by: str | None,
    reason: str,
    to_version: int | None,
    environment: str = PRODUCTION,
) -> dict[str, Any]:
    """Ask the registry for a rollback."""
    answer: dict[str, Any] = installation.request(
        "POST",
        f"/models/{pipeline}/rollback",
        json={
            "requested_by": installation.speaker(by),
            "reason": reason,
            "to_version": to_version,
            "environment": environment,
        },
    )
    return answer


class Steering(StrEnum):
    """What may be asked of a rollout."""

    HOLD = "hold"
    RESUME = "resume"
    PROMOTE = "promote"


def steer(
    installation: Installation,
    action: Steering,
    model: str,
    by: str | None,
    reason: str,
    environment: str = PRODUCTION,
) -> dict[str, Any]:
    """Ask the registry to hold, resume or cut short a version's rollout.

    Raises
    ------
    UnknownModelError
        When the version is not named.
    """
    pipeline, version = _named(model)
    answer: dict[str, Any] = installation.request(
        "POST",
        f"/models/{pipeline}/rollout",
        json={
            "requested_by": installation.speaker(by),
            "reason": reason,
            "action": action.value,
            "version": version,
            "environment": environment,
        },
    )
    return answer


def retrain(
    installation: Installation, pipeline: str, by: str | None, reason: str
) -> dict[str, Any]:
    """Ask the registry for a training."""
    answer: dict[str, Any] = installation.request(
        "POST",
        f"/models/{pipeline}/retrain",
        json={"requested_by": installation.speaker(by), "reason": reason},
    )
    return answer


def card(installation: Installation, model: str) -> dict[str, Any]:
    """Return a version's model card.

    Raises
    ------
    UnknownModelError
        When the version is not named.
    """
    answer: dict[str, Any] = installation.request("GET", f"{_card_path(model)}.json")
    return answer


def write_card(installation: Installation, model: str, file: Path) -> None:
    """Write a version's model card as HTML or JSON, by the file's name.

    Raises
    ------
    CommandError
        When the name has neither form, or the file cannot be written.
    """
    if file.suffix not in CARD_FORMS:
        raise CommandError(
            f"{file.name}: give it a name that ends in {' or '.join(CARD_FORMS)}"
        )
    answer = installation.fetch("GET", f"{_card_path(model)}{file.suffix}")
    try:
        file.write_bytes(answer.content)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error}") from error


def _named(model: str) -> tuple[str, int]:
    pipeline, version = parse_model(model)
    if version is None:
        raise UnknownModelError(f"name the version, for example {pipeline}/3")
    return pipeline, version


def _path(model: str) -> str:
    pipeline, version = _named(model)
    return f"/models/{pipeline}/versions/{version}"


def _card_path(model: str) -> str:
    return f"{_path(model)}/card"


def card_text(card: dict[str, Any]) -> str:
    """Return what a card says in words, for the terminal."""
    analyses = card["quantitative_analyses"]
    parts = {
        "": [card["intended_use"]["primary"]],
        "How good it is": [analyses["comparison"], analyses["fit"]["detail"]],
        "What changed": card["explanation"]["changes"],
        "To mind": card["ethical_considerations"] + card["caveats_and_recommendations"],
    }
    lines = []
    for title, sentences in parts.items():
        lines += [title] if title else []
        lines += [f"  {sentence}" if title else sentence for sentence in sentences]
    return "\n".join(lines)


def version_table(versions: list[dict[str, Any]]) -> RenderableType:
    """Return the versions as a table; an algorithm that all share is in its title."""
    if not versions:
        return Text("no version yet; the first comes with enough labelled rows")
    algorithms = {item["algorithm"].replace("_", " ") for item in versions}
    shared = f", all {next(iter(algorithms))}" if len(algorithms) == 1 else ""
    table = plain_table(f"versions, newest first{shared}")
    for name in ("model", "state", "because of"):
        table.add_column(name, no_wrap=True)
    table.add_column("hold-out", ratio=1)
    for item in versions:
        state = str(item["state"]).replace("_", " ")
        is_champion = "champion" in item["aliases"]
        worth = _short(item["summary"])
        algorithm = "" if shared else f"{item['algorithm'].replace('_', ' ')}: "
        table.add_row(
            f"{item['pipeline']}/{item['version']}",
            Text(
                "champion" if is_champion else state,
                style="bold green" if is_champion else "",
            ),
            str(item["trigger_reason"]).replace("_", " "),
            f"{algorithm}{worth}",
        )
    return table


def _short(summary: str) -> str:
    """Leave out of a comparison what a narrow table has no room for.

    >>> _short("mae 40.1 against champion v24 92.7 on 324 hold-out rows")
    'mae 40.1, v24 92.7'
    """
    return (
        summary.partition(" on ")[0]
        .replace(" against champion ", ", ")
        .replace(" against ", ", ")
    )
