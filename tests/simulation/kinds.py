"""The services as the simulation runs them: real handlers, tables, loops and cores.

Only two computations are stood in for: what a training finds, which is drawn from the
seed, and how long a model takes to answer, which is a constant. The package that comes
of a training is a real one, signed, and read back as the services do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driftloop.contracts.events import (
    Evaluation,
    ModelTrained,
    PairedComparison,
    ServingDesired,
)
from driftloop.deployer import handlers as deployer
from driftloop.deployer.app import SERVICE as DEPLOYER
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import PackageRefused, read_package
from driftloop.models.samples import samples_json
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.registry import handlers as registry
from driftloop.registry.app import SERVICE as REGISTRY
from driftloop.registry.audit import Anchoring
from driftloop.registry.core import SignedFacts, disagreement
from driftloop.registry.deadlines import TOPICS as APPROVAL_TOPICS
from driftloop.registry.deadlines import Deadlines
from driftloop.registry.gate import Cost, PackageFinding
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.recorded import TOPICS as VERDICT_TOPICS
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.runtime.database import Outbox
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject
from driftloop.runtime.handlers import Deps, handler_table
from driftloop.runtime.service import Runtime
from driftloop.runtime.transport import Message
from driftloop.trainer import handlers as trainer
from driftloop.trainer.app import SERVICE as TRAINER
from driftloop.trainer.child import ChildJob
from driftloop.trainer.jobs import JobLoop
from driftloop.trainer.request import JobRequest
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.tables import TrainerJob
from driftloop.trainer.worker import Answer, Crashed
from sqlmodel import Session, select

from tests.simulation.clock import CLOCK
from tests.simulation.databases import DISKS
from tests.simulation.instance import TRACER, Instance, Kind
from tests.unit.scorer import packages

Loops = dict[str, Callable[[], bool]]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIGNER = Signer(KEY)
TRUSTED = TrustedKeys([KEY.public_key()])


# ── trainer ─────────────────────────────────────────────────────────────────


def fate_of(seed: int, job_id: str) -> str:
    """Return how a job's training goes, the same for each of its tries."""
    dice = Random(f"{seed}/{job_id}")
    fates = ["good"] * 10 + ["worse_live"] * 3 + ["cannot_be_served"] * 2
    return dice.choice([*fates, "below_gate", "refused", "crashes", "crashes_once"])


@cache
def _model_files() -> dict[str, bytes]:
    said = Predictions(np.array([11.0, 2.0]))
    return {
        "model.onnx": packages.onnx_bytes(0.0),
        "samples.json": samples_json(packages.SAMPLES, packages.INPUTS, said),
    }


def evaluation(fate: str) -> Evaluation:
    better = fate != "below_gate"
    mean = -40.0 if better else 1.0
    return Evaluation(
        metric="mae",
        holdout_span=packages.MONTH,
        holdout_row_count=400,
        candidate=40.0 if better else 139.0,
        baseline=140.0,
        comparison=PairedComparison(
            mean_difference=mean, standard_error=3.0, row_count=400
        ),
    )


