"""What is reported is OpenLineage, by the official client's own classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from driftloop.contracts.events import (
    LineageReported,
    ModelRolledBack,
    RolloutAdvanced,
    ServedModel,
    TrainingCancelled,
)
from driftloop.contracts.openlineage import FACETS, schema_of_facet
from driftloop.registry.handlers import Deps
from driftloop.registry.recorded import RecordedVerdicts

from tests.unit.registry import bench, story
from tests.unit.registry.bench import Life, at, open_deps, ref, trigger, versioned
from tests.unit.registry.story import NAME
from tests.unit.scorer.packages import Factory

pytest.importorskip("openlineage.client", reason="a tool of the workspace")
import attr
import jsonschema
from openlineage.client import facet_v2 as f
from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
)

STANDARD = {
    "parent": f.parent_run.ParentRunFacet,
    "errorMessage": f.error_message_run.ErrorMessageRunFacet,
    "nominalTime": f.nominal_time_run.NominalTimeRunFacet,
    "jobType": f.job_type_job.JobTypeJobFacet,
    "schema": f.schema_dataset.SchemaDatasetFacet,
    "version": f.dataset_version_dataset.DatasetVersionDatasetFacet,
    "dataSource": f.datasource_dataset.DatasourceDatasetFacet,
    "dataQualityMetrics": (
        f.data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet
    ),
    "dataQualityAssertions": (
        f.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet
    ),
    "outputStatistics": (
        f.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    ),
}
PARTS = {
    ("parent", "run"): f.parent_run.Run,
    ("parent", "job"): f.parent_run.Job,
    ("schema", "fields"): f.schema_dataset.SchemaDatasetFacetFields,
    ("dataQualityAssertions", "assertions"): (
        f.data_quality_assertions_dataset.Assertion
    ),
}
OURS = {facet.key(): facet for facet in FACETS}


def check_facet(key: str, facet: dict[str, Any]) -> Any:
    """Return the client's object of a facet; unknown or missing fields are errors."""
    if key in OURS:
        schema = schema_of_facet(OURS[key])
        jsonschema.Draft202012Validator(schema).validate(facet)
        return None
    kind = STANDARD[key]
    assert facet["_producer"] == "urn:driftloop:registry"
    assert facet["_schemaURL"] == kind._get_schema()
    content: dict[str, Any] = {}
    for name, value in facet.items():
        part = PARTS.get((key, name))
        if name.startswith("_"):
            continue
        if part and isinstance(value, list):
            content[name] = [part(**each) for each in value]
        else:
            content[name] = part(**value) if part else value
    made = kind(**content)
    for name in attr.fields_dict(type(made)):
        assert name.startswith("_") or name in facet or not name.endswith("Id")
    return made


def facets_of(part: dict[str, Any], name: str = "facets") -> dict[str, Any]:
    made = {key: check_facet(key, facet) for key, facet in part.get(name, {}).items()}
    return {key: facet for key, facet in made.items() if facet is not None}


def check(event: LineageReported) -> RunEvent:
    return check_json(json.loads(event.model_dump_json()))


def check_json(said: dict[str, Any]) -> RunEvent:
    """Return the client's object of a report; what is no OpenLineage is an error."""
    assert said.pop("pipeline") == NAME
    assert said.pop("schemaURL") == RunEvent._get_schema()
    run, job = said["run"], said["job"]
    return RunEvent(
        eventType=RunState(said["eventType"]),
        eventTime=said["eventTime"],
        producer=said["producer"],
        run=Run(runId=run["runId"], facets=facets_of(run)),
        job=Job(namespace=job["namespace"], name=job["name"], facets=facets_of(job)),
        inputs=[
            InputDataset(
                namespace=one["namespace"],
                name=one["name"],
                facets=facets_of(one),
                inputFacets=facets_of(one, "inputFacets"),
            )
            for one in said["inputs"]
        ],
        outputs=[
            OutputDataset(
                namespace=one["namespace"],
                name=one["name"],
                facets=facets_of(one),
                outputFacets=facets_of(one, "outputFacets"),
            )
            for one in said["outputs"]
        ],
    )


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def deps() -> Iterator[Deps]:
    yield from open_deps("full")


@pytest.fixture
def life(deps: Deps, factory: Factory) -> Life:
    return Life(deps, factory)


def reports(life: Life, event: Any) -> list[LineageReported]:
    found = [e for e in life.take(event) if isinstance(e, LineageReported)]
    for one in found:
        check(one)
    return found


def step(name: str, verdict: str, number: int, rollout: str = "r") -> Any:
    event = RolloutAdvanced(
        pipeline=NAME, rollout_id=rollout, version=1, step=name, verdict=verdict,
        detail="as told",
    )  # fmt: skip
    return at(event, f"step-{rollout}-{number}", 5)


