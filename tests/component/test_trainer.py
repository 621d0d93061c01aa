"""The trainer on a real broker: one answer a trigger, whatever is killed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from driftloop.cli.packages.work import reproduce
from driftloop.contracts.events import (
    AlertRaised,
    DriftDetected,
    Evidence,
    ModelDeployed,
    ModelTrained,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingCancelRequested,
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

from tests.component.trainer_process import (
    START,
    WAIT_S,
    Trainer,
    rows,
    running,
    spec_of,
)
from tests.unit.support import wait_until

pytestmark = pytest.mark.timeout(600)
"""A process that trains loads its libraries first: seconds, on a busy machine many."""
TORCH_ROWS = 30_000
"""Some seconds of an mlp's epochs: a checkpoint comes every two."""
CHAOS_ROWS, CHAOS_KILLS = 500_000, 12
"""A minute of it; ``make chaos``."""
STORM = 1_000
HAS_TORCH = find_spec("torch") is not None
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


def test_a_package_is_made_again_from_itself_and_its_rows_alone(
    trainer: Trainer, tmp_path: Path
) -> None:
    """And one changed value in the table's file is noticed."""
    name = "made-again"
    trainer.apply(spec_of(name, "linear"))
    trainer.publish(trainer.append(name, rows(450), 450))
    [trained] = trainer.wait_for(ModelTrained, name)
    trusted = TrustedKeys.from_folder(trainer.home / "keys" / "trusted")
    package = read_package(trained.package, trainer.store, trusted)
    again = reproduce(package, trainer.home, lambda _: None, tmp_path / "kept")
    assert again.reasons == []
    assert again.found == trained.package.digest
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    kept.pop("model.json")
    assert kept == package.files

    _change_one_row(trainer.home / "datasets" / name / "observations")
    other = reproduce(package, trainer.home, lambda _: None)
    assert not other.is_same
    assert "(450 rows): what " in other.reasons[0]
    assert len(trainer.all(ModelTrained, name)) == 1
    assert not list(trainer.home.glob("reproduce-*"))


def _change_one_row(table: Path) -> None:
    """Write another target into the table's only file, as no client of it would."""
    [file] = table.glob("*.parquet")
    found = pq.read_table(file)
    y = found["y"].to_pylist()
    y[7] += 1
    place = found.schema.get_field_index("y")
    pq.write_table(found.set_column(place, found.schema.field(place), [y]), file)
    log = table / "_delta_log" / f"{0:020}.json"
    said = re.sub(r'"size":\d+', f'"size":{file.stat().st_size}', log.read_text())
    log.write_text(said)


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


def _killed_at_random(trainer: Trainer, name: str, count: int, kills: int) -> str:
    """Kill child and service in turn at random moments; return the job's id.

    Each kill waits for a checkpoint of this try, so that the job gets further.
    """
    seed = random.SystemRandom().randrange(10**6)
    sys.stdout.write(f"{name}: seed {seed}\n")
    draw = random.Random(seed)
    trainer.apply(spec_of(name, "mlp"))
    trainer.publish(trainer.append(name, rows(count), count))
    [started] = trainer.wait_for(TrainingStarted, name)
    for number in range(kills):
        known = trainer.checkpointed_ns(started.job_id)
        wait_until(lambda: trainer.checkpointed_ns(started.job_id) > known, WAIT_S)  # noqa: B023
        further = _iterations(trainer, name) + draw.randrange(3)
        wait_until(lambda: _iterations(trainer, name) >= further, WAIT_S)  # noqa: B023
        if number % 2:
            trainer.kill()
            trainer.start()
        else:
            [child] = trainer.child_pids()
            os.kill(child, signal.SIGKILL)
    return started.job_id


def _iterations(trainer: Trainer, name: str) -> int:
    """Count the reports of fits so far: about one a second."""
    return sum(
        event.iteration is not None for event in trainer.all(TrainingProgressed, name)
    )


