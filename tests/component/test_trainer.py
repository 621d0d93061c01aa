"""The trainer on a real broker: one answer a trigger, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from driftloop.contracts.events import (
    AlertRaised,
    DriftDetected,
    Evidence,
    ModelDeployed,
    ModelTrained,
    TrainingFailed,
    TrainingProgressed,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import identity
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import read_package, write_package
from driftloop.models.samples import check_samples
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.trainer import package_files, training
from driftloop.trainer.request import JobRequest

from tests.component.trainer_process import START, Trainer, rows, running, spec_of
from tests.unit.support import wait_until

pytestmark = pytest.mark.timeout(600)
"""A process that trains loads its libraries first: seconds, on a busy machine many."""
SLOW = "adaptive_forest, linear"
"""Takes seconds, so that there is a middle to be killed in."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    place = tmp_path_factory.mktemp("trainer")
    with (
        KafkaNode(place / "kafka") as node,
        running(place / "home", node.bootstrap) as it,
    ):
        yield it


def drift(name: str, cause: str, hours: int, *, advised: bool) -> DriftDetected:
    at = START + timedelta(hours=hours)
    return DriftDetected.model_validate(
        {
            "pipeline": name,
            "model_version": 1,
            "cause": cause,
            "retrain_advised": advised,
            "since": at,
            "detected_at": at,
            "evidence": [
                Evidence(signal="error", detector="KS", statistic=1, row_count=100)
            ],
            "explanation": "as the test says",
        }
    )


def test_a_model_comes_from_data_and_a_second_one_is_compared_with_it(
    trainer: Trainer,
) -> None:
    name = "compared"
    trainer.apply(spec_of(name, "gradient_boosting, linear"))
    cause = trainer.publish(trainer.append(name, rows(600), 600))
    [first] = trainer.wait_for(ModelTrained, name)
    assert first.trigger.reason == "first_model"
    assert first.trigger.event_id == first.meta.causation_id == cause
    assert first.meta.chain.id == f"chain-of-{cause}"
    assert first.algorithm == "linear"  # the truth is a straight line
    assert first.evaluation.champion is None
    assert first.evaluation.candidate < 0.1 * first.evaluation.baseline
    trusted = TrustedKeys.from_folder(trainer.home / "keys" / "trusted")
    package = read_package(first.package, trainer.store, trusted)
    model = OnnxModel.from_package(package)
    check_samples(model, package.manifest.inputs, package.files["samples.json"])

    trainer.publish(
        ModelDeployed(pipeline=name, rollout_id="r", version=1, package=first.package)
    )
    changed = rows(600, 600, slope=-3.0)
    trainer.publish(trainer.append(name, changed, 1200))
    verdict = drift(name, "concept_drift", 1199, advised=True)
    trigger = trainer.publish(verdict)
    trainer.publish(verdict, trigger)  # delivered twice
    _, second = trainer.wait_for(ModelTrained, name, 2)
    assert second.trigger.reason == "concept_drift"
    assert second.evaluation.champion_version == 1
    assert second.evaluation.champion is not None
    assert second.evaluation.comparison.row_count == second.evaluation.holdout_row_count
    assert len(trainer.wait_for(TrainingStarted, name, 2)) == 2
    steps = [p.done_ratio for p in trainer.all(TrainingProgressed, name)]
    assert steps[0] == 0.0


def test_a_sensor_fault_starts_no_training(trainer: Trainer) -> None:
    name = "faulty"
    trainer.apply(spec_of(name, "linear"))
    trigger = trainer.publish(drift(name, "sensor_fault", 100, advised=False))
    [skipped] = trainer.wait_for(TrainingSkipped, name)
    assert skipped.reason == "cause_not_cured_by_training"
    assert skipped.trigger.event_id == trigger
    assert not trainer.all(TrainingStarted, name)


def test_a_killed_child_is_replaced_and_its_job_done_once(trainer: Trainer) -> None:
    name = "child-killed"
    trainer.apply(spec_of(name, SLOW))
    trainer.publish(trainer.append(name, rows(1200), 1200))
    trainer.wait_for(TrainingProgressed, name)
    [child] = trainer.child_pids()
    os.kill(child, signal.SIGKILL)
    trainer.wait_for(ModelTrained, name)
    assert trainer.child_pids() != [child]
    assert len(trainer.all(ModelTrained, name)) == 1
    assert len(trainer.all(TrainingStarted, name)) == 1


def test_a_killed_service_finishes_the_job_once_with_the_same_package(
    trainer: Trainer, tmp_path: Path
) -> None:
    name = "service-killed"
    trainer.apply(spec_of(name, SLOW))
    trainer.publish(trainer.append(name, rows(1200), 1200))
    trainer.wait_for(TrainingProgressed, name)
    [child] = trainer.child_pids()
    trainer.kill()
    wait_until(lambda: identity(child) is None)
    assert not trainer.all(ModelTrained, name)
    trainer.start()
    [trained] = trainer.wait_for(ModelTrained, name)

    # Restarted after the end it says nothing twice.
    trainer.kill()
    trainer.start()
    trainer.publish(drift(name, "sensor_fault", 100, advised=False))
    trainer.wait_for(TrainingSkipped, name)
    assert len(trainer.all(ModelTrained, name)) == 1
    assert len(trainer.all(TrainingStarted, name)) == 1
    assert trained.package.digest == _trained_here(trainer, trained.job_id, tmp_path)


def _trained_here(trainer: Trainer, job_id: str, folder: Path) -> str:
    """Return the digest of the package when the job's request is run undisturbed."""
    copy = folder / "copy.db"
    shutil.copy(trainer.home / "databases" / "trainer-0.db", copy)
    shutil.copy(f"{trainer.home}/databases/trainer-0.db-wal", f"{copy}-wal")
    database = sqlite3.connect(copy)
    query = "select request from trainer_job where id = ?"
    [[stored]] = database.execute(query, [job_id])
    database.close()
    request = JobRequest.model_validate_json(stored)
    using = training.Environment(
        trainer.store, TrustedKeys([]), None, threads=1, folder=folder
    )
    trained = training.train(request, using, lambda *_: None)
    manifest = package_files.manifest_of(trained)
    signer = Signer.from_file(trainer.home / "keys" / "trainer.pem")
    files = package_files.files_of(trained)
    return write_package(manifest, files, signer, trainer.store).digest


def test_a_job_that_cannot_give_a_model_fails_with_an_alert(trainer: Trainer) -> None:
    name = "hopeless"
    trainer.apply(spec_of(name, "linear", holdout_ratio=0.01))
    trainer.publish(trainer.append(name, rows(500), 500))
    [failed] = trainer.wait_for(TrainingFailed, name)
    assert "the hold-out has 5 labelled rows" in failed.error
    assert failed.attempts == 1
    assert len(trainer.wait_for(AlertRaised, name)) == 1
