"""Trainings on a real Ray cluster, which shares no folder with the trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from driftloop.contracts.events import (
    ModelTrained,
    TrainingCancelled,
    TrainingCancelRequested,
    TrainingProgressed,
    TrainingStarted,
)
from driftloop.local.kafka import KafkaNode
from driftloop.models.package import read_package, write_package
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.trainer import package_files, training
from driftloop.trainer.remote.desk import ROOM
from driftloop.trainer.request import JobRequest

from tests.component.ray_cluster import RayCluster
from tests.component.trainer_process import WAIT_S, Trainer, rows, running, spec_of
from tests.servers import S3Server
from tests.unit.support import wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("ray") is None, reason="make setup-ray"),
]
LEASE_S = 9
"""A node that is switched off is missed after so long."""
NODE, CHILD = "driftloop.trainer.remote.node", "driftloop.trainer.child"
SLOW = "adaptive_forest, linear"
TORCH_ROWS = 20_000


@dataclass
class Place:
    trainer: Trainer
    ray: RayCluster
    s3: S3Server
    bucket: str

    def left_in_store(self) -> list[str]:
        found = self.s3.client().list_objects(
            self.bucket, prefix=f"artifacts/{ROOM}/", recursive=True
        )
        return [str(one.object_name) for one in found]


@pytest.fixture(scope="module")
def place(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("remote")
    keys = {
        "DRIFTLOOP_S3_ACCESS_KEY": s3.access_key,
        "DRIFTLOOP_S3_SECRET_KEY": s3.secret_key,
    }
    bucket = s3.new_bucket()
    cluster = RayCluster(2, keys)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(cluster.start)
        with KafkaNode(home / "kafka") as node:
            try:
                settings = {
                    **keys,
                    "DRIFTLOOP_ARTIFACTS_URL": str(bucket.artifacts_url),
                    "DRIFTLOOP_DATASETS_URL": str(bucket.datasets_url),
                    "DRIFTLOOP_S3_ENDPOINT_URL": s3.url,
                    "DRIFTLOOP_TRAINER_RUNS_ON": "ray",
                    "DRIFTLOOP_TRAINER_RAY_ADDRESS": cluster.address,
                    "DRIFTLOOP_TRAINER_RAY_TOKEN": cluster.token,
                    "DRIFTLOOP_TRAINER_RAY_PYTHON": sys.executable,
                    "DRIFTLOOP_TRAINER_JOB_MEMORY_GIB": "1",
                    "DRIFTLOOP_TRAINER_LEASE_SECONDS": str(LEASE_S),
                }
                name = str(bucket.artifacts_url).split("/")[2]
                with running(home / "home", node.bootstrap, **settings) as trainer:
                    starting.result()
                    yield Place(trainer, cluster, s3, name)
            finally:
                starting.exception()
                cluster.stop()


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_node_that_is_switched_off_costs_no_more_than_a_checkpoint(
    place: Place, tmp_path: Path
) -> None:
    """The other node goes on inside the fit, and comes to the same bytes."""
    name, trainer = "node-off", place.trainer
    trainer.apply(spec_of(name, "mlp"))
    trainer.publish(trainer.append(name, rows(TORCH_ROWS), TORCH_ROWS))
    wait_until(lambda: ".checkpoint" in _saved(place, name), WAIT_S)
    [node] = set(place.ray.processes(NODE).values())
    place.ray.kill(node)
    [trained] = trainer.wait_for(ModelTrained, name)
    resumed = [x.resumed_from for x in trainer.all(TrainingProgressed, name)]
    assert any(resumed)  # a step above 0
    assert len(trainer.all(ModelTrained, name)) == 1
    assert len(trainer.all(TrainingStarted, name)) == 1
    assert trained.package.digest == _trained_here(trainer, trained, tmp_path)
    wait_until(lambda: not place.left_in_store())


@pytest.mark.slow
def test_a_trainer_that_is_killed_goes_on_with_what_its_node_had_saved(
    place: Place,
) -> None:
    """The node that it left behind ends by itself, or is ended; one version comes."""
    name, trainer = "trainer-off", place.trainer
    trainer.apply(spec_of(name, "gradient_boosting, adaptive_forest"))
    trainer.publish(trainer.append(name, rows(1500), 1500))
    wait_until(lambda: "try0-gradient_boosting.onnx" in _saved(place, name), WAIT_S)
    left = place.ray.processes(NODE)
    assert left
    trainer.kill()
    trainer.start()
    trainer.wait_for(ModelTrained, name)
    assert not left.keys() & place.ray.processes(NODE).keys()
    assert len(trainer.all(ModelTrained, name)) == 1
    assert len(trainer.all(TrainingStarted, name)) == 1
    wait_until(lambda: not place.left_in_store())


@pytest.mark.slow
def test_a_job_that_is_cancelled_is_ended_on_its_node(place: Place) -> None:
    name, trainer = "cancelled-there", place.trainer
    trainer.apply(spec_of(name, SLOW))
    trainer.publish(trainer.append(name, rows(3000), 3000))
    [waiting, *_] = trainer.wait_for(TrainingProgressed, name)
    assert waiting.step == "waiting"
    wait_until(lambda: len(trainer.all(TrainingProgressed, name)) > 1, WAIT_S)
    assert place.ray.processes(CHILD)
    wish = TrainingCancelRequested(
        pipeline=name, job_id=waiting.job_id, requested_by="ada", reason="a typo"
    )
    trainer.publish(wish)
    trainer.wait_for(TrainingCancelled, name)
    wait_until(lambda: not place.ray.processes(NODE))
    wait_until(lambda: not place.left_in_store())
    assert not trainer.all(ModelTrained, name)


def _saved(place: Place, pipeline: str) -> str:
    """Return what a job's newest report says: among it, the files that are kept."""
    jobs = [one.job_id for one in place.trainer.all(TrainingStarted, pipeline)]
    reports = [
        one
        for one in place.left_in_store()
        if one.endswith("/report") and any(f"/{job}/" in one for job in jobs)
    ]
    if not reports:
        return ""
    answer = place.s3.client().get_object(place.bucket, max(reports))
    try:
        return answer.read().decode()
    finally:
        answer.close()
        answer.release_conn()


def _trained_here(trainer: Trainer, trained: ModelTrained, folder: Path) -> str:
    """Return the digest of the package when its request is run in this process."""
    trusted = TrustedKeys.from_folder(trainer.home / "keys" / "trusted")
    manifest = read_package(trained.package, trainer.store, trusted).manifest
    assert manifest.request is not None
    request = JobRequest.model_validate_json(manifest.request)
    using = training.Environment(
        trainer.store, trusted, trainer.storage_options, machine=1, folder=folder
    )
    again = training.train(request, using, lambda *_: None)
    signer = Signer.from_file(trainer.home / "keys" / "trainer.pem")
    files = package_files.files_of(again)
    made = package_files.manifest_of(again)
    return write_package(made, files, signer, trainer.store).digest
