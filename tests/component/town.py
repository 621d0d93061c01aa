"""A pipeline in an installation of deployer and scorers, and those who ask it.

The rest of the loop (registry, validator, monitor) is played by the test.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, Self, TypeVar

import httpx
import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchValidated,
    Measurement,
    ModelApproved,
    ModelDeployed,
    PackageRef,
    PairedComparison,
    PerformanceMeasured,
    PipelineApplied,
    Role,
    RolloutAdvanced,
    ScorerReported,
    ServingDesired,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.scorer.door import VERSION_HEADER

from tests.component.support import TOKEN, Events, ServiceProcess, wait_until
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

E = TypeVar("E", bound=Event)
ROWS = 24
PAUSE_S = 0.03
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Town:
    """A broker, the two services, and the rest of the loop played by the test."""

    name: str
    all_events: Events
    factory: Factory
    deployer: ServiceProcess
    scorer: ServiceProcess
    batches: int = 0
    measurements: int = 0
    deliveries: int = 1

    def of(self, kind: type[E]) -> list[E]:
        """Events of this pipeline."""
        return [e for e in self.all_events.of(kind) if e.pipeline == self.name]

    def once(self, kind: type[E]) -> list[E]:
        """Events of this pipeline as a consumer with an inbox handles them.

        After a crash an event may be on the topic again, with the same id; then it
        must say the same.
        """
        by_id: dict[str, E] = {}
        for event in self.of(kind):
            first = by_id.setdefault(event.meta.id, event)
            assert first.model_dump_json() == event.model_dump_json()
        return list(by_id.values())

    def publish(self, event: Event, stem: str, times: int = 1) -> None:
        self.all_events.publish(event, f"{self.name}-{stem}", times)

    def package(self, plus: float = 0.0, **fields: Any) -> PackageRef:
        return self.factory.package(plus, pipeline=self.name, **fields)

    def apply(self, task: str = "regression", **rollout: Any) -> None:
        spec = PipelineSpec.model_validate(
            {
                "name": self.name,
                "task": task,
                "owner": "ada",
                "data": {"target": "cnt"},
                "rollout": {"shadow_rows": 48, "step_rows": 48, "watch_rows": 48}
                | rollout,
            }
        )
        applied = PipelineApplied(pipeline=self.name, spec=spec, applied_by="ada")
        self.publish(applied, f"applied-{rollout}")

    def approve(self, version: int, package: PackageRef) -> None:
        approved = ModelApproved(
            pipeline=self.name, version=version, package=package, approved_by=["gate"]
        )
        self.publish(approved, f"approved-{version}", self.deliveries)

    def validate(self, *sizes: float, count: int = 1) -> None:
        """Publish validated batches of one day each; ``sizes`` repeat over rows."""
        sizes = sizes or (1.0,)
        for _ in range(count):
            number, self.batches = self.batches, self.batches + 1
            start = packages.START + timedelta(days=number)
            rows = pa.RecordBatch.from_arrays(
                [
                    pa.array([f"{number}-{row}" for row in range(ROWS)]),
                    pa.array(
                        [start + timedelta(hours=row) for row in range(ROWS)],
                        pa.timestamp("us", "UTC"),
                    ),
                    pa.array(["upstream"] * ROWS),
                    pa.array((sizes * ROWS)[:ROWS], pa.float64()),
                    pa.array(["red"] * ROWS),
                ],
                names=["id", "event_time", "source", "size", "colour"],
            )
            event = BatchValidated(
                pipeline=self.name, shard="upstream", row_count=ROWS,
                span=Span(start=start, end=start + timedelta(hours=23)),
                watermark=start + timedelta(hours=23),
            )  # fmt: skip
            self.publish(event.with_rows(rows), f"batch-{number}", self.deliveries)

    def measure(self, candidate: int, champion: int, ratio: float) -> None:
        """Publish what a monitor says of a day on which both versions predicted."""
        pair = PairedComparison(
            mean_difference=10.0 * (ratio - 1), standard_error=1.0, row_count=ROWS
        )
        self.compare({champion: 10.0, candidate: 10.0 * ratio}, pair)

    def compare(self, losses: dict[int, float], pair: PairedComparison) -> None:
        """Publish a monitor's comparison; ``losses`` are champion's, candidate's."""
        number, self.measurements = self.measurements, self.measurements + 1
        roles: tuple[Role, ...] = ("champion", "candidate")
        event = PerformanceMeasured(
            pipeline=self.name,
            span=packages.MONTH,
            row_count=pair.row_count,
            measurements=[
                Measurement(version=version, role=role, metric="mae", value=loss)
                for role, (version, loss) in zip(roles, losses.items(), strict=True)
            ],
            comparison=pair,
        )
        self.publish(event, f"measured-{number}", self.deliveries)

    def desired(self) -> tuple[int | None, int | None, float]:
        last = self.of(ServingDesired)[-1]
        return (
            last.champion.version if last.champion else None,
            last.candidate.version if last.candidate else None,
            last.candidate_share,
        )

    def has_reported(self) -> bool:
        """Whether a scorer has settled on what is wanted last."""
        wanted = self.of(ServingDesired)[-1]
        models = {m.version for m in (wanted.champion, wanted.candidate) if m}
        return any(
            report.generation == wanted.generation
            and models <= {said.version for said in report.versions}
            for report in self.of(ScorerReported)
        )

    def wait_for(self, *desired: Any) -> None:
        wait_until(
            lambda: self.of(ServingDesired) and self.desired() == desired,
            f"{desired} is not what scorers should serve",
        )
        wait_until(self.has_reported, "no scorer reported that")

    def first_version(self) -> None:
        self.apply()
        self.approve(1, self.package(1.0))
        wait_until(lambda: self.of(ModelDeployed), "no first version")

    def wait_for_verdict(self, version: int, step: str, verdict: str) -> None:
        """What else was decided with it is told on other topics, sooner or later."""
        wait_until(
            lambda: (step, verdict) in self.steps(version),
            f"{step} of version {version} has not {verdict}",
        )

    def steps(self, version: int) -> list[tuple[str, str]]:
        return [
            (e.step, e.verdict)
            for e in self.of(RolloutAdvanced)
            if e.version == version
        ]


