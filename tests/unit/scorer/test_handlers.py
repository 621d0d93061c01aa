"""The stream: one scored batch for each validated one, figures when due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from driftloop.contracts.events import (
    BatchScored,
    BatchValidated,
    PipelineApplied,
    RequestsAnswered,
    ScorerReported,
    ServedModel,
    ServingDesired,
    ShadowReplayed,
)
from driftloop.contracts.scoring import (
    ScoringCancelRequested,
    ScoringProgressed,
    ScoringRequested,
    ScoringStarted,
)
from driftloop.contracts.topics import consumed_by, produced_by
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.state import StateView
from driftloop.scorer.handlers import (
    HANDLERS,
    ScorerDeps,
    on_batch_validated,
    on_scoring_cancel_requested,
    on_scoring_requested,
)
from driftloop.scorer.jobs.facts import ENDS
from driftloop.scorer.shelf import Served, Shelf
from driftloop.scorer.tables import ScorerAnnounced, ScorerTally
from sqlmodel import Session

from tests.unit.scorer import packages
from tests.unit.scorer.packages import MONTH, NAME, Factory

REPORT_EVERY = 3


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def served(factory: Factory) -> Served:
    """Version 1 answers; version 2, which cannot do sums above 100, is on its way."""
    return Served(
        generation=2,
        champion=factory.loaded(1, 1.0),
        candidate=factory.loaded(2, extra=packages.NAN_ABOVE_100),
        share=1.0,
        is_settled=True,
    )


@pytest.fixture
def deps(served: Served) -> Iterator[ScorerDeps]:
    engine = open_database("sqlite://", [ScorerTally, ScorerAnnounced])
    shelf = Shelf()
    shelf.show(NAME, served)
    assert served.champion is not None
    champion = ServedModel(version=1, package=served.champion.package)
    wish = ServingDesired(pipeline=NAME, generation=2, champion=champion)
    with Session(engine) as session:
        yield ScorerDeps(
            session, StateView(PipelineApplied), shelf,
            StateView(ServingDesired, {NAME: wish}), "0", REPORT_EVERY,
        )  # fmt: skip
    engine.dispose()


def batch(*sizes: float, **fields: Any) -> BatchValidated:
    count = len(sizes)
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([f"r{n}" for n in range(count)]),
            pa.array([MONTH.start] * count, pa.timestamp("us", "UTC")),
            pa.array(["s"] * count),
            pa.array(sizes, pa.float64()),
            pa.array(["blue"] * count),
        ],
        names=["id", "event_time", "source", "size", "colour"],
    )
    event = BatchValidated.model_validate(
        {
            "pipeline": NAME, "shard": "s", "row_count": count, "span": MONTH,
            "watermark": MONTH.end, **fields,
        }
    )  # fmt: skip
    return event.with_rows(rows)


def test_both_versions_predict_each_row(deps: ScorerDeps) -> None:
    (scored,) = on_batch_validated(batch(1.0, 2.0), deps)
    assert isinstance(scored, BatchScored)
    assert (scored.champion_version, scored.candidate_version) == (1, 2)
    assert scored.row_count == 2
    assert scored.span == MONTH
    assert scored.rows.to_pydict() | {"event_time": None} == {
        "id": ["r0", "r1"],
        "event_time": None,
        "champion_prediction": [2.0, 3.0],
        "candidate_prediction": [1.0, 2.0],
        "served_by": ["candidate", "candidate"],
    }


def test_a_candidate_that_answers_nan_is_reported_at_once(deps: ScorerDeps) -> None:
    scored, report = on_batch_validated(batch(1.0, 500.0), deps)
    assert isinstance(scored, BatchScored)
    assert scored.rows.column("champion_prediction").to_pylist() == [2.0, 501.0]
    assert scored.rows.column("served_by").to_pylist() == ["candidate", "champion"]
    assert isinstance(report, ScorerReported)
    assert report.generation == 2
    assert report.watermark == MONTH.end
    champion, candidate = report.versions
    assert (champion.role, champion.row_count, champion.error_count) == (
        "champion",
        2,
        0,
    )
    assert (candidate.role, candidate.row_count, candidate.error_count) == (
        "candidate",
        2,
        1,
    )
    assert candidate.detail == "no finite answer for 1 of 2 rows"


def test_figures_are_reported_after_so_many_batches(deps: ScorerDeps) -> None:
    told = [list(on_batch_validated(batch(1.0), deps)) for _ in range(4)]
    assert [len(events) for events in told] == [1, 1, 2, 1]
    report = told[2][1]
    assert isinstance(report, ScorerReported)
    assert [v.row_count for v in report.versions] == [3, 3]


def test_a_row_that_lacks_a_feature_is_an_error_and_not_a_crash(
    deps: ScorerDeps,
) -> None:
    event = batch(1.0)
    foreign = event.with_rows(event.rows.drop_columns(["colour"]))
    scored, report = on_batch_validated(foreign, deps)
    assert isinstance(scored, BatchScored)
    assert scored.rows.column("champion_prediction").to_pylist() == [None]
    assert isinstance(report, ScorerReported)
    assert "feature 'colour' is missing" in report.versions[0].detail


def test_labels_and_pipelines_without_a_model_are_skipped(deps: ScorerDeps) -> None:
    with pytest.raises(Skip, match="labels"):
        list(on_batch_validated(batch(1.0, kind="labels"), deps))
    with pytest.raises(Skip, match="no_model"):
        list(on_batch_validated(batch(1.0, pipeline="other"), deps))


def test_a_version_that_is_wanted_and_not_loaded_is_waited_for(
    deps: ScorerDeps,
) -> None:
    with pytest.raises(Retry, match="version 1 is not loaded"):
        list(on_batch_validated(batch(1.0), replace(deps, shelf=Shelf())))


def test_handlers_and_outputs_are_those_of_the_topic_table(deps: ScorerDeps) -> None:
    assert handler_table(HANDLERS).topics == tuple(
        topic.name for topic in consumed_by("scorer")
    )
    allowed = {topic.name for topic in produced_by("scorer")}
    told = on_batch_validated(batch(500.0), deps)
    # told in the background; see test_asked, test_replaying and test_jobs
    others = {RequestsAnswered.topic(), ShadowReplayed.topic()}
    others |= {event.topic() for event in (ScoringStarted, ScoringProgressed, *ENDS)}
    assert {event.topic() for event in told} | others == allowed


def test_a_scorer_of_staging_has_its_own_wish(deps: ScorerDeps) -> None:
    """What production should serve is nothing to it, and jobs are production's."""
    staging = replace(deps, environment="staging")
    with pytest.raises(Skip, match="no_model"):
        list(on_batch_validated(batch(1.0), staging))
    wish = deps.desired[NAME].model_copy(update={"environment": "staging"})
    assert isinstance(deps.desired, StateView)
    deps.desired.put(wish)
    scored, *_ = on_batch_validated(batch(1.0), staging)
    assert isinstance(scored, BatchScored)
    assert scored.environment == "staging"
    (here, *_) = on_batch_validated(batch(1.0), deps)
    assert isinstance(here, BatchScored)
    assert here.environment == "production"


def test_jobs_are_left_to_the_scorers_of_production(deps: ScorerDeps) -> None:
    staging = replace(deps, environment="staging")
    wanted = ScoringRequested(pipeline=NAME, requested_by="ada")
    with pytest.raises(Skip, match="not_in_production"):
        list(on_scoring_requested(wanted, staging))
    stop = ScoringCancelRequested(
        pipeline=NAME, job_id="j", requested_by="ada", reason="wrong"
    )
    with pytest.raises(Skip, match="not_in_production"):
        list(on_scoring_cancel_requested(stop, staging))
