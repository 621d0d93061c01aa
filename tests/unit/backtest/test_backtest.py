"""Policies over a recorded stream: what they come to, and that nothing is by chance."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from deltalake import write_deltalake
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.page import to_html, to_svg

from tests.unit.backtest import town

CAREFUL = """
description: listens to no verdict
retrain: {on_drift: false, every_rows: 300}
"""
BOUNDS = ["never", "always", "every-560"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return town.table(tmp_path_factory.mktemp("town") / "rows")


@pytest.fixture(scope="module")
def messages() -> list[dict[str, Any]]:
    """What is told on the way to the report."""
    return []


@pytest.fixture(scope="module")
def report(
    source: str,
    messages: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    careful = tmp_path_factory.mktemp("policies") / "careful.yaml"
    careful.write_text(CAREFUL)
    return town.backtested(
        source,
        messages.append,
        policies=[str(careful)],
        known_drifts=[town.TURNED_AT],
        oracle_trainings=6,
    )


def test_it_tells_how_far_each_policy_is(report, messages) -> None:
    told = {m["policy"]: [] for m in messages}
    for message in messages:
        told[message["policy"]].append(message["done_ratio"])
    assert [*told] == ["reading rows", *(line["name"] for line in report["policies"])]
    assert all(ratios == sorted(ratios) for ratios in told.values())
    assert {ratios[-1] for ratios in told.values()} == {1.0}
    assert len(told["oracle"]) > 6


def test_it_learns_of_the_turn_and_puts_a_better_version_in_service(report) -> None:
    """Never learning is the control: its loss stays what the turn made it."""
    own, never = town.line(report, "pipeline"), town.line(report, "never")
    assert own["curve"][-1] < 1 < never["curve"][-1]
    served = [e for e in own["timeline"] if e["what"] == "deployed"]
    assert served[-1]["at"] > town.TURNED_AT.isoformat()
    assert never["trainings"] == 1
    assert never["skips"].keys() == {"automation_advise"}


def test_no_row_is_answered_by_a_model_that_has_learned_it(report) -> None:
    for line in report["policies"]:
        for entry in line["timeline"]:
            if entry["what"] == "training" and "judged up to" in entry["detail"]:
                until = entry["detail"].rpartition(" ")[2]
                assert until <= entry["at"][:10]


def test_a_policy_changes_decisions(report) -> None:
    own, careful = town.line(report, "pipeline"), town.line(report, "careful")
    assert own["digest"] != careful["digest"]
    assert careful["description"] == "listens to no verdict"
    reasons = [e["reason"] for e in careful["timeline"] if e["what"] == "training"]
    assert set(reasons) == {"first_model", "new_data"}
    assert careful["skips"]["automation_advise"] > 0


def test_the_oracle_is_better_than_each_policy(report) -> None:
    best = town.line(report, "oracle")["loss"]
    assert all(best <= line["loss"] for line in report["policies"])
    assert best < town.line(report, "pipeline")["loss"]  # control: it is not a copy


def test_the_turn_is_noticed_within_days(report) -> None:
    (delay,) = town.line(report, "pipeline")["delays_days"]
    assert 0 < delay < 4
    assert town.line(report, "pipeline")["false_alarms"] == 0
    assert report["changes"] == [town.TURNED_AT.isoformat()]


def test_the_same_again_gives_the_same(source: str, report) -> None:
    again = town.backtested(source, bounds=False)
    before = town.line(report, "pipeline")
    assert town.line(again, "pipeline")["digest"] == before["digest"]
    assert town.line(again, "pipeline")["timeline"] == before["timeline"]


def test_other_rows_give_other_decisions(tmp_path: Path, report) -> None:
    calm = town.table(tmp_path / "calm", town.rows(turn=town.ROWS))
    found = town.backtested(calm, bounds=False)
    own = town.line(found, "pipeline")
    assert own["digest"] != town.line(report, "pipeline")["digest"]
    assert own["trainings"] == 1


def test_several_processes_come_to_the_same(source: str, report) -> None:
    found = town.backtested(source, policies=["never"], bounds=False, workers=2)
    for name in ("pipeline", "never"):
        assert town.line(found, name)["digest"] == town.line(report, name)["digest"]


def test_equal_trainings_are_made_once(report) -> None:
    """What the first model cost is the same figure in each policy, as it is one."""
    own, never = town.line(report, "pipeline"), town.line(report, "never")
    assert own["cpu_seconds"] > never["cpu_seconds"] > 0


def test_labels_that_come_later_are_learned_later(source: str, report) -> None:
    late = town.backtested(source, bounds=False, rhythm={"label_delay_hours": 72})
    first = town.line(late, "pipeline")["timeline"][0]
    prompt = town.line(report, "pipeline")["timeline"][0]
    assert first["what"] == prompt["what"] == "training"
    assert first["at"] > prompt["at"]
    assert late["compared_rows"] < report["compared_rows"]
    seen = next(
        e["at"] for e in town.line(late, "pipeline")["timeline"] if e["what"] == "drift"
    )
    assert seen >= (town.TURNED_AT + timedelta(hours=72)).isoformat()


def test_a_csv_file_is_read_as_the_door_would(tmp_path: Path) -> None:
    path = tmp_path / "town.csv"
    pyarrow.csv.write_csv(town.rows().drop_columns(["source"]), path)
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(lines[1].split(",")[2], '"much"')
    path.write_text("\n".join(lines) + "\n")
    spec = town.spec(data={"time": "event_time"})
    found = town.backtested(str(path), spec=spec, bounds=False)
    assert found["refused_rows"] == 1
    assert found["rows"] == town.ROWS - 1


def test_a_file_without_named_features_is_learned_from_its_first_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "town.csv"
    pyarrow.csv.write_csv(town.rows().drop_columns(["source"]), path)
    spec = town.spec().model_dump(mode="json", exclude_unset=True)
    spec["data"] = {"target": "y", "time": "event_time"}
    found = town.backtested(str(path), spec=spec, bounds=False)
    assert town.line(found, "pipeline")["curve"][0] < 1


def _dataset(home: Path, late_hours: int) -> None:
    """Lay down a dataset as the validator does: rows, and labels that came later."""
    rows, place = town.rows(), home / "datasets" / "town"
    times = pc.add(rows["event_time"], pa.scalar(timedelta(hours=late_hours)))
    later = rows.select(["id", "source", "y"]).append_column("event_time", times)
    first = later.append_column("revision", pa.array([0] * town.ROWS, pa.int64()))
    wrong = first.set_column(2, "y", pa.array([1e6] * town.ROWS))
    second = first.set_column(4, "revision", pa.array([1] * town.ROWS, pa.int64()))
    town.table(place / "observations", rows.drop_columns(["y"]))
    town.table(place / "labels", wrong)
    write_deltalake(str(place / "labels"), second, mode="append")


def test_a_dataset_has_its_newest_labels_when_they_came(tmp_path: Path, report) -> None:
    """The first revision's labels are absurd; only the second gives a good model."""
    _dataset(tmp_path, late_hours=72)
    found = town.backtested("town@latest", home=tmp_path, bounds=False)
    own = town.line(found, "pipeline")
    assert own["timeline"][0]["at"] > town.line(report, "pipeline")["timeline"][0]["at"]
    assert own["curve"][0] < 1
    with pytest.raises(BacktestError, match="better_than_no_skill"):  # the control
        town.backtested("town@0.0", home=tmp_path, bounds=False)