def told(found: list[LineageReported]) -> list[tuple[str, str]]:
    return [(one.job["name"].removeprefix(f"{NAME}."), one.eventType) for one in found]


def test_a_validation(life: Life) -> None:
    """What was read, what came of it, and what was taken out, in one run."""
    started, completed = reports(life, versioned(1))
    [other] = reports(life, bench.rejected(1, row_count=1, batch_row_count=25))
    assert told([started, completed, other]) == [
        ("validation", "START"), ("validation", "COMPLETE"), ("validation", "OTHER"),
    ]  # fmt: skip
    assert len({one.run["runId"] for one in (started, completed, other)}) == 1
    [output] = completed.outputs
    assert (output["namespace"], output["name"]) == (
        "file",
        f"/data/{NAME}/observations",
    )
    assert output["facets"]["version"]["datasetVersion"] == "1"
    assert output["facets"]["schema"]["fields"][1] == {"name": "temp", "type": "double"}
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 24
    quality = completed.inputs[0]["inputFacets"]["dataQualityMetrics"]
    assert quality["rowCount"] == 25
    assert completed.inputs[0]["namespace"] == "kafka://127.0.0.1:9092"
    found = other.inputs[0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(a["assertion"], a["column"], a["success"]) for a in found] == [
        ("range", "temp", False)
    ]


def test_a_validation_that_leaves_no_row(life: Life) -> None:
    started, failed = reports(life, bench.rejected(2, 25, 25))
    assert told([started, failed]) == [("validation", "START"), ("validation", "FAIL")]
    assert "range of temp" in failed.run["facets"]["errorMessage"]["message"]


def test_a_training(life: Life, factory: Factory) -> None:
    """Its parent is the validation that led to it; the model has its version."""
    first = versioned(3)
    why = trigger(first.meta.id)
    [validation, _] = reports(life, first)
    [started] = reports(life, bench.started("one", why, ref(3, 2), 3))
    [done] = reports(life, bench.trained(factory, "one", why, ref(3, 2), 3))
    assert (started.eventType, done.eventType) == ("START", "COMPLETE")
    assert started.run["runId"] == done.run["runId"]
    parent = done.run["facets"]["parent"]
    assert parent["run"]["runId"] == validation.run["runId"]
    assert parent["job"] == {"namespace": "here", "name": f"{NAME}.validation"}
    assert [one["name"] for one in done.inputs] == [
        f"/data/{NAME}/observations", f"/data/{NAME}/labels",
    ]  # fmt: skip
    [model] = done.outputs
    assert model["name"] == f"{NAME}.model"
    assert model["facets"]["version"]["datasetVersion"] == "1"
    assert model["facets"]["driftloop_model"]["candidate"] == 40.0
    gate = done.run["facets"]["driftloop_gate"]
    assert gate["verdict"] == "passed"
    assert len(gate["checks"]) > 2


def test_why_it_was_trained_and_what_the_gate_said(
    life: Life, factory: Factory
) -> None:
    why = trigger("d", "drift-detected").model_copy(update={"reason": "concept_drift"})
    event = bench.trained(factory, "bad", why, ref(3), 3, worth=story.worse())
    [done] = reports(life, event)
    facets = done.run["facets"]
    assert facets["driftloop_trigger"]["driftCause"] == "concept_drift"
    assert facets["driftloop_gate"]["verdict"] == "failed"
    assert "parent" not in facets


def test_figures_that_are_no_numbers(life: Life, factory: Factory) -> None:
    """JSON has no NaN, and a number facet no text."""
    worth = story.evaluation(candidate=float("nan"))
    event = bench.trained(factory, "nan", trigger("x"), ref(3), 3)
    worth = worth.model_copy(update={"holdout_span": event.evaluation.holdout_span})
    [done] = reports(
        life, event.model_copy(update={"evaluation": worth}).with_meta(event.meta)
    )
    assert done.outputs[0]["facets"]["driftloop_model"]["candidate"] is None


def test_trainings_that_gave_no_model(life: Life) -> None:
    [failed] = reports(life, bench.failed("one", trigger("x"), 3))
    assert failed.eventType == "FAIL"
    assert failed.run["facets"]["errorMessage"]["message"] == "out of memory"
    cancelled = TrainingCancelled(
        pipeline=NAME,
        job_id="two",
        trigger=trigger("x"),
        cancelled_by="ann",
        reason="no",
    )
    [ended] = reports(life, at(cancelled, "cancelled", 3))
    assert ended.eventType == "ABORT"


