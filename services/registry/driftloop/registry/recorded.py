"""Verdicts that the log holds already: a rebuilt registry repeats them.

A gate's verdict depends on the pipeline file of its day and on a measured latency.
A registry with an empty database therefore first reads what it once said, so that
reading the log anew gives the same versions with the same verdicts. What became of a
version is said once: read anew, the last fact about it may be another one, and the
event would have another id, by which a deployer would take it for news.
"""

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ApprovalRequested,
    ErasureCompleted,
    GateCheck,
    ModelApproved,
    ModelRegistered,
    ModelRejected,
    SettlementRequested,
)
from driftloop.registry.core import rule_in
from driftloop.registry.ledger import ApprovalRule
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

TOPICS = (
    ModelRegistered.topic(),
    ModelApproved.topic(),
    ModelRejected.topic(),
    ApprovalRequested.topic(),
    SettlementRequested.topic(),
    ErasureCompleted.topic(),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was once said about a job's model."""

    version: int
    gate: list[GateCheck]
    rule: ApprovalRule | None


class RecordedVerdicts:
    """What the topics of verdicts held at the start."""

    def __init__(self) -> None:
        self.complete = threading.Event()
        self._registered: dict[tuple[str, str], ModelRegistered] = {}
        self._rules: dict[tuple[str, int], ApprovalRule] = {}
        self._newest: dict[str, int] = {}
        self._asked: dict[str, set[int]] = {}
        self._completed: dict[str, ErasureCompleted] = {}
        self._outcomes: set[tuple[Hashable, ...]] = set()

    def add(self, event: Event) -> None:
        """Take one event of the topics."""
        if isinstance(event, ModelRegistered):
            name = event.pipeline
            self._registered.setdefault((name, event.job_id), event)
            self._newest[name] = max(self.newest(name), event.version)
        elif isinstance(event, ApprovalRequested):
            rule = rule_in(event)
            if event.request == 1:  # later ones are in the log themselves
                self._rules[event.pipeline, event.version] = rule
        elif isinstance(event, ModelApproved | ModelRejected):
            self._outcomes.add(_outcome(event))
        elif isinstance(event, SettlementRequested):
            self._asked.setdefault(event.erasure_id, set()).update(event.versions)
        elif isinstance(event, ErasureCompleted):
            self._completed.setdefault(event.erasure_id, event)

    def newest(self, pipeline: str) -> int:
        """Return the highest version that the log knew; 0: none."""
        return self._newest.get(pipeline, 0)

    def of_job(self, pipeline: str, job_id: str) -> Verdict | None:
        """Return what was said about a job; None: nothing yet.

        Raises
        ------
        Retry
            While the log is still being read.
        """
        self._wait()
        event = self._registered.get((pipeline, job_id))
        if event is None:
            return None
        rule = self._rules.get((pipeline, event.version))
        return Verdict(event.version, event.gate, rule)

    def job_of(self, pipeline: str, version: int) -> ModelRegistered | None:
        """Return how a version was registered; None: the log did not say.

        Raises
        ------
        Retry
            While the log is still being read.
        """
        self._wait()
        known = self._registered.values()
        wanted = (e for e in known if (e.pipeline, e.version) == (pipeline, version))
        return next(wanted, None)

    def has_told(self, event: Event) -> bool:
        """Whether the log says already that a version was approved, or rejected so.

        Raises
        ------
        Retry
            While the log is still being read.
        """
        if not isinstance(event, ModelApproved | ModelRejected):
            return False
        self._wait()
        return _outcome(event) in self._outcomes

    def asked_erasure(self, erasure_id: str) -> frozenset[int]:
        """Return the versions that people were asked about."""
        self._wait()
        return frozenset(self._asked.get(erasure_id, ()))

    def completed_erasure(self, erasure_id: str) -> ErasureCompleted | None:
        """Return an erasure's proof; None: there is none yet."""
        self._wait()
        return self._completed.get(erasure_id)

    def _wait(self) -> None:
        if not self.complete.is_set():
            raise Retry("reading the verdicts that the log holds")


def _outcome(event: ModelApproved | ModelRejected) -> tuple[Hashable, ...]:
    """Return what an event says: a version is approved once, and may expire twice."""
    if isinstance(event, ModelApproved):
        return (event.pipeline, event.version)
    return (event.pipeline, event.version, event.rejected_by, *event.reasons)


def read_recorded(
    recorded: RecordedVerdicts,
    bootstrap: str,
    config: Mapping[str, str],
    store: ArtifactStore,
    stopping: threading.Event,
) -> None:
    """Fill ``recorded`` from the broker; block until that is done."""

    def take(message: Message) -> None:
        try:
            recorded.add(decode(message, store))
        except (Reject, Retry):
            return  # not an event of ours; nothing was said by it

    follower = LogFollower(bootstrap, TOPICS, take, config)
    if follower.read_to_end(is_stopping=stopping.is_set):
        recorded.complete.set()
