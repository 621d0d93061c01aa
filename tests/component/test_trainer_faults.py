"""Rows of a fault on a real broker: learned by no training, whoever is killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from driftloop.cli.packages.work import reproduce
from driftloop.contracts.describe import describe
from driftloop.contracts.events import (
    DriftDetected,
    DriftEnded,
    Evidence,
    ModelTrained,
    RetrainRequested,
    TrainingSkipped,
    TrainingStarted,
    VerdictOverruled,
)
from driftloop.local.kafka import KafkaNode
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import Package, read_package
from driftloop.models.signing import TrustedKeys

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
COUNT, FIRST, LAST = 600, 200, 300
BROKEN = "north"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    place = tmp_path_factory.mktemp("trainer")
    with (
        KafkaNode(place / "kafka") as node,
        running(place / "home", node.bootstrap) as it,
    ):
        yield it


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def broken_rows() -> pa.Table:
    """Hourly rows of two sources by turns; one of them gives nonsense for a while."""
    table, hours = rows(COUNT), np.arange(COUNT)
    sources = np.array([BROKEN, "south"])[hours % 2]
    is_bad = (hours >= FIRST) & (hours <= LAST) & (sources == BROKEN)
    a = np.where(is_bad, 50.0, table["a"].to_numpy())
    place = table.schema.get_field_index
    table = table.set_column(place("source"), "source", pa.array(sources))
    return table.set_column(place("a"), "a", pa.array(a))


def fault(name: str) -> DriftDetected:
    return DriftDetected.model_validate(
        {
            "pipeline": name,
            "cause": "sensor_fault",
            "retrain_advised": False,
            "since": at(FIRST),
            "detected_at": at(FIRST + 24),
            "features": ["a"],
            "evidence": [
                Evidence(signal="feature:a", detector="KS", statistic=1, row_count=50)
            ],
            "explanation": "as the test says",
            "sources": {BROKEN: 1.0},
            "faulty": "rows",
        }
    )


def over(name: str) -> DriftEnded:
    return DriftEnded(
        pipeline=name, cause="sensor_fault", features=["a"], since=at(FIRST),
        until=at(LAST), detected_at=at(FIRST + 24),
    )  # fmt: skip


def wish(name: str) -> RetrainRequested:
    return RetrainRequested(pipeline=name, requested_by="ada", reason="to see")


def package_of(trainer: Trainer, trained: ModelTrained) -> Package:
    trusted = TrustedKeys.from_folder(trainer.home / "keys" / "trusted")
    return read_package(trained.package, trainer.store, trusted)


def slope(package: Package) -> float:
    """How much the served model's answer grows with ``a``; the truth is 3."""
    asked = pa.table({"kind": ["big", "big"], "a": [-1.0, 1.0]})
    low, high = OnnxModel.from_package(package).predict(asked).prediction
    return float(high - low) / 2


def wait_until_known(trainer: Trainer, name: str, word: str) -> None:
    """Wait until the trainer's database has what it was told.

    Topics have no common order, so what is asked next must not come before.
    """
    [path] = (trainer.home / "databases").glob("trainer-*.db")

    def is_known() -> bool:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            query = "SELECT faults FROM trainer_pipeline WHERE name = ?"
            found = database.execute(query, (name,)).fetchone()
        return found is not None and found[0] is not None and word in found[0]

    wait_until(is_known, WAIT_S)


def test_rows_of_a_broken_source_are_not_learned_until_a_person_says_otherwise(
    trainer: Trainer,
) -> None:
    name = "broken-source"
    trainer.apply(spec_of(name, "linear"))
    verdict = trainer.publish(fault(name))
    trainer.wait_for(TrainingSkipped, name)
    trainer.publish(over(name))
    wait_until_known(trainer, name, at(LAST).isoformat()[:16])
    trainer.publish(trainer.append(name, broken_rows(), COUNT))
    [first] = trainer.wait_for(ModelTrained, name)
    [left_out] = first.left_out
    count = sum(hour % 2 == 0 for hour in range(FIRST, LAST + 1))
    assert (left_out.verdict_id, left_out.sources) == (verdict, [BROKEN])
    assert (left_out.start, left_out.end) == (at(FIRST), at(LAST))
    assert left_out.row_count == count == 51
    assert f"left out: 51 rows of {BROKEN} from 2011-01-09 08:00" in describe(first)
    package = package_of(trainer, first)
    manifest = package.manifest
    learned = manifest.train_row_count + manifest.evaluation.holdout_row_count
    assert learned == COUNT - count
    assert manifest.left_out == first.left_out
    assert slope(package) == pytest.approx(3.0, abs=0.05)
    again = reproduce(package, trainer.home, lambda _: None)
    assert again.reasons == []
    assert again.found == first.package.digest

    # Killed and read anew it knows the same; the next training leaves them out too.
    trainer.kill()
    trainer.start()
    trainer.publish(wish(name))
    second = trainer.wait_for(ModelTrained, name, 2)[-1]
    assert second.left_out == first.left_out

    # Negative control: a person says that it was no fault, and the rows come back.
    trainer.publish(
        VerdictOverruled(
            pipeline=name, verdict_id=verdict, verdict_cause="sensor_fault",
            cause="seasonality", overruled_by="ada", reason="I was there",
            since=at(FIRST), detected_at=at(FIRST + 24),
        )
    )  # fmt: skip
    wait_until_known(trainer, name, "seasonality")
    trainer.publish(wish(name))
    third = trainer.wait_for(ModelTrained, name, 3)[-1]
    assert third.left_out == []
    package = package_of(trainer, third)
    manifest = package.manifest
    learned = manifest.train_row_count + manifest.evaluation.holdout_row_count
    assert learned == COUNT
    assert abs(slope(package) - 3.0) > 1  # it has learned the nonsense
    assert len(trainer.all(TrainingStarted, name)) == 3


def test_a_trainer_killed_with_the_verdict_in_hand_leaves_the_rows_out_once(
    trainer: Trainer,
) -> None:
    """Killed before it can have taken what it is told; nothing is lost or doubled."""
    name = "killed-source"
    trainer.apply(spec_of(name, "linear"))
    trainer.publish(wish(name))
    trainer.wait_for(TrainingSkipped, name)
    trainer.kill()
    verdict = trainer.publish(fault(name))
    trainer.publish(fault(name), verdict)  # delivered twice
    trainer.publish(over(name))
    trainer.start()
    trainer.kill()
    trainer.start()
    trainer.wait_for(TrainingSkipped, name, 2)
    wait_until_known(trainer, name, at(LAST).isoformat()[:16])
    trainer.kill()
    trainer.publish(trainer.append(name, broken_rows(), COUNT))
    trainer.start()
    [started] = trainer.wait_for(TrainingStarted, name)
    trainer.kill()
    trainer.start()
    [trained] = trainer.wait_for(ModelTrained, name)
    assert [each.row_count for each in trained.left_out] == [51]
    assert [each.verdict_id for each in started.left_out] == [verdict]
    assert len(trainer.all(TrainingSkipped, name)) == 2
    assert len(trainer.all(TrainingStarted, name)) == 1