@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_a_torch_fit_goes_on_inside_whoever_is_killed(trainer: Trainer) -> None:
    name = "torch-killed"
    _killed_at_random(trainer, name, TORCH_ROWS, 2)
    trainer.wait_for(ModelTrained, name)
    resumed = [x.resumed_from for x in trainer.all(TrainingProgressed, name)]
    assert any(resumed)  # a step above 0
    assert len(trainer.all(ModelTrained, name)) == 1
    assert len(trainer.all(TrainingStarted, name)) == 1


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("DRIFTLOOP_CHAOS" not in os.environ, reason="make chaos")
def test_a_minute_of_torch_survives_a_dozen_kills_with_the_same_digest(
    trainer: Trainer, tmp_path: Path
) -> None:
    name = "torch-chaos"
    job_id = _killed_at_random(trainer, name, CHAOS_ROWS, CHAOS_KILLS)
    [trained] = trainer.wait_for(ModelTrained, name, wait_s=1200)
    steps = {x.resumed_from for x in trainer.all(TrainingProgressed, name)}
    sys.stdout.write(f"resumed from {sorted(filter(None, steps))}\n")
    assert len(steps - {None}) >= CHAOS_KILLS / 2
    assert len(trainer.all(ModelTrained, name)) == 1
    assert trained.package.digest == _trained_here(trainer, job_id, tmp_path)


def test_a_storm_of_drifts_is_one_job_and_at_most_one_follow_up(
    trainer: Trainer,
) -> None:
    name = "storm"
    trainer.apply(spec_of(name, "linear"))
    trainer.publish(trainer.append(name, rows(450), 450))
    trainer.wait_for(ModelTrained, name)
    # Too few more rows for another first model: only the storm can start a job.
    trainer.publish(trainer.append(name, rows(440, 450), 890))
    storm = [
        drift(name, "concept_drift", 850 + number % 80, advised=True)
        for number in range(STORM)
    ]
    ids = trainer.publish_all(storm)

    def answers() -> list[TrainingStarted | TrainingSkipped]:
        said = [
            *trainer.all(TrainingStarted, name),
            *trainer.all(TrainingSkipped, name),
        ]
        return [event for event in said if event.trigger.event_id in set(ids)]

    wait_until(lambda: len({x.trigger.event_id for x in answers()}) == STORM, WAIT_S)
    # Verdicts that came before the rows wait for them; topics have no common order.
    trainer.wait_for(ModelTrained, name, 2)
    started = [x for x in answers() if isinstance(x, TrainingStarted)]
    assert 1 <= len(started) <= 2
    jobs = {event.job_id for event in trainer.all(TrainingStarted, name)}
    for event in answers():
        if isinstance(event, TrainingSkipped):
            assert event.covered_by_job in jobs


def test_a_job_is_cancelled_while_it_runs(trainer: Trainer) -> None:
    name = "cancelled"
    trainer.apply(spec_of(name, SLOW))
    trainer.publish(trainer.append(name, rows(3000), 3000))
    [progress, *_] = trainer.wait_for(TrainingProgressed, name)
    [child] = trainer.child_pids()
    wish = TrainingCancelRequested(
        pipeline=name, job_id=progress.job_id, requested_by="ada", reason="a typo"
    )
    trainer.publish(wish)
    [cancelled] = trainer.wait_for(TrainingCancelled, name)
    assert (cancelled.cancelled_by, cancelled.reason) == ("ada", "a typo")
    wait_until(lambda: not Path(f"/proc/{child}").exists())  # no zombie either
    wait_until(lambda: not (trainer.home / "trainer" / progress.job_id).exists())
    trainer.publish(wish)
    [refused] = trainer.wait_for(TrainingCancelRefused, name)
    assert refused.reason == "already_ended"
    assert not trainer.all(ModelTrained, name)


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
    using = training.Environment(trainer.store, TrustedKeys([]), None, 1, folder)
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
