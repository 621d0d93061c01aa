"""Upstream and downstream of anything, computed from one pipeline's facts.

Edges go from what something came of to what it went into:

    batch → validated → dataset → training → model → deployment

A dataset version holds what came before it, so a version that a training read has an
edge from every earlier one; seen from that training, only from those whose rows lie in
the event time that it may read. A verdict about a model leads to a training, a request
of a person does too, and an approval leads to deployments.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Kind = Literal[
    "batch", "validated", "dataset", "training", "model", "deployment", "drift",
    "approval", "request",
]  # fmt: skip
Direction = Literal["upstream", "downstream", "both"]
MAX_NODES = 50_000
"""Of one answer, all its pages together."""


@dataclass(frozen=True, slots=True)
class Node:
    """Something that can be asked about; ``id`` is ``kind/pipeline/key``."""

    kind: Kind
    pipeline: str
    key: str
    at: datetime | None = None
    title: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.pipeline}/{self.key}"


@dataclass(frozen=True, slots=True)
class DatasetFact:
    """A dataset version, what it added, and where that came from."""

    event_id: str
    kind: str
    observations: int
    labels: int
    batch_id: str
    validated_id: str
    at: datetime
    source: str | None
    added_count: int
    quarantined_count: int
    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        return f"{self.observations}.{self.labels}"


@dataclass(frozen=True, slots=True)
class TrainingFact:
    """A training; without versions as long as only its failure is known."""

    job_id: str
    state: str
    at: datetime
    trigger_type: str
    trigger_id: str
    trigger_reason: str
    requested_by: str | None
    observations: int | None
    labels: int | None
    start: datetime | None
    end: datetime | None
    detail: str = ""

    @property
    def dataset_key(self) -> str | None:
        if self.observations is None:
            return None
        return f"{self.observations}.{self.labels or 0}"


@dataclass(frozen=True, slots=True)
class ModelFact:
    """A registered version."""

    version: int
    job_id: str
    event_id: str
    at: datetime
    state: str
    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True)
class ApprovalFact:
    """A person's decision about a version."""

    event_id: str
    version: int
    at: datetime
    decision: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeploymentFact:
    """A version went into service or out of it."""

    event_id: str
    version: int
    at: datetime
    kind: str
    restored: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class DriftFact:
    """A verdict of the monitor."""

    event_id: str
    at: datetime
    cause: str
    retrain_advised: bool
    explanation: str
    model_version: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one pipeline."""

    pipeline: str
    datasets: list[DatasetFact] = field(default_factory=list)
    trainings: list[TrainingFact] = field(default_factory=list)
    models: list[ModelFact] = field(default_factory=list)
    approvals: list[ApprovalFact] = field(default_factory=list)
    deployments: list[DeploymentFact] = field(default_factory=list)
    drifts: list[DriftFact] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edge:
    """``source`` went into ``target``; both are ids of nodes."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True)
class Found:
    """A node on the way, how far it is, and the edges that led to it.

    Attributes
    ----------
    is_upstream : which way it was found; of the thing itself None.
    """

    node: Node
    depth: int
    is_upstream: bool | None
    edges: tuple[Edge, ...] = ()


Window = tuple[datetime, datetime] | None
Step = tuple[Node, str, Window]
"""A neighbour, how they are related, and the event time that matters beyond it."""