def test_another_pipelines_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match="another pipeline"):
        town.backtested("city@latest", home=tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing.csv", "no recorded data"), ("town@latest", "Delta table")],
)
def test_data_that_are_not_there_are_named(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(BacktestError, match=said):
        town.backtested(name, home=tmp_path)


def test_a_stream_too_short_for_a_model_says_so(tmp_path: Path) -> None:
    short = town.table(tmp_path / "short", town.rows(150))
    with pytest.raises(BacktestError, match="retrain.first_rows"):
        town.backtested(short, bounds=False)


def test_costs_are_in_the_pipelines_unit(source: str) -> None:
    spec = town.spec(
        retrain={"cost": {"loss_unit_value": 2, "unit": "€", "training": 10,
                          "rollout": 5}},
    )  # fmt: skip
    found = town.backtested(source, spec=spec, policies=["never"], bounds=False)
    own, never = town.line(found, "pipeline"), town.line(found, "never")
    assert own["bill"]["trainings"] == 10 * (own["trainings"] - 1)
    assert own["bill"]["rollouts"] == 5 * (own["deployed"] - 1)
    assert never["bill"]["trainings"] == never["bill"]["rollouts"] == 0
    lost = own["loss"] * found["compared_rows"] * 2
    assert own["bill"]["losses"] == pytest.approx(lost)


def test_a_training_that_costs_more_than_it_gains_is_not_made(source: str) -> None:
    def of(price: float) -> dict[str, Any]:
        cost = {"loss_unit_value": 1, "training": price, "horizon_days": 10}
        spec = town.spec(retrain={"cost": cost})
        found = town.backtested(source, spec=spec, bounds=False)
        return town.line(found, "pipeline")

    cheap, dear = of(1.0), of(1e6)
    assert cheap["trainings"] > 1
    assert dear["trainings"] == 1
    assert dear["skips"]["not_worth_it"] > 0
    skip = next(e for e in dear["timeline"] if e["what"] == "skip")
    assert "a training with its rollout costs 1e+06" in skip["detail"]


def test_the_page_shows_all_policies_and_loads_nothing(report) -> None:
    told = copy.deepcopy(report)
    told["policies"][0]["description"] = "<script>alert(1)</script>"
    page = to_html(told)
    for line in report["policies"]:
        assert line["name"] in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<polyline") == len(report["policies"])
    picture = ET.fromstring(to_svg(told))  # noqa: S314 - our own
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    trained = [m for m in picture.iter() if "train" in m.get("class", "").split()]
    assert len(trained) == sum(line["trainings"] for line in report["policies"]) - 1
    assert np.isfinite([v for p in report["policies"] for v in p["curve"]]).all()
