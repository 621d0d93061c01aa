"""Answers name columns that have drifted, as long as the monitor's verdict holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import DriftDetected, DriftEnded, Evidence
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.drifted import Drifts
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Served, Shelf

from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import HttpClient

START = datetime(2012, 3, 1, tzinfo=UTC)
COLUMNS = ("size", "colour", "höhe, m")
TOKEN = "token-of-the-tests"
Told = list[DriftDetected | DriftEnded]


def meta(hour: int) -> Meta:
    """When the monitor wrote."""
    return Meta(str(hour), START + timedelta(hours=hour), "/monitor", Chain("chain"))


def verdict(
    hour: int, *features: str, version: int = 1, **fields: Any
) -> DriftDetected:
    content: dict[str, Any] = {
        "pipeline": NAME,
        "model_version": version,
        "cause": "population_shift",
        "retrain_advised": True,
        "since": START,
        "detected_at": START,
        "features": list(features),
        "evidence": [Evidence(signal="error", detector="KS", statistic=1, row_count=9)],
        "explanation": "the error doubled",
    }
    return DriftDetected.model_validate(content | fields).with_meta(meta(hour))


def fault(hour: int, *features: str, version: int = 1) -> DriftDetected:
    return verdict(
        hour, *features, version=version, cause="sensor_fault", retrain_advised=False
    )


def over(hour: int, *features: str) -> DriftEnded:
    event = DriftEnded(
        pipeline=NAME,
        cause="sensor_fault",
        features=list(features),
        since=START,
        until=START,
    )
    return event.with_meta(meta(hour))


def drifts(*events: DriftDetected | DriftEnded) -> Drifts:
    found = Drifts()
    for event in events:
        if isinstance(event, DriftDetected):
            found.detected(event)
        else:
            found.ended(event)
    return found


def named(found: Drifts, version: int = 1) -> list[str]:
    return [one.column for one in found.of(NAME, version, COLUMNS)]


def test_a_verdict_holds_for_the_version_that_it_speaks_of() -> None:
    found = drifts(verdict(1, "size", "colour"))
    assert named(found) == ["colour", "size"]
    assert named(found, version=2) == []
    assert found.of("other", 1, COLUMNS) == ()


def test_the_newest_verdict_on_a_version_counts() -> None:
    """Also where it names no column: then inputs are as before."""
    assert named(drifts(verdict(1, "size"), verdict(2, "colour"))) == ["colour"]
    calm = verdict(3, cause="concept_drift")
    assert named(drifts(verdict(1, "size"), calm)) == []
    other = verdict(4, "colour", version=2)
    assert named(drifts(verdict(1, "size"), other)) == ["size"]


def test_wrong_values_are_wrong_whichever_version_answers_until_they_are_over() -> None:
    """One of two columns is mended, then it breaks again."""
    told: Told = [
        fault(1, "size", "colour"),
        over(2, "size"),
        fault(3, "size"),
        over(4, "size"),
    ]
    expected = [["colour", "size"], ["colour"], ["colour", "size"], ["colour"]]
    for count, wanted in enumerate(expected, 1):
        for version in (1, 2):
            assert named(drifts(*told[:count]), version) == wanted


def test_faults_come_beside_a_verdict_on_the_error() -> None:
    """A verdict on the error does not end a fault, nor the other way round."""
    found = drifts(fault(1, "colour"), verdict(2, "size"))
    assert named(found) == ["colour", "size"]
    found.ended(over(3, "colour"))
    assert named(found) == ["size"]


def test_it_does_not_matter_which_topic_is_read_first() -> None:
    told: Told = [
        fault(1, "size"),
        over(2, "size"),
        verdict(3, "colour"),
        verdict(4, "size"),
        fault(5, "colour"),
    ]
    found = {tuple(named(drifts(*order))) for order in permutations(told)}
    assert found == {("colour", "size")}


def test_only_columns_that_the_version_has_are_named() -> None:
    """The label may be wrong too, and a newer version may have lost a column."""
    found = drifts(fault(1, "cnt", "size"))
    assert [str(one) for one in found.of(NAME, 1, ["size"])] == [
        "size: wrong since 2012-03-01, by the monitor"
    ]
    assert found.of(NAME, 1, ["colour"]) == []


# ── at the doors ────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    factory = Factory(tmp_path_factory.mktemp("home"))
    inputs = ("höhe, m", "colour")
    return [factory.loaded(number, 1.0, inputs=inputs) for number in (1, 2)]


def test_answers_name_them(versions: list[Loaded]) -> None:
    """At each door; no longer once another version answers."""
    shelf, found = Shelf(), Drifts()
    shelf.show(NAME, Served(1, versions[0], is_settled=True))
    settings = ScorerSettings.model_validate({"api_token": TOKEN})
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    desk = Desk(shelf, Traffic(), drifts=found)
    open_doors(app, routers(desk, settings, lambda: True))
    client = HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})
    height = {"name": "höhe, m", "shape": [1], "datatype": "FP64", "data": [1.0]}
    colour = {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]}
    asked = {"inputs": [height, colour]}
    record = {"höhe, m": 1.0, "colour": "red"}

    def told() -> tuple[str | None, str | None]:
        answer = client.post(f"/v2/models/{NAME}/infer", json=asked)
        assert answer.json()["outputs"][0]["data"] == [12.0]
        as_mlflow = client.post("/invocations", json={"dataframe_records": [record]})
        assert as_mlflow.json() == {"predictions": [12.0]}
        header = answer.headers.get("x-driftloop-drifted")
        assert as_mlflow.headers.get("x-driftloop-drifted") == header
        return header, answer.json()["parameters"].get("warnings")

    assert told() == (None, None)
    for event in (verdict(1, "höhe, m", "colour"), fault(2, "colour")):
        found.detected(event)
    assert told() == (
        "colour, h%C3%B6he%2C%20m",
        "colour: wrong since 2012-03-01, by the monitor; "
        "höhe, m: drifted since 2012-03-01, by the monitor",
    )
    shelf.show(NAME, Served(2, versions[1], is_settled=True))
    assert told()[0] == "colour"
    found.ended(over(3, "colour"))
    assert told() == (None, None)
