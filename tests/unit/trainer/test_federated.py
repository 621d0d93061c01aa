"""Rounds of sites: which updates count, what they give, and how a round ends."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    FederatedRoundClosed,
    FederatedRoundOpened,
    FederatedUpdateSubmitted,
    FederationRequested,
    PipelineApplied,
    TrainingCancelRequested,
    TrainingStarted,
)
from driftloop.contracts.federated import FederationRules
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Skip
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.service import Runtime
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from driftloop.trainer import handlers
from driftloop.trainer.federated import core
from driftloop.trainer.federated.clock import SETTLE_S, RoundClock
from driftloop.trainer.federated.tables import Federation, kept_count
from driftloop.trainer.handlers import Deps
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.tables import TABLES, last_job, pipeline_row
from opentelemetry.sdk.trace import TracerProvider
from sqlmodel import Session

from tests.unit.runtime.bench import RecordingPublisher
from tests.unit.trainer.cases import NAME, data, drift, meta, spec, versioned

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ROUND = core.Round(2, (1.0, 1.0), NOW, NOW + timedelta(hours=1))
UPDATE = core.Update("a", 2, NOW + timedelta(minutes=5), 10, (0.5, -0.5))


def rules(**changes: Any) -> FederationRules:
    fields = {"rounds": 2, "site_count": 3, "min_sites": 2} | changes
    return FederationRules.model_validate(fields)


def of_site(name: str, count: int, *values: float) -> core.Update:
    return replace(UPDATE, site=name, row_count=count, values=values)


# ── the core ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "sites", "reason"),
    [
        ({}, set(), None),
        ({"sent_at": ROUND.deadline}, set(), None),
        ({"sent_at": ROUND.deadline + timedelta(seconds=1)}, set(), "late"),
        ({}, {"a"}, "double"),
        ({"number": 3}, set(), "unknown_round"),
        ({"values": (0.5,)}, set(), "wrong_shape"),
        ({"values": (0.5, math.nan)}, set(), "not_finite"),
        ({"values": (math.inf, 0.5)}, set(), "not_finite"),
    ],
)
def test_what_does_not_count_is_refused_by_name(change, sites, reason) -> None:
    why = core.refusal(replace(UPDATE, **change), ROUND, sites)
    assert (why[0] if why else None) == reason


def test_the_mean_is_weighted_by_rows_and_does_not_depend_on_the_order() -> None:
    updates = [of_site("a", 10, 1, 0), of_site("b", 30, 0, 2), of_site("c", 60, 0.3, 0)]
    found = {
        tuple(core.aggregated(ROUND, order, rules())[0])
        for order in itertools.permutations(updates)
    }
    [weights] = found
    assert weights == pytest.approx((1 + 0.1 + 0.18, 1 + 0.6))


def test_a_long_update_is_shortened_and_named() -> None:
    updates = [of_site("a", 1, 300, 400), of_site("b", 1, 0, 1)]
    weights, shares = core.aggregated(ROUND, updates, rules(clip_norm=1))
    assert weights == pytest.approx([1.3, 1.9])
    assert [(s.site, s.norm, s.is_clipped) for s in shares] == [
        ("a", 500, True), ("b", 1, False),
    ]  # fmt: skip


def test_the_greatest_numbers_are_clipped_too() -> None:
    values, norm = core.clip(np.full(3, 1e308), 2.0)
    assert np.linalg.norm(values) == pytest.approx(2)
    assert math.isfinite(norm)


def test_the_trimmed_mean_leaves_out_the_ends_and_ignores_claimed_rows() -> None:
    updates = [of_site("a", 1, 1, 1), of_site("b", 1, 2, 2), of_site("c", 10**9, -9, 9)]
    trimmed, _ = core.aggregated(ROUND, updates, rules(trim_ratio=0.34, min_sites=3))
    assert trimmed == [2, 3]
    mean, _ = core.aggregated(ROUND, updates, rules(clip_norm=100))
    assert mean[0] == pytest.approx(-8)  # negative control: the mean follows it


# ── the handlers ────────────────────────────────────────────────────────────


def federated_spec(**sections: Any) -> PipelineSpec:
    features = {
        "a": {"type": "number", "min": -4, "max": 4, "nullable": True},
        "kind": {"type": "category", "values": ["big", "small"], "nullable": True},
    }
    return spec(**({"data": {"target": "y", "features": features}} | sections))


class Place:
    """Handlers over a database, and a clock that shares it."""

    def __init__(self, folder: Path, url: str = "sqlite://") -> None:
        self.engine = open_database(url, TABLES)
        applied = PipelineApplied(pipeline=NAME, spec=federated_spec(), applied_by="a")
        self.pipelines = StateView(PipelineApplied, {NAME: applied})
        self.wake = threading.Event()
        self.store, self.publisher = FolderStore(folder), RecordingPublisher()
        tracer = TracerProvider().get_tracer("test")
        outbox = OutboxRelay("trainer", self.engine, self.publisher, self.store, tracer)
        runtime = Runtime(
            TrainerSettings(home=folder), self.engine, self.store, outbox,
            self.publisher, tracer, self.pipelines, {}, Session(self.engine),
            threading.Event(),
        )  # fmt: skip
        self.clock = RoundClock(runtime, self.wake)

    def give_data(self) -> None:
        with Session(self.engine) as session:
            pipeline_row(session, NAME).set_data(data())
            session.commit()

    def apply(self, how: PipelineSpec) -> None:
        self.pipelines.put(PipelineApplied(pipeline=NAME, spec=how, applied_by="a"))

    def handle(self, handler: Any, event: Event) -> list[Any]:
        with Session(self.engine) as session:
            deps = Deps(session, self.pipelines, self.wake, threading.Event())
            said = list(handler(event, deps))
            session.commit()
        return said

    def open(self, name: str = "wish", **changes: Any) -> list[Any]:
        event = FederationRequested(
            pipeline=NAME, requested_by="ada", reason="to see", rules=rules(**changes),
            target_min=-10, target_max=20,
        )  # fmt: skip
        origin = Meta(name, NOW, "/people", Chain(f"chain-{name}"))
        return self.handle(handlers.on_federation_requested, event.with_meta(origin))

    def send(
        self, opened: FederatedRoundOpened, site: str, at: float = 5, **changes: Any
    ) -> list[Any]:
        fields = {
            "pipeline": NAME, "federation_id": opened.federation_id,
            "round": opened.round, "site": site, "row_count": 10,
            "update": [0.1] * len(opened.weights),
        } | changes  # fmt: skip
        event = FederatedUpdateSubmitted.model_validate(fields)
        name = f"{site}-{opened.round}-{at}-{len(str(fields))}"
        origin = Meta(name, NOW + timedelta(minutes=at), f"/sites/{site}", Chain(name))
        return self.handle(
            handlers.on_federated_update_submitted, event.with_meta(origin)
        )

    def look(self, minutes: float, moment: float) -> list[Event]:
        before = len(self.publisher.sent)
        self.clock.look(NOW + timedelta(minutes=minutes), moment)
        return [
            decode(Message(r.topic, 0, n, r.key, r.value, r.headers, 0), self.store)
            for n, r in enumerate(self.publisher.sent[before:])
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, f"sqlite:///{tmp_path}/trainer.db")
    place.give_data()
    yield place
    place.engine.dispose()


def test_rounds_follow_each_other_and_the_last_gives_a_job(place: Place) -> None:
    [first] = place.open()
    assert first.weights == [0.0] * 4  # a, big, small, bias
    assert first.deadline == NOW + timedelta(minutes=60)
    assert first.follows.chain.id == "chain-wish"
    assert place.send(first, "a") == []
    assert place.send(first, "b") == []
    closed, second = place.send(first, "c", 7)
    assert (closed.outcome, closed.is_last) == ("averaged", False)
    assert [share.site for share in closed.took_part] == ["a", "b", "c"]
    assert second.weights == pytest.approx([0.1] * 4)
    assert second.deadline == NOW + timedelta(minutes=67)
    for site in "ab":
        place.send(second, site, 10)
    closed, started = place.send(second, "c", 10)
    assert closed.is_last
    assert isinstance(started, TrainingStarted)
    assert started.trigger.requested_by == "ada"
    assert place.wake.is_set()
    with Session(place.engine) as session:
        job = last_job(session, NAME)
        assert job is not None
        found = job.asked().federated
        assert kept_count(session, None) == 0
    assert found is not None
    assert found.weights == pytest.approx([0.2] * 4)
    assert (found.sites, found.row_count) == (["a", "b", "c"], 30)


def test_the_policy_counts_as_if_a_federation_had_not_been(place: Place) -> None:
    """Its job learned from none of the pipeline's rows: no cooldown comes of it."""
    [started] = place.handle(
        handlers.on_drift_detected, drift(100).with_meta(meta("d"))
    )
    assert isinstance(started, TrainingStarted)
    with Session(place.engine) as session:
        before = last_job(session, NAME)
        assert before is not None
        before.state = "done"
        session.commit()
        wanted = (before.data_end, before.label_count, before.champion_version)
    [opened] = place.open(rounds=1)
    for site in "abc":
        place.send(opened, site)
    with Session(place.engine) as session:
        job = last_job(session, NAME)
        assert job is not None
        assert job.number == 2
        assert (job.data_end, job.label_count, job.champion_version) == wanted


