"""Why is this model in production? Answered from the log alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from driftloop.cli.log import Entry, by_id
from driftloop.contracts import estimates as est
from driftloop.contracts import events as e


class UnknownModelError(Exception):
    """The log knows no such version; the text says which it knows."""


@dataclass(frozen=True, slots=True)
class Story:
    """Why a version is (or is not) in service.

    Attributes
    ----------
    version : the version told about.
    entries : events of its chain from the first cause on, oldest first.
    trace_ids : traces that hold them; one where the chain is whole.
    missing_causes : ids that events name as their cause and the log lacks
        (their topic's retention has passed, or upstream is not ours).
    """

    pipeline: str
    version: int
    entries: Sequence[Entry]
    trace_ids: frozenset[str]
    missing_causes: frozenset[str]


def parse_model(text: str) -> tuple[str, int | None]:
    """Split ``bike-demand/3``, ``bike-demand/v3`` or ``bike-demand`` (champion).

    ``@`` does as well as ``/``.

    Raises
    ------
    UnknownModelError
        When the version is not a number.

    Examples
    --------
    >>> parse_model("bike-demand/v3")
    ('bike-demand', 3)
    >>> parse_model("bike-demand@3")
    ('bike-demand', 3)
    >>> parse_model("bike-demand")
    ('bike-demand', None)
    """
    name, _, version = text.removesuffix("@champion").replace("@", "/").partition("/")
    if not version:
        return name, None
    try:
        return name, int(version.removeprefix("v"))
    except ValueError:
        raise UnknownModelError(
            f"{version!r} is not a version; write {name}/3, or {name} for the champion"
        ) from None


def champion_of(entries: Iterable[Entry], pipeline: str) -> int | None:
    """Return the version that answers now, from the log."""
    champion = None
    for entry in entries:
        event = entry.event
        if event.pipeline != pipeline:
            continue
        if isinstance(event, e.ModelDeployed):
            champion = event.version
        elif isinstance(event, e.ModelRolledBack) and event.restored:
            champion = event.restored.version
    return champion


def tell(entries: Sequence[Entry], pipeline: str, version: int | None) -> Story:
    """Collect the causal chain of a version.

    Raises
    ------
    UnknownModelError
        Names the versions or pipelines that there are.
    """
    wanted = version if version is not None else champion_of(entries, pipeline)
    registered = [
        entry
        for entry in entries
        if isinstance(entry.event, e.ModelRegistered)
        and entry.event.pipeline == pipeline
    ]
    root = next((r for r in registered if _version(r) == wanted), None)
    if root is None or wanted is None:
        known = ", ".join(f"{pipeline}/{_version(r)}" for r in registered)
        pipelines = sorted({entry.event.pipeline for entry in entries})
        if pipeline not in pipelines:
            raise UnknownModelError(
                f"no pipeline {pipeline!r} in the log; there are: "
                f"{', '.join(pipelines) or 'none'}"
            )
        raise UnknownModelError(
            f"{pipeline} has no version in service; known: {known or 'none'}"
            if wanted is None
            else f"no {pipeline}/{wanted} in the log; known: {known or 'none'}"
        )
    chain = [entry for entry in entries if entry.meta.chain.id == root.meta.chain.id]
    chain = [entry for entry in chain if _belongs(entry.event, wanted)]
    known_ids = by_id(entries)
    ancestors, missing = _ancestors(chain, known_ids)
    story = {entry.meta.id: entry for entry in (*ancestors, *chain)}
    ordered = sorted(story.values(), key=lambda entry: entry.meta.time)
    traces = frozenset(entry.trace_id for entry in ordered if entry.trace_id)
    return Story(pipeline, wanted, ordered, traces, missing)


def _version(entry: Entry) -> int:
    version: int = entry.event.version  # type: ignore[attr-defined]  # ModelRegistered
    return version


NOISE = (
    e.TrainingProgressed, e.ScorerReported, e.PerformanceMeasured,
    est.PerformanceEstimated, est.PerformanceSettled,
)  # fmt: skip


def _belongs(event: object, version: int) -> bool:
    """Leave out progress and other versions that share the chain's first cause."""
    if isinstance(event, NOISE):
        return False
    found = getattr(event, "version", version)
    return found == version


def _ancestors(
    chain: Sequence[Entry], known: dict[str, Entry]
) -> tuple[list[Entry], frozenset[str]]:
    found: dict[str, Entry] = {}
    missing: set[str] = set()
    pending = [entry.meta.causation_id for entry in chain]
    while pending:
        cause = pending.pop()
        if cause is None or cause in found:
            continue
        entry = known.get(cause)
        if entry is None:
            missing.add(cause)
            continue
        found[cause] = entry
        pending.append(entry.meta.causation_id)
    return list(found.values()), frozenset(missing)
