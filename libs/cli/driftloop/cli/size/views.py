"""A size as people and programs read it, with what it follows from."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from driftloop.cli.options import plain_table
from driftloop.cli.size.sizing import (
    CHILD_BYTES,
    DOOR_ROW_SECONDS,
    DOOR_SECONDS,
    LOG_ROW_SECONDS,
    SCORER_BYTES,
    Demand,
    Known,
    Size,
    wait_p99,
)
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MIB = 2**20


def size_json(
    name: str, version: int, demand: Demand, known: Known, size: Size
) -> dict[str, Any]:
    """Return a size for programs."""
    return {
        "pipeline": name,
        "version": version,
        "demand": asdict(demand),
        "profile": known.profile.model_dump(mode="json"),
        "measured_by": known.measured_by,
        "door": known.door.model_dump(mode="json") if known.door else None,
        "size": asdict(size),
        "kubernetes": {"replicas": size.scorers, "resources": resources(size)},
        "reasoning": list(reasoning(demand, size)),
        "assumptions": list(assumptions(demand, known)),
    }


def resources(size: Size) -> dict[str, Any]:
    """Return the resources of a scorer's container in Kubernetes.

    No limit of processor time: a container that is held back in the middle of an
    answer keeps its whole queue waiting.
    """
    memory = f"{size.memory_bytes // MIB}Mi"
    return {"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}}


def reasoning(demand: Demand, size: Size) -> Iterator[str]:
    """Yield how the size follows from the figures, in words."""
    spent = size.spent
    rows = f"{demand.rows:,} row{'s' if demand.rows > 1 else ''}"
    yield (
        f"A request of {rows} takes {_ms(spent.mean)} of processor time: "
        f"{_ms(spent.model)} the model, {_ms(spent.door)} the door, "
        f"{_ms(spent.log)} the log of answers."
    )
    used = demand.rate * spent.mean
    fewest = max(1, math.ceil(used / demand.utilisation))
    yield (
        f"{demand.rate:g} requests a second use {used:.3g} processors; at "
        f"{demand.utilisation:.0%} of each that is {_scorers(fewest)}."
    )
    if size.busy > fewest:
        yield (
            f"99 of 100 answers within {_ms(demand.within_seconds or 0)} need "
            f"{_scorers(size.busy)}; {fewest} would answer them within "
            f"{_ms(spent.p99 + wait_p99(demand.rate / fewest, spent))}."
        )
    yield (
        f"Each is used {size.utilisation:.0%}; a request waits "
        f"{_ms(size.wait_seconds)} in the mean, 99 of 100 are answered within "
        f"{_ms(size.p99_seconds)}."
    )
    if demand.spare:
        yield f"{demand.spare} more so that as many may be away: {size.scorers}."


def assumptions(demand: Demand, known: Known) -> Iterator[str]:
    """Yield what the size takes for granted."""
    yield (
        "requests come independently of each other, evenly to all scorers; a scorer "
        "answers one after the other on a whole processor (M/G/1, mean wait by "
        "Pollaczek and Khinchine, its tail exponential)"
    )
    yield (
        f"at most {demand.utilisation:.0%} of a processor is used; the rest is for "
        "peaks and for the stream"
    )
    if known.door is None:
        yield (
            f"no scorer has told yet what its answers take beside the model: "
            f"{_ms(DOOR_SECONDS)}, as once measured"
        )
    else:
        yield (
            f"an answer beside the model as measured on {known.door.requests:,} "
            f"requests ({known.door.rows:.3g} rows each); its spread is taken to be as "
            "large as its mean"
        )
    if known.colder_seconds:
        yield (
            f"a call in service takes {_ms(known.colder_seconds)} more than in the "
            "trial, where nothing else is in the processor's caches, as measured"
        )
    if known.door is None or known.door.rows < demand.rows:
        yield f"a row more at the door: {_ms(DOOR_ROW_SECONDS)}, once measured as JSON"
    most = known.profile.batches[-1].rows
    if most < demand.rows:
        yield f"the model was measured with {most:,} rows at most; further in a line"
    yield f"each row is logged ({_ms(LOG_ROW_SECONDS)}); no request asks why"
    if known.scorer_bytes is None:
        yield f"a scorer without a version takes {SCORER_BYTES // MIB} MiB, as measured"
    if known.profile.child_bytes is None:
        yield f"a trial's process takes {CHILD_BYTES // MIB} MiB, as once measured"
    yield "memory is for a second version beside the first, and for its trial"


def size_view(
    name: str, version: int, demand: Demand, known: Known, size: Size
) -> RenderableType:
    """Show a size, the profile it follows from, and the way there."""
    memory = size.memory_bytes // MIB
    head = Text(f"{_scorers(size.scorers)}", style="bold")
    head.append(f" with a processor and {memory:,} MiB each", style="not bold")
    lines = [
        "replicas: " + str(size.scorers),
        "resources:",
        f'  requests: {{cpu: "1", memory: {memory}Mi}}',
        f"  limits: {{memory: {memory}Mi}}",
    ]
    return Group(
        head,
        Text(""),
        *(Text(line) for line in reasoning(demand, size)),
        Text(""),
        profile_table(name, version, known),
        Text("Kubernetes, for the scorer's container:", style="bold"),
        *(Text(line) for line in lines),
        Text(f"One machine: driftloop up --scorers {size.scorers}", style="bold"),
        Text(""),
        Text("Taken for granted:", style="bold"),
        *(Text(f"- {line}") for line in assumptions(demand, known)),
    )


def profile_table(name: str, version: int, known: Known) -> Table:
    """Show what calls of a version cost by their rows."""
    table = plain_table(
        f"{name}/{version} on {known.profile.machine}, by {known.measured_by}"
    )
    for title in ("rows of a call", "median", "99 of 100", "a row", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in known.profile.batches:
        table.add_row(
            f"{cost.rows:,}",
            _ms(cost.p50_seconds),
            _ms(cost.p99_seconds),
            _ms(cost.p50_seconds / cost.rows),
            f"{cost.memory_bytes / MIB:,.0f} MiB",
        )
    return table


def _ms(seconds: float) -> str:
    """Return a time as it is read.

    >>> _ms(0.0123), _ms(0.0000042), _ms(0.0)
    ('12.3 ms', '0.0042 ms', '0 ms')
    """
    return f"{seconds * 1000:.3g} ms"


def _scorers(count: int) -> str:
    return f"{count} scorer" + ("s" if count > 1 else "")
