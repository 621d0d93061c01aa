"""``driftloop lineage``: what something came of, and what it went into, as trees."""

from collections.abc import Iterable, Sequence
from typing import Any

from driftloop.cli.context import Installation
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

PAGE = 500
MAX_PAGES = 20
"""Of an answer for people and programs: 10,000 nodes; REST has the rest."""
MANY = 6
"""More children of a kind than this are told as a number."""
STYLES = {
    "batch": "cyan", "validated": "cyan", "dataset": "blue", "training": "magenta",
    "model": "bold green", "deployment": "green", "drift": "yellow",
    "approval": "bold", "request": "bold",
}  # fmt: skip


def lineage(
    installation: Installation, thing: str, direction: str, depth: int
) -> dict[str, Any]:
    """Return the graph round a thing, near nodes first.

    Raises
    ------
    CommandError
        When there is no such thing; with the registry's explanation.
    """
    wanted = {"of": thing, "direction": direction, "depth": depth, "limit": PAGE}
    answer: dict[str, Any] = installation.request("GET", "/lineage", params=wanted)
    following = answer.pop("next_cursor")
    for _ in range(MAX_PAGES - 1):
        if following is None:
            break
        page = installation.request(
            "GET", "/lineage", params={**wanted, "cursor": following}
        )
        answer["nodes"] += page["nodes"]
        answer["edges"] += page["edges"]
        following = page["next_cursor"]
    answer["is_cut"] = answer["is_cut"] or following is not None
    return answer


def lineage_view(answer: dict[str, Any]) -> RenderableType:
    """Draw the graph: each node once, below the one that it was found from."""
    nodes = {node["id"]: node for node in answer["nodes"]}
    parts: list[RenderableType] = [_line(nodes[answer["of"]], "")]
    for direction, title in (("upstream", "came of"), ("downstream", "went into")):
        if answer["direction"] in (direction, "both"):
            children = _children(answer, nodes, direction)
            tree = Tree(Text(title, style="dim"))
            _grow(tree, answer["of"], children)
            parts.append(tree if tree.children else Text(f"{title} nothing known"))
    if answer["is_cut"]:
        parts.append(Text("there is more: --depth, --direction", style="dim"))
    return Group(*parts)


Child = tuple[dict[str, Any], str]


def _children(
    answer: dict[str, Any], nodes: dict[str, dict[str, Any]], direction: str
) -> dict[str, list[Child]]:
    near, far = "target", "source"
    if direction == "downstream":
        near, far = far, near
    found: dict[str, list[Child]] = {}
    placed: set[str] = set()
    for edge in answer["edges"]:
        node = nodes.get(edge[far])
        if node and node["direction"] == direction and node["id"] not in placed:
            placed.add(node["id"])
            found.setdefault(edge[near], []).append((node, edge["relation"]))
    return found


def _grow(tree: Tree, node_id: str, children: dict[str, list[Child]]) -> None:
    todo = [(tree, node_id)]
    while todo:  # no recursion: a chain of models may be deep
        branch, parent = todo.pop()
        for group in _groups(children.get(parent, [])):
            kept = group if len(group) <= MANY else group[:2]
            for node, relation in kept:
                todo.append((branch.add(_line(node, relation)), node["id"]))
            if len(group) > len(kept):
                branch.add(_rest([node for node, _ in group[len(kept) :]]))


def _groups(children: Sequence[Child]) -> Iterable[list[Child]]:
    kinds: dict[str, list[Child]] = {}
    for node, relation in children:
        kinds.setdefault(node["kind"], []).append((node, relation))
    return kinds.values()


def _line(node: dict[str, Any], relation: str) -> Text:
    text = Text(f"{relation} " if relation else "", style="dim")
    text.append(f"{node['kind']} ", style=f"not dim {STYLES.get(node['kind'], '')}")
    name = node["key"] if node["kind"] != "model" else f"v{node['key']}"
    text.append(name, style="not dim bold" if not relation else "not dim")
    text.append(f"  {node['title']}", style="not dim")
    if node["at"]:
        text.append(f"  {node['at'][:16].replace('T', ' ')}", style="dim")
    return text


def _rest(nodes: Sequence[dict[str, Any]]) -> Text:
    times = sorted(node["at"] for node in nodes if node["at"])
    span = f", {times[0][:10]} to {times[-1][:10]}" if times else ""
    return Text(f"and {len(nodes):,} more {nodes[0]['kind']}{span}", style="dim")
