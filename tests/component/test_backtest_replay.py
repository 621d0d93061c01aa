"""Decisions of a live trainer, made again from the log by another process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from driftloop.cli.backtest.replay import TOPICS_OF_TRAINER, replay_view, replayed
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.log import read_log
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    ModelDeployed,
    ModelTrained,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.envelope import encode
from driftloop.runtime.settings import Settings, load_settings
from rich.console import Console

from tests.component.test_trainer import drift
from tests.component.trainer_process import Trainer, rows, spec_of

NAME = "replayed"

pytestmark = [pytest.mark.timeout(600), pytest.mark.broker]


class Timed(Trainer):
    """Publishes with the time that it is, as services do."""

    def publish(self, event: Event, event_id: str | None = None) -> str:
        event_id = event_id or f"event-{next(self._numbers)}"
        meta = Meta(event_id, datetime.now(UTC), "/test", Chain(event_id))
        self._publisher.publish([encode(event, meta, self.store)])
        return event_id


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timed]:
    place = tmp_path_factory.mktemp("replayed")
    with KafkaNode(place / "kafka") as node:
        (place / "home").mkdir()
        it = Timed(place / "home", node.bootstrap, {})
        try:
            it.start()
            _live(it)
            yield it
        finally:
            it.close()


def _live(trainer: Timed) -> None:
    """Let it train twice, skip in the cooldown, and skip a fault."""
    trainer.apply(spec_of(NAME, "linear"))
    trainer.publish(trainer.append(NAME, rows(600), 600))
    [first] = trainer.wait_for(ModelTrained, NAME)
    trainer.publish(drift(NAME, "sensor_fault", 599, advised=False))
    trainer.wait_for(TrainingSkipped, NAME)
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r", version=1, package=first.package, generation=1
    )
    trainer.publish(deployed)
    trainer.publish(drift(NAME, "concept_drift", 599, advised=True))  # cooldown
    trainer.wait_for(TrainingSkipped, NAME, 2)
    trainer.publish(trainer.append(NAME, rows(600, 600, slope=-3.0), 1200))
    trainer.publish(drift(NAME, "concept_drift", 1199, advised=True))
    trainer.wait_for(ModelTrained, NAME, 2)


@pytest.fixture
def installation(trainer: Timed) -> Installation:
    settings = load_settings(Settings, "cli", home=trainer.home)
    return Installation(trainer.home, trainer.broker, "", "", settings)


def _policy(folder: Path, text: str) -> str:
    path = folder / "other.yaml"
    path.write_text(text)
    return str(path)


def _of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(p for p in answer["policies"] if p["name"] == name)
    return found


def test_the_policy_that_ran_decides_the_same_again(
    trainer: Timed, installation: Installation, tmp_path: Path
) -> None:
    """Every decision, word for word; another policy is the control."""
    patient = _policy(tmp_path, "retrain: {cooldown_days: 365}")
    answer = replayed(installation, NAME, [patient])
    started = len(trainer.all(TrainingStarted, NAME))
    skipped = len(trainer.all(TrainingSkipped, NAME))
    assert len(answer["recorded"]) == started + skipped >= 4
    own = _of(answer, "pipeline")
    assert own["differences"] == []
    assert own["equal"] == started + skipped
    other = _of(answer, "other")
    assert other["trainings"] == 1 < started
    # Which of version and verdict was taken first is not ours to say; that the second
    # training would not have been made is the same in both orders.
    was = [d["recorded"] for d in other["differences"]]
    would = [d["replayed"] for d in other["differences"]]
    assert "started" in {decision["outcome"] for decision in was if decision}
    assert {d["outcome"] for d in would if d} <= {"cooldown"}
    page = StringIO()
    Console(file=page, width=100).print(replay_view(answer))
    assert "decides the same again" in page.getvalue()


def test_a_record_that_was_changed_is_noticed(
    trainer: Timed, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*asked: Any) -> list[Any]:
        found = read_log(trainer.broker, TOPICS_OF_TRAINER, trainer.store)
        return [
            replace(entry, event=entry.event.model_copy(update={"reason": "budget"})
                    .with_meta(entry.meta))
            if isinstance(entry.event, TrainingSkipped) else entry
            for entry in found
        ]  # fmt: skip

    monkeypatch.setattr("driftloop.cli.backtest.replay.read_log", changed)
    own = _of(replayed(installation, NAME, []), "pipeline")
    assert {d["recorded"]["outcome"] for d in own["differences"]} == {"budget"}


def test_a_pipeline_that_is_not_in_the_log_is_named(
    installation: Installation,
) -> None:
    with pytest.raises(CommandError, match="no pipeline 'nobody'"):
        replayed(installation, "nobody", [])
