"""The causal story of a version, from a log made by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from driftloop.cli.log import Entry
from driftloop.cli.why import UnknownModelError, parse_model, tell
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPAN = e.Span(start=NOW, end=NOW)
PACKAGE = e.PackageRef(uri="artifact:x", digest="a" * 64, signer="k")
EVALUATION = e.Evaluation(
    metric="mae",
    holdout_span=SPAN,
    holdout_row_count=10,
    candidate=1.0,
    baseline=2.0,
    comparison=e.PairedComparison(
        mean_difference=-1.0, standard_error=0.1, row_count=10
    ),
)


def entry(event: Event, number: int, cause: int | None, chain: str) -> Entry:
    meta = Meta(
        id=str(number),
        time=NOW + timedelta(seconds=number),
        source="/s",
        chain=Chain(chain, f"00-{chain * 32}-{'1' * 16}-01"),
        causation_id=None if cause is None else str(cause),
    )
    return Entry(event, meta)


def drift() -> e.DriftDetected:
    return e.DriftDetected(
        pipeline="bikes",
        cause="concept_drift",
        retrain_advised=True,
        since=NOW,
        detected_at=NOW,
        evidence=[
            e.Evidence(signal="error", detector="PageHinkley", statistic=1, row_count=9)
        ],
        explanation="errors rose",
    )


def chain_of(version: int, chain: str, start: int) -> list[Entry]:
    trigger = e.Trigger(
        event_id=str(start), event_type="drift-detected", reason="concept_drift"
    )
    dataset = e.DatasetRef(observations=e.TableRef(uri="t", version=1))
    return [
        entry(drift(), start, None, chain),
        entry(
            e.TrainingStarted(
                pipeline="bikes",
                job_id=f"j{version}",
                trigger=trigger,
                dataset=dataset,
                train_span=SPAN,
                holdout_span=SPAN,
            ),
            start + 1,
            start,
            chain,
        ),
        entry(
            e.ModelRegistered(
                pipeline="bikes",
                version=version,
                job_id=f"j{version}",
                package=PACKAGE,
                algorithm="linear",
                evaluation=EVALUATION,
                gate=[],
            ),
            start + 2,
            start,
            chain,
        ),
        entry(
            e.ModelDeployed(
                pipeline="bikes", rollout_id="r", version=version, package=PACKAGE
            ),
            start + 3,
            start + 2,
            chain,
        ),
    ]


LOG = [*chain_of(1, "a", 10), *chain_of(2, "b", 20)]


def test_the_champion_is_the_last_deployed() -> None:
    story = tell(LOG, "bikes", None)
    assert story.version == 2
    assert [x.topic for x in story.entries] == [
        "drift-detected",
        "training-started",
        "model-registered",
        "model-deployed",
    ]
    assert story.trace_ids == {"b" * 32}


def test_an_earlier_version_has_its_own_story() -> None:
    assert [x.meta.id for x in tell(LOG, "bikes", 1).entries] == [
        "10",
        "11",
        "12",
        "13",
    ]


def test_a_cause_that_the_log_lost_is_said() -> None:
    assert tell(LOG[1:4], "bikes", 1).missing_causes == {"10"}


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("bikes", 9, r"no bikes/9 in the log; known: bikes/1"),
        ("cars", None, r"no pipeline 'cars' in the log; there are: bikes"),
        ("cars", 1, r"no pipeline 'cars'"),
    ],
)
def test_an_unknown_model_is_explained(
    name: str, version: int | None, said: str
) -> None:
    with pytest.raises(UnknownModelError, match=said):
        tell(LOG, name, version)


def test_a_version_is_a_number() -> None:
    assert parse_model("bikes@champion") == ("bikes", None)
    with pytest.raises(UnknownModelError, match="not a version"):
        parse_model("bikes/best")
