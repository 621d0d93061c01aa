"""``driftloop schema`` on a log made by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.log import Entry
from driftloop.cli.schema import work
from driftloop.cli.schema.life import features_yaml, life_of
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.pipeline import Feature, parse_pipeline
from driftloop.contracts.schema import SchemaChange, SchemaColumn, differences
from driftloop.runtime.settings import Settings

from tests.unit.cli import running

OPEN = parse_pipeline("{name: churn, task: regression, data: {target: y}}")
DECLARED = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, features: "
    "{count: {type: integer, min: 0}, sky: {type: category, values: [clear]}}}}"
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


def proposal(pipeline: str, version: int, **features: Feature) -> e.SchemaProposed:
    return e.SchemaProposed(
        pipeline=pipeline,
        version=version,
        columns={n: SchemaColumn(feature=f) for n, f in features.items()},
        changes=[SchemaChange(column="x", kind="new_column", detail="is new")],
        row_count=20,
    )


class Office:
    """The command line on a log; what it publishes is on the log at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[Entry] = []
        for spec in (OPEN, DECLARED):
            self.publish(
                None,
                e.PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann"),
            )

    def publish(self, installation: object, event: Event) -> None:
        number = len(self.log)
        at = NOW + timedelta(seconds=number)
        self.log.append(Entry(event, Meta(str(number), at, "/s", Chain(str(number)))))

    def run(self, *words: str) -> str:
        return running.run("schema", *words).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office(tmp_path)
    there = Installation(tmp_path, "nowhere:1", "", "", Settings(home=tmp_path))
    monkeypatch.setattr("driftloop.cli.schema.command.connect", lambda home: there)
    monkeypatch.setattr(work, "read_log", lambda *_: office.log)
    monkeypatch.setattr(work, "publish_event", office.publish)
    return office


def test_a_proposal_waits_until_it_is_accepted(office: Office) -> None:
    assert "nothing is proposed" in office.run("show", "churn")
    office.publish(None, proposal("churn", 1, age=Feature(min=0)))
    assert "schema 1 is proposed" in office.run("show", "churn")
    office.run("accept", "churn", "--by", "ann")
    found = office.json("show", "churn")
    assert (found["source"], found["pending"]) == ("version 1, by ann", None)
    assert found["in_force"]["age"]["feature"]["min"] == 0
    office.publish(None, proposal("churn", 2, age=Feature(min=0), x=Feature()))
    assert office.json("diff", "churn")["changes"] == ["x: new"]
    assert office.json("show", "churn")["pending"]["version"] == 2
    assert "x is new" in office.run("show", "churn")


def test_accepting_for_a_file_that_names_features_applies_it(office: Office) -> None:
    wider = {
        "count": Feature(type="number", min=0),
        "sky": Feature(type="category", values=["clear", "fog"]),
    }
    office.publish(None, proposal("bikes", 1, **wider))
    said = office.run("accept", "bikes", "--by", "ann")
    applied = office.log[-1].event
    assert isinstance(applied, e.PipelineApplied)
    assert (applied.applied_by, applied.spec.data.features) == ("ann", wider)
    assert "count: type integer → number" in said
    assert "sky: values +fog" in said
    assert "  sky: {type: category, values: [clear, fog]}" in said
    assert office.json("show", "bikes")["pending"] is None


def test_a_person_may_edit_what_is_proposed(office: Office, tmp_path: Path) -> None:
    office.publish(None, proposal("churn", 1, age=Feature(max=80), plan=Feature()))
    text = office.run("show", "churn", "--version", "latest", "--yaml")
    file = tmp_path / "schema.yaml"
    file.write_text(text.replace("max: 80", "max: 130"))
    office.run("accept", "churn", "--by", "ann", "--file", str(file))
    accepted = office.log[-1].event
    assert isinstance(accepted, e.SchemaAccepted)
    assert accepted.columns["age"].feature.max == 130
    assert list(accepted.columns) == ["age", "plan"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("features: {age: {type: category}}", "age is number in the dataset"),
        ("features: {age: {maxx: 1}}", "maxx: unknown key; did you mean 'max'"),
        ("age: {}", "must hold features:"),
        ("[", "cannot read"),
    ],
)
def test_a_file_that_is_not_right_is_refused(
    office: Office, tmp_path: Path, text: str, said: str
) -> None:
    office.publish(None, proposal("churn", 1, age=Feature(max=80)))
    file = tmp_path / "schema.yaml"
    file.write_text(text)
    with pytest.raises(CommandError, match=said):
        office.run("accept", "churn", "--by", "ann", "--file", str(file))
    assert not isinstance(office.log[-1].event, e.SchemaAccepted)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "cars"], "no pipeline 'cars'; applied: bikes, churn"),
        (["accept", "churn", "--by", "a"], "has no proposed schema; .*none yet"),
        (["accept", "churn", "--by", "a", "--version", "7"], "no proposed schema 7"),
        (["diff", "churn", "old"], "give a version's number, in-force or latest"),
    ],
)
def test_errors_name_what_there_is(office: Office, words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        office.run(*words)


def test_infer_writes_what_a_pipeline_file_takes(office: Office) -> None:
    file = str(ROOT / "examples/bike-demand/rentals.csv")
    text = office.run("infer", file, "--target", "cnt", "--time", "time")
    spec = parse_pipeline(
        yaml.safe_dump(
            {
                "name": "bikes",
                "task": "regression",
                "data": {"target": "cnt", **yaml.safe_load(text)},
            }
        )
    )
    features = spec.data.features
    assert {"cnt", "id", "time"}.isdisjoint(features)
    assert features["temp"].type == "number"
    assert (features["hour"].type, features["hour"].min) == ("integer", 0)
    assert not features["temp"].nullable


def test_infer_finds_nothing_in_a_file_without_features(
    office: Office, tmp_path: Path
) -> None:
    file = tmp_path / "bare.csv"
    file.write_text("id,event_time,x\n1,2011-01-01T00:00:00Z,\n")
    with pytest.raises(CommandError, match="no column with values is left"):
        office.run("infer", str(file))


def test_lines_of_a_file_are_read_as_they_were() -> None:
    features = {
        "größe": Feature(min=-1.5, unit="°C / 41"),
        "a b": Feature(type="category", values=["x", "on", "1"], nullable=True),
        "flag": Feature(type="boolean"),
    }
    text = features_yaml(features)
    read = yaml.safe_load(text)["features"]
    assert {n: Feature.model_validate(f) for n, f in read.items()} == features
    assert len(text.splitlines()) == 4


def test_differences_name_every_rule() -> None:
    old = {"a": Feature(max=1), "b": Feature(), "c": Feature(type="category")}
    new = {
        "a": Feature(max=2, nullable=True),
        "c": Feature(type="category", values=["x"]),
    }
    assert differences(old, new) == [
        "a: max 1 → 2",
        "a: nullable False → True",
        "b: gone",
        "c: values none → ['x']",
    ]
    assert differences(new, new) == []


def test_the_newest_applied_file_counts(office: Office) -> None:
    life = life_of(office.log, "bikes")
    assert life.source == "the pipeline file"
    assert life_of(office.log, "churn").in_force == {}