def test_a_rollout(life: Life, factory: Factory) -> None:
    """One start, one end; its parent is the training; watching is not part of it."""
    life.take(bench.trained(factory, "one", trigger("x"), ref(3), 3))
    steps = [
        ("shadow", "started"), ("shadow", "passed"), ("full", "started"),
        ("full", "passed"), ("watching", "started"), ("watching", "failed"),
    ]  # fmt: skip
    found = [
        one
        for number, (name, verdict) in enumerate(steps)
        for one in reports(life, step(name, verdict, number))
    ]
    assert [one.eventType for one in found] == ["START", "OTHER", "RUNNING", "COMPLETE"]
    assert {one.run["facets"]["parent"]["job"]["name"] for one in found} == {
        f"{NAME}.training"
    }
    assert found[-1].outputs[0]["name"] == f"{NAME}.serving"
    [failed] = reports(life, step("canary 10 %", "failed", 0, "other"))
    assert failed.eventType == "FAIL"
    assert reports(life, step("waiting", "failed", 0, "third")) == []


def test_a_rollback(life: Life, factory: Factory) -> None:
    package = story.trained(factory, "one").package
    event = ModelRolledBack(
        pipeline=NAME, rollout_id="r", version=2, generation=4, reason="worse",
        restored=ServedModel(version=1, package=package),
    )  # fmt: skip
    started, done = reports(life, at(event, "back", 6))
    assert told([started, done]) == [("rollback", "START"), ("rollback", "COMPLETE")]
    assert done.outputs[0]["facets"]["version"]["datasetVersion"] == "1"


def test_rollouts_read_before_their_version(factory: Factory) -> None:
    """A registry built anew says of them what the log has, byte by byte."""
    said: list[list[str]] = []
    recorded = RecordedVerdicts()
    model = bench.trained(factory, "one", trigger("x"), ref(3), 3)
    for order in (
        (model, step("full", "started", 0)),
        (step("full", "started", 0), model),
    ):
        for deps in open_deps("full", recorded=recorded):
            life = Life(deps, factory)
            for event in order:
                life.take(event)
            for event in life.told:
                recorded.add(event)
            found = {one.meta.id: one.model_dump_json() for one in life.reports()}
            said.append(sorted(found.values()))
    assert said[0] == said[1]


def broken(*path: str, **fields: Any) -> Any:
    """Return what changes fields of a part; None takes one out."""

    def change(said: dict[str, Any]) -> None:
        for name in path:
            said = said[name]
        for name, value in fields.items():
            said[name] = value
            if value is None:
                del said[name]

    return change


RUN, JOB = ("run", "facets"), ("job", "facets", "jobType")
BREAKS = {
    "a field that is none": broken(*RUN, "nominalTime", x=1),
    "a field lacks": broken(*JOB, integration=None),
    "no run id": broken("run", runId="one"),
    "no time": broken(*RUN, "nominalTime", nominalStartTime="x"),
    "another schema": broken(*JOB, _schemaURL="x"),
    "no type": broken(*RUN, "driftloop_trigger", eventType=None),
    "not ours": broken(*RUN, "driftloop_trigger", _schemaURL=""),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_no_openlineage_is_found(life: Life, name: str) -> None:
    """Negative control: the check above bites."""
    [started] = reports(life, bench.started("one", trigger("x"), ref(3), 3))
    said = json.loads(started.model_dump_json())
    BREAKS[name](said)
    with pytest.raises(
        (TypeError, ValueError, AssertionError, jsonschema.ValidationError)
    ):
        check_json(said)


def test_facets_are_resolved_in_the_repository() -> None:
    """Each ``_schemaURL`` of ours names a file that says so itself."""
    from driftloop.contracts.generate import facet_path

    for facet in FACETS:
        schema = schema_of_facet(facet)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$id"] == facet.urn()
        assert facet_path(facet).name == f"{facet.short_name}.v{facet.major}.json"


def test_a_rollout_through_staging_ends_once(life: Life) -> None:
    """In production; or in staging, also while it is watched there."""
    for end, expected in (("passed", "OTHER"), ("failed", "FAIL")):
        told_there = [
            one
            for number, (name, verdict) in enumerate(
                [("full", "started"), ("full", "passed"), ("watching", end)]
            )
            for one in reports(life, in_staging(step(name, verdict, number, end)))
        ]
        kinds = [one.eventType for one in told_there]
        assert kinds == ["START", "OTHER", expected]
        facet = told_there[0].run["facets"]["driftloop_rollout"]
        assert facet["step"] == "staging: full"
    (done,) = reports(life, step("full", "passed", 9, "passed"))
    assert done.eventType == "COMPLETE"
    assert reports(life, in_staging(step("waiting", "failed", 9, "third"))) == []


def in_staging(event: Any) -> Any:
    return event.model_copy(update={"environment": "staging"})
