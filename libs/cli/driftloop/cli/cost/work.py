"""What models cost: processor time and rows by the log, bytes by the stores."""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from driftloop.cli.context import Installation
from driftloop.cli.datasets.work import size_of
from driftloop.cli.log import Entry, LogTimeoutError, entry_of
from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.data.reading import DatasetError, size_bytes
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.errors import Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

LOG_TIMEOUT_S = 600.0
COUNTED = (
    e.ModelTrained,
    e.TrainingFailed,
    e.TrainingCancelled,
    e.ModelRegistered,
    e.DatasetVersioned,
    e.BatchScored,
    e.RequestsAnswered,
    s.DatasetScored,
    s.ScoringFailed,
)
TOPICS = tuple(event.topic() for event in COUNTED)


@dataclass
class Version:
    """What one version of a model has cost.

    Attributes
    ----------
    training_cpu_seconds : of the training that made it, with all tries.
    scoring_cpu_seconds : of jobs that scored whole datasets with it.
    stream_rows : that arrived and were scored, in service or in a rollout.
    asked_rows : that callers asked for at the scorers' doors.
    job_rows : of whole datasets.
    package_bytes : of its package; None: it is not in the store (any more).
    """

    version: int
    training_cpu_seconds: float = 0
    scoring_cpu_seconds: float = 0
    stream_rows: int = 0
    asked_rows: int = 0
    job_rows: int = 0
    package_bytes: int | None = None


@dataclass
class Cost:
    """What a pipeline has cost.

    Attributes
    ----------
    failed_count, failed_cpu_seconds : trainings without a model, and scoring jobs
        without answers.
    cancelled_count : trainings that people ended; the log does not say what they took.
    unregistered_cpu_seconds : of trained models that the registry has not seen yet.
    rows_from : of the oldest answer that was counted; the log keeps them seven days.
    dataset_bytes : of the newest dataset version's files; None: they cannot be read.
    answers_bytes : of the tables of scoring jobs that are still there.
    """

    pipeline: str
    versions: list[Version] = field(default_factory=list)
    failed_count: int = 0
    failed_cpu_seconds: float = 0
    cancelled_count: int = 0
    unregistered_cpu_seconds: float = 0
    rows_from: datetime | None = None
    dataset_rows: int = 0
    dataset_bytes: int | None = None
    answers_bytes: int = 0

    @property
    def cpu_seconds(self) -> float:
        own = (v.training_cpu_seconds + v.scoring_cpu_seconds for v in self.versions)
        return sum(own) + self.failed_cpu_seconds + self.unregistered_cpu_seconds

    def as_json(self) -> dict[str, Any]:
        """Return it for programs; seconds and bytes."""
        return asdict(self) | {"cpu_seconds": self.cpu_seconds}


@dataclass
class _Seen:
    """What the log tells of one pipeline, before it is put together."""

    versions: dict[int, Version] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    registered: dict[str, e.ModelRegistered] = field(default_factory=dict)
    dataset: e.DatasetVersioned | None = None
    answers: list[s.DatasetScored] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    cancelled_count: int = 0
    rows_from: datetime | None = None

    def of(self, version: int) -> Version:
        return self.versions.setdefault(version, Version(version))


class Tally:
    """Adds up events of all pipelines; topics may come in any order, events twice.

    Parameters
    ----------
    since : what happened before is not counted; None: everything is.
    """

    def __init__(self, since: datetime | None = None) -> None:
        self._since = since
        self._ids: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def take(self, entry: Entry) -> None:
        """Count one event, unless it was counted before."""
        if entry.meta.id in self._ids:
            return
        self._ids.add(entry.meta.id)
        event, time = entry.event, entry.meta.time
        seen = self._seen.setdefault(event.pipeline, _Seen())
        if isinstance(event, e.ModelRegistered):
            seen.of(event.version)
            seen.registered[event.job_id] = event
        elif isinstance(event, e.DatasetVersioned):
            last = seen.dataset
            if last is None or _number(event) > _number(last):
                seen.dataset = event
        else:
            if isinstance(event, s.DatasetScored):
                seen.answers.append(event)
            if self._since is None or time >= self._since:
                _count(seen, entry)

    def costs(self) -> list[tuple[Cost, _Seen]]:
        """Return what was counted, by pipeline's name, without bytes."""
        return [(_cost(name, seen), seen) for name, seen in sorted(self._seen.items())]