class Replica(Protocol):
    """Whoever answers at an address."""

    @property
    def url(self) -> str: ...


class Clients:
    """Ask all the time, over connections that stay open, behind a load balancer.

    A replica that is known to be down, or that refuses the connection, is passed over
    for the next one. Whatever else is not a whole answer with status 200 has failed.

    Attributes
    ----------
    versions : which version answered, in the order of the answers.
    failed : what was wrong, by request.
    """

    def __init__(
        self,
        pipeline: str,
        replicas: Sequence[Replica],
        connections: int = 1,
        size: float = 1.0,
    ) -> None:
        self._size = size
        self._path = f"/v2/models/{pipeline}/infer"
        self._replicas = replicas
        self._down: set[Replica] = set()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[number])
            for number in range(connections)
        ]
        self.versions: list[str] = []
        self.failed: list[str] = []

    @contextmanager
    def without(self, replica: Replica) -> Iterator[None]:
        """Meanwhile the replica is killed and started: nobody is sent there."""
        self._down.add(replica)
        try:
            yield
        finally:
            self._down.discard(replica)

    def _run(self, number: int) -> None:
        turns = itertools.count(number)
        with httpx.Client(headers=HEADERS, timeout=100) as client:
            while not self._stopping.wait(PAUSE_S):
                self._ask(client, next(turns))

    def _ask(self, client: httpx.Client, turn: int) -> None:
        columns = {"size": ("FP64", self._size), "colour": ("BYTES", "red")}
        body = {
            "inputs": [
                {"name": name, "shape": [1], "datatype": kind, "data": [value]}
                for name, (kind, value) in columns.items()
            ]
        }
        refused = "no replica took the connection"
        for step in range(len(self._replicas)):
            replica = self._replicas[(turn + step) % len(self._replicas)]
            if replica in self._down:
                continue
            try:
                response = client.post(replica.url + self._path, json=body)
            except httpx.ConnectError as error:
                refused = f"{replica.url}: {error!r}"
                continue
            except httpx.TransportError as error:
                if replica in self._down:  # killed with the request in hand
                    continue
                self.failed.append(f"{replica.url}: cut off: {error!r}")
                return
            if response.status_code != httpx.codes.OK:
                self.failed.append(f"{response.status_code}: {response.text:.300}")
            else:
                self.versions.append(response.headers[VERSION_HEADER])
            return
        self.failed.append(refused)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