class Graph:
    """The nodes of one pipeline and their neighbours."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._datasets = {d.key: d for d in facts.datasets}
        self._by_event = {d.event_id: d for d in facts.datasets}
        self._by_batch = {d.batch_id: d for d in facts.datasets}
        self._by_validated = {d.validated_id: d for d in facts.datasets}
        self._trainings = {t.job_id: t for t in facts.trainings}
        self._models = {m.version: m for m in facts.models}
        self._drifts = {d.event_id: d for d in facts.drifts}
        self._read = sorted(
            {t.dataset_key for t in facts.trainings if t.dataset_key} - {None},
            key=_version,
        )

    def find(self, kind: str, key: str) -> Node | None:
        """Return a node by kind and key, or by the id of its event; None: unknown."""
        finders: dict[str, Callable[[str], Node | None]] = {
            "batch": lambda k: _made(self._batch, self._by_batch.get(k)),
            "validated": lambda k: _made(self._validated, self._by_validated.get(k)),
            "dataset": lambda k: _made(
                self._dataset, self._datasets.get(k) or self._by_event.get(k)
            ),
            "training": lambda k: _made(self._training, self._trainings.get(k)),
            "model": self._find_model,
            "deployment": lambda k: next(
                (n for n in map(self._deployment, self._facts.deployments)
                 if n.key == k), None,
            ),
            "drift": lambda k: _made(self._drift, self._drifts.get(k)),
            "approval": lambda k: next(
                (n for n in map(self._approval, self._facts.approvals) if n.key == k),
                None,
            ),
            "request": lambda k: next(
                (n for t in self._facts.trainings
                 if t.trigger_id == k and (n := self._request(t))), None,
            ),
        }  # fmt: skip
        return finders[kind](key) if kind in finders else None

    def _find_model(self, key: str) -> Node | None:
        number = key.removeprefix("v")
        if number.isascii() and number.isdigit():
            return _made(self._model, self._models.get(int(number)))
        wanted = (m for m in self._facts.models if key in (m.job_id, m.event_id))
        return _made(self._model, next(wanted, None))

    # ── nodes ───────────────────────────────────────────────────────────────

    def _node(
        self, kind: Kind, key: str, at: Any, title: str, /, **detail: Any
    ) -> Node:
        return Node(kind, self._facts.pipeline, key, at, title, detail)

    def _batch(self, fact: DatasetFact) -> Node:
        count = fact.added_count + fact.quarantined_count
        title = f"{count:,} {fact.kind} of {fact.source or 'an unnamed source'}"
        return self._node(
            "batch", fact.batch_id, fact.at, title, kind=fact.kind, source=fact.source,
            row_count=count, start=fact.start, end=fact.end,
        )  # fmt: skip

    def _validated(self, fact: DatasetFact) -> Node:
        title = f"{fact.added_count:,} kept, {fact.quarantined_count:,} quarantined"
        return self._node(
            "validated", fact.validated_id, fact.at, title, kind=fact.kind,
            row_count=fact.added_count, quarantined_count=fact.quarantined_count,
        )  # fmt: skip

    def _dataset(self, fact: DatasetFact) -> Node:
        title = f"{fact.added_count:,} {fact.kind} added, {fact.start:%Y-%m-%d}"
        return self._node(
            "dataset", fact.key, fact.at, title, kind=fact.kind, event_id=fact.event_id,
            added_count=fact.added_count, start=fact.start, end=fact.end,
        )  # fmt: skip

    def _training(self, fact: TrainingFact) -> Node:
        title = f"{fact.state}, because of {fact.trigger_reason.replace('_', ' ')}"
        return self._node(
            "training", fact.job_id, fact.at, title, state=fact.state,
            reason=fact.trigger_reason, start=fact.start, end=fact.end,
            detail=fact.detail,
        )  # fmt: skip

    def _model(self, fact: ModelFact) -> Node:
        title = f"{fact.algorithm.replace('_', ' ')}, {fact.state.replace('_', ' ')}"
        return self._node(
            "model", str(fact.version), fact.at, title, state=fact.state,
            algorithm=fact.algorithm, package_digest=fact.digest,
        )  # fmt: skip

    def _deployment(self, fact: DeploymentFact) -> Node:
        title = f"v{fact.version} {fact.kind.replace('_', ' ')}"
        return self._node(
            "deployment", fact.event_id, fact.at, title, kind=fact.kind,
            restored=fact.restored, reason=fact.reason,
        )  # fmt: skip

    def _approval(self, fact: ApprovalFact) -> Node:
        return self._node(
            "approval", fact.event_id, fact.at, f"{fact.decision} by {fact.by}",
            decision=fact.decision, by=fact.by, reason=fact.reason,
        )  # fmt: skip

    def _drift(self, fact: DriftFact) -> Node:
        return self._node(
            "drift", fact.event_id, fact.at, fact.cause.replace("_", " "),
            cause=fact.cause, retrain_advised=fact.retrain_advised,
            explanation=fact.explanation,
        )  # fmt: skip

    def _request(self, fact: TrainingFact) -> Node | None:
        if not _is(fact.trigger_type, "retrain-requested"):
            return None
        title = f"{fact.trigger_reason} ({fact.requested_by or 'nobody named'})"
        return self._node(
            "request", fact.trigger_id, fact.at, title,
            requested_by=fact.requested_by, reason=fact.trigger_reason,
        )  # fmt: skip

    # ── neighbours ──────────────────────────────────────────────────────────

    def upstream(self, node: Node, window: Window) -> Iterator[Step]:
        """Return what a node came of."""
        facts = self._facts
        match node.kind:
            case "validated":
                yield self._batch(self._by_validated[node.key]), "checked", None
            case "dataset":
                yield from self._within(node.key, window)
            case "training":
                yield from self._sources(self._trainings[node.key])
            case "model":
                job = self._models[int(node.key)].job_id
                if job in self._trainings:
                    yield self._training(self._trainings[job]), "made", None
            case "deployment":
                fact = next(d for d in facts.deployments if d.event_id == node.key)
                yield from self._version(fact.version, fact.kind)
                for given in facts.approvals:
                    if given.version == fact.version and given.decision == "approve":
                        yield self._approval(given), "allowed", None
            case "approval":
                said = next(a for a in facts.approvals if a.event_id == node.key)
                yield from self._version(said.version, "is about")
            case "drift":
                version = self._drifts[node.key].model_version
                yield from self._version(version, "was seen on")
            case _:
                return

    def downstream(self, node: Node, window: Window) -> Iterator[Step]:
        """Return what a node went into."""
        del window
        match node.kind:
            case "batch":
                yield self._validated(self._by_batch[node.key]), "checked", None
            case "validated":
                yield self._dataset(self._by_validated[node.key]), "added", None
            case "dataset":
                yield from self._readers(node.key)
            case "training":
                for model in self._facts.models:
                    if model.job_id == node.key:
                        yield self._model(model), "made", None
            case "model":
                yield from self._uses(int(node.key))
            case "drift" | "request":
                for training in self._facts.trainings:
                    if training.trigger_id == node.key:
                        yield self._training(training), "triggered", None
            case "approval":
                yield from self._allowed(node.key)
            case _:
                return

    def _allowed(self, event_id: str) -> Iterator[Step]:
        said = next(a for a in self._facts.approvals if a.event_id == event_id)
        for change in self._facts.deployments:
            if change.version == said.version and said.decision == "approve":
                yield self._deployment(change), "allowed", None

    def _version(self, version: int | None, relation: str) -> Iterator[Step]:
        if version in self._models:
            yield self._model(self._models[version]), relation, None

    def _within(self, key: str, window: Window) -> Iterator[Step]:
        own = self._datasets.get(key)
        if own is not None:
            yield self._validated(own), "added", None
        if key not in self._read:
            return
        for fact in self._facts.datasets:
            if fact.key != key and _is_within(fact, key) and _matters(fact, window):
                yield self._dataset(fact), "is part of", None

    def _readers(self, key: str) -> Iterator[Step]:
        fact = self._datasets[key]
        for training in self._facts.trainings:
            read = training.dataset_key
            if read == key:
                yield self._training(training), "was read by", None
            elif training.trigger_id == fact.event_id:
                yield self._training(training), "triggered", None
        for read in self._read:
            if read != key and read in self._datasets and _is_within(fact, read):
                yield self._dataset(self._datasets[read]), "is part of", None

    def _sources(self, fact: TrainingFact) -> Iterator[Step]:
        window = (fact.start, fact.end) if fact.start and fact.end else None
        dataset = self._datasets.get(fact.dataset_key or "")
        if dataset is not None:
            yield self._dataset(dataset), "was read by", window
        if fact.trigger_id in self._drifts:
            yield self._drift(self._drifts[fact.trigger_id]), "triggered", None
        trigger = self._by_event.get(fact.trigger_id)
        if trigger is not None and trigger is not dataset:
            yield self._dataset(trigger), "triggered", None
        request = self._request(fact)
        if request is not None:
            yield request, "triggered", None

    def _uses(self, version: int) -> Iterator[Step]:
        for given in self._facts.approvals:
            if given.version == version:
                yield self._approval(given), "is about", None
        for change in self._facts.deployments:
            if change.version == version:
                yield self._deployment(change), change.kind, None
        for drift in self._facts.drifts:
            if drift.model_version == version:
                yield self._drift(drift), "was seen on", None


def walk(
    graph: Graph, start: Node, direction: Direction, max_depth: int
) -> Iterator[Found]:
    """Return the thing itself, then what is near, then what is farther.

    Each node comes once, with the edges that lead to it from those before it.
    """
    yield Found(start, 0, None)
    if direction in ("upstream", "both"):
        yield from _walk(graph.upstream, start, max_depth, is_upstream=True)
    if direction in ("downstream", "both"):
        yield from _walk(graph.downstream, start, max_depth, is_upstream=False)


def _walk(
    neighbours: Callable[[Node, Window], Iterable[Step]],
    start: Node,
    max_depth: int,
    *,
    is_upstream: bool,
) -> Iterator[Found]:
    seen = {start.id}
    level: list[tuple[Node, Window]] = [(start, None)]
    for depth in range(1, max_depth + 1):
        nodes: dict[str, tuple[Node, Window]] = {}
        edges: dict[str, list[Edge]] = {}
        for node, window in level:
            for other, relation, narrower in neighbours(node, window):
                ends = (other.id, node.id) if is_upstream else (node.id, other.id)
                if other.id not in seen:
                    nodes.setdefault(other.id, (other, narrower))
                    edges.setdefault(other.id, []).append(Edge(*ends, relation))
        seen |= nodes.keys()
        level = sorted(nodes.values(), key=lambda pair: _order(pair[0]))
        for node, _ in level:
            yield Found(node, depth, is_upstream, tuple(edges[node.id]))


def _order(node: Node) -> tuple[str, float, str]:
    return node.kind, -(node.at.timestamp() if node.at else 0), node.key


def _made(make: Callable[[Any], Node], fact: Any) -> Node | None:
    return None if fact is None else make(fact)


def _version(key: str) -> tuple[int, int]:
    observations, _, labels = key.partition(".")
    return int(observations), int(labels)


def _is_within(fact: DatasetFact, key: str) -> bool:
    """Whether a version holds what another one added."""
    observations, labels = _version(key)
    return fact.observations <= observations and fact.labels <= labels


def _matters(fact: DatasetFact, window: Window) -> bool:
    """Whether rows of an event time are among those read; labels come later."""
    if window is None:
        return True
    start, end = window
    return fact.end >= start and (fact.kind == "labels" or fact.start <= end)


def _is(event_type: str, topic: str) -> bool:
    """Whether a trigger's type is of a topic, also as CloudEvents spells it."""
    return topic in event_type
