"""The graph as a person reads it."""

from __future__ import annotations

import io
from typing import Any

from driftloop.cli.lineage import MANY, lineage_view
from rich.console import Console


def node(kind: str, key: str, direction: str | None, depth: int = 1) -> dict[str, Any]:
    return {
        "id": f"{kind}/bikes/{key}", "kind": kind, "key": key, "pipeline": "bikes",
        "at": f"2024-01-{depth:02d}T00:00:00Z", "title": "as told", "depth": depth,
        "direction": direction, "detail": {},
    }  # fmt: skip


def edge(source: str, target: str, relation: str) -> dict[str, str]:
    return {"source": source, "target": target, "relation": relation}


def shown(answer: dict[str, Any]) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=120).print(lineage_view(answer))
    return output.getvalue().splitlines()


def answer(batches: int) -> dict[str, Any]:
    model, training = "model/bikes/3", "training/bikes/job"
    names = [str(number) for number in range(batches)]
    return {
        "of": model, "direction": "both", "is_cut": False,
        "nodes": [
            node("model", "3", None, 1), node("training", "job", "upstream", 2),
            *(node("batch", name, "upstream", 3 + int(name)) for name in names),
        ],
        "edges": [
            edge(training, model, "made"),
            *(edge(f"batch/bikes/{name}", training, "was read by") for name in names),
        ],
    }  # fmt: skip


def test_each_node_below_the_one_it_was_found_from() -> None:
    lines = shown(answer(2))
    assert lines[0].startswith("model v3  as told")
    assert lines[1] == "came of"
    assert "made training job" in lines[2]
    assert ["was read by batch" in line for line in lines[3:5]] == [True, True]
    assert lines[5] == "went into nothing known"


def test_many_of_a_kind_are_told_as_a_number() -> None:
    lines = shown(answer(MANY + 4))
    assert sum("was read by batch" in line for line in lines) == 2
    assert any(f"and {MANY + 2} more batch, 2024-01-05 to" in line for line in lines)
    assert not any("more" in line for line in shown(answer(MANY)))  # not yet many


def test_a_cut_answer_says_so() -> None:
    assert "there is more" in shown({**answer(1), "is_cut": True})[-1]