class DrawnTraining:
    """Trains in no time; a :class:`trainer.remote.choice.JobWorker`."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.is_ready = True
        self.cpu_seconds = 1.0

    def warm(self) -> None: ...

    def close(self) -> None: ...

    def forget(self, folder: Path) -> None: ...

    def run(
        self,
        job: ChildJob,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> Answer:
        request = JobRequest.model_validate_json(job.request)
        fate = fate_of(self._instance.world.seed, request.job_id)
        progress({"step": "fit", "done_ratio": 0.5, "detail": ""})
        self._instance.fuse.step("in mid-training")
        if fate == "refused":
            return Answer("refused", {"error": "no candidate could be fitted"})
        tries = self._instance.world.tries
        tries[request.job_id] = tries.get(request.job_id, 0) + 1
        if fate == "crashes" or (fate == "crashes_once" and tries[request.job_id] == 1):
            raise Crashed("out of memory")
        folder = job.folder / "package"
        folder.mkdir(parents=True, exist_ok=True)
        files = _model_files()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        manifest = packages.manifest(
            request.spec.name, packages.INPUTS, is_binary=False
        ).model_copy(update={"job_id": request.job_id, "evaluation": evaluation(fate)})
        fields = {
            "files": list(files),
            "manifest": manifest.model_dump(mode="json"),
            "tried": [],
        }
        return Answer("trained", fields)


@cache
def _trainer_settings() -> TrainerSettings:
    return TrainerSettings(home=DISKS.folder)


def _trainer(instance: Instance) -> tuple[Deps, Loops]:
    settings = _trainer_settings().model_copy(update={"replica": instance.replica})
    pipelines = instance.views["pipeline-applied"]
    runtime: Any = Runtime(
        settings, instance.engine, instance.world.store, instance.outbox,
        instance.publisher, TRACER, pipelines, {}, instance.session,
        instance.stopping, instance.recorded,
    )  # fmt: skip
    loop = JobLoop(runtime, SIGNER, wake := threading.Event())
    loop._worker = DrawnTraining(instance)
    taken: list[TrainerJob] = []

    def train() -> bool:
        """Take a job, or work on the one that was taken: a freeze may lie between."""
        if taken:
            loop._work_on(taken.pop())
            return True
        job = loop._leases.take()
        if job is None:
            wake.clear()
            return False
        taken.append(job)
        instance.fuse.step("after a job was taken")
        return True

    deps = trainer.Deps(
        session=instance.session,
        pipelines=pipelines,
        wake=wake,
        recheck=loop.recheck,
        recorded=instance.recorded,
    )
    return deps, {"train": train}


# ── registry ────────────────────────────────────────────────────────────────


def _inspect(instance: Instance) -> Callable[[ModelTrained], PackageFinding]:
    """Return the registry's inspection, without the trial in a child process."""

    def inspect(event: ModelTrained) -> PackageFinding:
        try:
            package = read_package(event.package, instance.world.store, TRUSTED)
        except PackageRefused as error:
            return PackageFinding(problem=str(error))
        found = package.manifest
        signed = SignedFacts(found.pipeline, found.job_id, found.evaluation)
        problem = disagreement(event, signed)
        return PackageFinding(problem) if problem else PackageFinding(
            cost=Cost(0.5, 1.0, 3.0, 5.0)
        )  # fmt: skip

    return inspect


def _recorded(instance: Instance) -> RecordedVerdicts:
    recorded, world = RecordedVerdicts(), instance.world
    for topic in VERDICT_TOPICS:
        for partition in range(world.partitions[topic]):
            for message in world.broker.log(topic, partition):
                try:
                    recorded.add(decode(message, world.store))
                except Reject:
                    continue
    recorded.complete.set()
    return recorded


def _registry(instance: Instance) -> tuple[Deps, Loops]:
    world = instance.world

    def ends() -> dict[tuple[str, int], int]:
        places = [
            (topic, partition)
            for topic in APPROVAL_TOPICS
            for partition in range(world.partitions[topic])
        ]
        return {place: end for place in places if (end := world.broker.end(place))}

    def now() -> Any:
        return CLOCK.datetime(UTC)

    deadlines = Deadlines(instance.engine, instance.outbox, ends, now)
    anchoring = Anchoring(instance.engine, instance.outbox)

    def anchor() -> bool:
        before = anchoring._anchored
        anchoring.anchor()
        return anchoring._anchored != before

    deps = registry.Deps(
        instance.session,
        instance.views["pipeline-applied"],
        _inspect(instance),
        _recorded(instance),
        world.store,
        Reporter("simulation", "127.0.0.1:9092"),
        lambda _: False,
        now,
    )
    return deps, {"deadlines": lambda: bool(deadlines.look()), "anchor": anchor}


# ── deployer ────────────────────────────────────────────────────────────────


def _deployer(instance: Instance) -> tuple[Deps, Loops]:
    deps = deployer.DeployerDeps(
        session=instance.session,
        pipelines=instance.views["pipeline-applied"],
        desired=instance.views["serving-desired"],
        recorded=instance.recorded,
    )
    return deps, {}


KINDS = {
    "trainer": Kind(
        "trainer", handler_table(trainer.HANDLERS), TRAINER.tables, _trainer,
        recorded=TRAINER.recorded,
    ),
    "registry": Kind(
        "registry", handler_table(registry.HANDLERS), REGISTRY.tables, _registry
    ),
    "deployer": Kind(
        "deployer", handler_table(deployer.HANDLERS), DEPLOYER.tables, _deployer,
        (ServingDesired,), DEPLOYER.recorded,
    ),
}  # fmt: skip


def unsent(instance: Instance, records: Mapping[str, Sequence[Message]]) -> int:
    """Return how many events a service has stored that are not in the log.

    One that is published stays in the table until the next transaction.
    """
    logged = {
        value
        for messages in records.values()
        for message in messages
        for name, value in message.headers
        if name in {"ce_id", "dead-letter-id"}
    }
    with Session(instance.engine) as session:
        rows = session.exec(select(Outbox.event_id)).all()
    return sum(event_id.encode() not in logged for event_id in rows)