def _number(event: e.DatasetVersioned) -> tuple[int, int]:
    labels = event.dataset.labels
    return event.dataset.observations.version, labels.version if labels else -1


def _count(seen: _Seen, entry: Entry) -> None:
    event = entry.event
    if isinstance(event, e.ModelTrained):
        seen.trained[event.job_id] = event.cpu_seconds
    elif isinstance(event, e.TrainingFailed | s.ScoringFailed):
        seen.failed.append(event.cpu_seconds)
    elif isinstance(event, e.TrainingCancelled):
        seen.cancelled_count += 1
    elif isinstance(event, s.DatasetScored):
        one = seen.of(event.version)
        one.scoring_cpu_seconds += event.cpu_seconds
        one.job_rows += event.row_count
    elif isinstance(event, e.BatchScored):
        for version in {event.champion_version, event.candidate_version}:
            if version is not None:
                seen.of(version).stream_rows += event.row_count
        _note_rows(seen, entry.meta.time)
    elif isinstance(event, e.RequestsAnswered):
        seen.of(event.version).asked_rows += event.asked_count
        _note_rows(seen, entry.meta.time)


def _note_rows(seen: _Seen, time: datetime) -> None:
    seen.rows_from = min(seen.rows_from or time, time)


def _cost(pipeline: str, seen: _Seen) -> Cost:
    unregistered = 0.0
    for job_id, cpu_seconds in seen.trained.items():
        registered = seen.registered.get(job_id)
        if registered is None:
            unregistered += cpu_seconds
        else:
            seen.of(registered.version).training_cpu_seconds = cpu_seconds
    return Cost(
        pipeline,
        versions=[seen.versions[number] for number in sorted(seen.versions)],
        failed_count=len(seen.failed),
        failed_cpu_seconds=sum(seen.failed),
        cancelled_count=seen.cancelled_count,
        unregistered_cpu_seconds=unregistered,
        rows_from=seen.rows_from,
        dataset_rows=seen.dataset.observation_count if seen.dataset else 0,
    )


def read_costs(
    installation: Installation, pipeline: str | None, since: datetime | None
) -> list[Cost]:
    """Return what pipelines have cost: the log is read once, sizes are asked for.

    Raises
    ------
    LogTimeoutError
        When the broker does not deliver the log in time.
    """
    store = installation.store
    tally = Tally(since)

    def take(message: Message) -> None:
        entry = entry_of(message, store)
        if entry is not None and pipeline in (None, entry.event.pipeline):
            tally.take(entry)  # rows are counted and not kept

    config = installation.settings.kafka_config
    follower = LogFollower(installation.bootstrap, TOPICS, take, config)
    if not follower.read_to_end(LOG_TIMEOUT_S):
        raise LogTimeoutError(
            f"the broker at {installation.bootstrap} did not answer within "
            f"{LOG_TIMEOUT_S:g} s; is the stack up? (driftloop status)"
        )
    return [_with_bytes(installation, *one) for one in tally.costs()]


def _with_bytes(installation: Installation, cost: Cost, seen: _Seen) -> Cost:
    options = storage_options(installation.settings)
    if seen.dataset is not None:
        cost.dataset_bytes = size_of(seen.dataset.dataset, options)
    cost.answers_bytes = sum(_answers_bytes(seen.answers, options))
    for event in seen.registered.values():
        found = package_bytes(event.package, installation.store)
        seen.versions[event.version].package_bytes = found
    return cost


def _answers_bytes(
    scored: Iterable[s.DatasetScored], options: dict[str, str] | None
) -> Iterable[int]:
    for one in scored:
        try:
            yield size_bytes(one.answers, options)
        except DatasetError:
            continue  # removed, as nobody is promised it any more: driftloop gc


def package_bytes(package: e.PackageRef, store: ArtifactStore) -> int | None:
    """Return the bytes of a package's envelope and files; None: it is not there.

    The envelope is the one that the digest names; its signature does not matter here.
    """
    try:
        envelope = store.get(package.uri, package.uri.rpartition("/")[2])
        manifest = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
        files = {one["sha256"]: one["size_bytes"] for one in manifest["files"].values()}
    except (Retry, ValueError, KeyError):
        return None
    return len(envelope) + int(sum(files.values()))