def test_refused_updates_are_told_when_the_round_closes(place: Place) -> None:
    [opened] = place.open(rounds=1)
    place.send(opened, "a")
    place.send(opened, "a", 6)
    place.send(opened, "b", update=[0.1])
    place.send(opened, "d", update=["NaN"] * 4)
    place.send(opened, "e", 61)
    place.send(opened, "b", 8)
    closed, _ = place.send(opened, "c", 9)
    assert [(one.site, one.reason) for one in closed.refused] == [
        ("a", "double"), ("b", "wrong_shape"), ("d", "not_finite"), ("e", "late"),
    ]  # fmt: skip
    assert [share.site for share in closed.took_part] == ["a", "b", "c"]


def test_an_update_of_a_closed_or_impossible_round_changes_nothing(place) -> None:
    [opened] = place.open()
    for site in "abc":
        place.send(opened, site)
    with pytest.raises(Skip, match="round_closed"):
        place.send(opened, "d")
    with pytest.raises(Reject, match="round: there are 2 rounds"):
        place.send(opened, "d", round=3)
    other = federated_spec().model_copy(update={"name": "other"})
    place.pipelines.put(PipelineApplied(pipeline="other", spec=other, applied_by="a"))
    with pytest.raises(Reject, match="federation_id"):
        place.send(opened, "d", pipeline="other")


def test_the_log_may_be_replayed_with_updates_before_the_request(tmp_path) -> None:
    """Two topics have no common order; the same events come of it."""
    live, again = (Place(tmp_path / name) for name in ("live", "again"))
    for place in (live, again):
        place.give_data()
    said = live.open()
    first = said[0]
    for site in "abc":
        said += live.send(first, site)
    second = said[-1]
    for site in "abc":
        said += live.send(second, site, 20)
    for opened in (first, second):
        for site in "abc":
            assert again.send(opened, site, 5 if opened is first else 20) == []
    replayed = again.open()
    assert replayed == said
    assert isinstance(replayed[-1], TrainingStarted)


def test_the_deadline_closes_a_round_once_no_update_comes_any_more(place) -> None:
    [opened] = place.open()
    for site in "ab":
        place.send(opened, site)
    assert place.look(59, 0) == []
    assert place.look(61, 0) == []
    assert place.look(61, SETTLE_S - 1) == []
    place.send(opened, "a", 8)  # a double; but something still comes in
    assert place.look(62, SETTLE_S) == []
    closed, second = place.look(63, 2 * SETTLE_S)
    assert [share.site for share in closed.took_part] == ["a", "b"]
    assert second.deadline == NOW + timedelta(minutes=123)
    assert place.look(64, 4 * SETTLE_S) == []


def test_too_few_sites_end_the_federation(place) -> None:
    [opened] = place.open()
    place.send(opened, "a")
    place.look(61, 0)
    [closed] = place.look(62, SETTLE_S)
    assert isinstance(closed, FederatedRoundClosed)
    assert (closed.outcome, closed.is_last, closed.weights) == ("failed", True, [])
    assert "1 sites until the deadline, of 2" in closed.detail
    with Session(place.engine) as session:
        assert last_job(session, NAME) is None
    [again] = place.open("wish2")
    assert isinstance(again, FederatedRoundOpened)


def test_a_changed_pipeline_file_ends_the_federation(place) -> None:
    [opened] = place.open(rounds=1)
    place.apply(federated_spec(train={"seed": 7}))
    place.send(opened, "a")
    place.send(opened, "b")
    features = {"a": {"type": "number", "min": -4, "max": 5}}
    place.apply(spec(data={"target": "y", "features": features}))
    [closed] = place.send(opened, "c")
    assert closed.outcome == "failed"
    assert "features or classes changed" in closed.detail


def test_a_request_that_cannot_be_is_answered_with_the_reason(place) -> None:
    place.apply(spec(data={"target": "y", "features": {}}))
    [closed] = place.open()
    assert (closed.round, closed.outcome, closed.is_last) == (0, "failed", True)
    assert "data.features: the features are inferred" in closed.detail


def test_a_result_waits_for_rows_to_be_measured_on(tmp_path) -> None:
    place = Place(tmp_path, f"sqlite:///{tmp_path}/trainer.db")
    [opened] = place.open(rounds=1)
    for site in "ab":
        place.send(opened, site)
    [closed] = place.send(opened, "c")
    assert closed.outcome == "averaged"

    def give(count: int) -> list[Any]:
        event = versioned(count, 40).with_meta(meta(f"data-{count}"))
        return place.handle(handlers.on_dataset_versioned, event)

    assert give(99) == []
    [started] = give(100)
    assert started.trigger.reason == "federated"
    assert give(101) == []


def test_a_result_waits_for_a_job_that_runs(place: Place) -> None:
    [running] = place.handle(
        handlers.on_drift_detected, drift(100).with_meta(meta("d"))
    )
    [opened] = place.open(rounds=1)
    for site in "ab":
        place.send(opened, site)
    [closed] = place.send(opened, "c")
    assert closed.outcome == "averaged"
    wish = TrainingCancelRequested(
        pipeline=NAME, job_id=running.job_id, requested_by="ada", reason="typo"
    )
    cancelled, started = place.handle(
        handlers.on_training_cancel_requested, wish.with_meta(meta("stop"))
    )
    assert cancelled.job_id == running.job_id
    assert started.trigger.reason == "federated"


def test_a_site_that_never_stops_sending_is_refused(place, monkeypatch) -> None:
    monkeypatch.setattr("driftloop.trainer.federated.rounds.MAX_KEPT", 3)
    [opened] = place.open()
    for number in range(3):
        place.send(opened, "a", number)
    with pytest.raises(Reject, match="3 updates are kept already"):
        place.send(opened, "a", 9)
    with Session(place.engine) as session:
        row = session.get(Federation, opened.federation_id)
        assert row is not None
        assert row.state == "open"
