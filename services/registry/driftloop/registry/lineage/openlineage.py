"""Events of the chain as OpenLineage tells them: validation, training, rollout.

Each report follows from the event in hand (and, of rollouts, from the version's
registration), so that a replay gives the same bytes. A validation's run has the id of
the ``dataset-versioned`` that ends it, or would have; a training's that of its job; a
rollout's its own.

Source: OpenLineage 2-0-2 and its facets as of 1.54; Naming: "Dataset naming".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from driftloop.contracts.base import EVENT_NAMESPACE, Event, derived_id
from driftloop.contracts.events import (
    BatchIngested,
    BatchRejected,
    DatasetRef,
    DatasetVersioned,
    Evaluation,
    GateCheck,
    LineageReported,
    ModelRolledBack,
    ModelTrained,
    RolloutAdvanced,
    Span,
    TableRef,
    TrainingCancelled,
    TrainingFailed,
    TrainingStarted,
    Trigger,
)
from driftloop.contracts.openlineage import (
    PRODUCER,
    Facet,
    GateFacet,
    GateFacetCheck,
    ModelFacet,
    RolloutFacet,
    TriggerFacet,
)
from driftloop.contracts.pipeline import PRODUCTION

SPEC = "https://openlineage.io/spec"
SCHEMA_URL = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
VERSIONS = {
    "ParentRunFacet": "1-2-0",
    "ErrorMessageRunFacet": "1-0-1",
    "NominalTimeRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "SchemaDatasetFacet": "1-2-0",
    "DatasourceDatasetFacet": "1-0-1",
    "DatasetVersionDatasetFacet": "1-0-1",
    "DataQualityMetricsInputDatasetFacet": "1-0-3",
    "DataQualityAssertionsDatasetFacet": "1-1-0",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
}
"""Of the standard facets that are used."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Package:
    """What a rollout brings into service."""

    version: int
    job_id: str
    digest: str
    algorithm: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes reports.

    Attributes
    ----------
    namespace : of jobs and models; tells installations apart.
    broker : Kafka's address, part of the names of its topics.
    """

    namespace: str
    broker: str

    def versioned(self, event: DatasetVersioned) -> Iterator[LineageReported]:
        """Report a validation that gave a dataset version."""
        run_id = _validation_id(event)
        run = self._run(run_id, nominalTime=_nominal(event.span))
        job = self._job(event.pipeline, "validation")
        rows = event.added_count + event.quarantined_count
        quality = _facet(
            "DataQualityMetricsInputDatasetFacet", rowCount=rows, columnMetrics={}
        )
        source = self._topic(inputFacets={"dataQualityMetrics": quality})
        is_labels = event.kind == "labels" and event.dataset.labels is not None
        table = event.dataset.labels if is_labels else event.dataset.observations
        assert table is not None  # noqa: S101 - one of the two
        fields = [{"name": n, "type": kind} for n, kind in event.columns.items()]
        schema = {"schema": _facet("SchemaDatasetFacet", fields=fields)}
        statistics = _facet(
            "OutputStatisticsOutputDatasetFacet", rowCount=event.added_count
        )
        output = _table(table, **(schema if fields else {}))
        output["outputFacets"] = {"outputStatistics": statistics}
        yield self._report("START", event, run, job, [self._topic()])
        yield self._report("COMPLETE", event, run, job, [source], [output])

    def rejected(self, event: BatchRejected) -> Iterator[LineageReported]:
        """Report what a validation took out; with all rows, it failed."""
        assertions = [
            {
                "assertion": reason.check,
                "success": False,
                "column": reason.field,
                "severity": "error" if reason.severity == "reject" else "warn",
            }
            for reason in event.reasons
        ]
        facets = {
            "dataQualityAssertions": _facet(
                "DataQualityAssertionsDatasetFacet", assertions=assertions
            ),
            "dataQualityMetrics": _facet(
                "DataQualityMetricsInputDatasetFacet",
                rowCount=event.batch_row_count,
                columnMetrics={},
            ),
        }
        source = self._topic(inputFacets=facets)
        job = self._job(event.pipeline, "validation")
        nominal = {"nominalTime": _nominal(event.span)}
        if event.row_count < event.batch_row_count:
            run = self._run(_validation_id(event), **nominal)
            yield self._report("OTHER", event, run, job, [source])
            return
        names = ", ".join(
            dict.fromkeys(f"{r.check} of {r.field}" for r in event.reasons)
        )
        message = f"all {event.row_count:,} rows are quarantined: {names}"
        failed = self._run(
            _validation_id(event), errorMessage=_error(message), **nominal
        )
        started = self._run(_validation_id(event), **nominal)
        yield self._report("START", event, started, job, [self._topic()])
        yield self._report("FAIL", event, failed, job, [source])

    def training_started(self, event: TrainingStarted) -> Iterator[LineageReported]:
        run = self._training_run(event, event.train_span)
        job = self._job(event.pipeline, "training")
        yield self._report("START", event, run, job, _read(event.dataset))

    def trained(
        self, event: ModelTrained, version: int, gate: list[GateCheck]
    ) -> Iterator[LineageReported]:
        """Report a training's end, with the version and what the gate said."""
        failed = any(not c.passed and c.severity == "block" for c in gate)
        checks = [
            GateFacetCheck(
                name=check.name,
                passed=check.passed,
                severity=check.severity,
                detail=check.detail,
                value=check.value,
                limit=check.limit,
            )
            for check in gate
        ]
        verdict = GateFacet(verdict="failed" if failed else "passed", checks=checks)
        run = self._training_run(event, event.train_span, verdict)
        package = Package(
            version, event.job_id, event.package.digest, event.algorithm,
            event.evaluation,
        )  # fmt: skip
        model = self._model(event.pipeline, package, "model")
        job = self._job(event.pipeline, "training")
        yield self._report("COMPLETE", event, run, job, _read(event.dataset), [model])

    def training_failed(self, event: TrainingFailed) -> Iterator[LineageReported]:
        run = self._training_run(event, None)
        run["facets"]["errorMessage"] = _error(event.error)
        job = self._job(event.pipeline, "training")
        yield self._report("FAIL", event, run, job)

    def training_cancelled(self, event: TrainingCancelled) -> Iterator[LineageReported]:
        run = self._training_run(event, None)
        run["facets"]["errorMessage"] = _error(
            f"cancelled by {event.cancelled_by}: {event.reason}"
        )
        job = self._job(event.pipeline, "training")
        yield self._report("ABORT", event, run, job)

    def rollout(
        self, event: RolloutAdvanced, package: Package | None, *, is_new: bool
    ) -> Iterator[LineageReported]:
        """Report a rollout's start, steps and end; what comes after is another story.

        Parameters
        ----------
        package : of the version; None: its registration is not known.
        is_new : nothing of this rollout was reported before.
        """
        kind = _rollout_type(event, is_new=is_new)
        if kind is None:
            return
        where = "" if event.environment == PRODUCTION else f"{event.environment}: "
        facet = RolloutFacet(
            step=where + event.step, verdict=event.verdict, detail=event.detail
        )
        facets: Json = {facet.key(): facet.as_json()}
        if package is not None:
            facets["parent"] = self._parent(
                package.job_id, f"{event.pipeline}.training"
            )
        if kind == "FAIL":
            facets["errorMessage"] = _error(event.detail)
        run = self._run(event.rollout_id, **facets)
        job = self._job(event.pipeline, "rollout")
        inputs, outputs = [], []
        if package is not None:
            inputs = [self._model(event.pipeline, package, "model")]
            outputs = [self._model(event.pipeline, package, "serving")]
        yield self._report(
            kind, event, run, job, inputs, outputs if kind == "COMPLETE" else []
        )

    def rolled_back(self, event: ModelRolledBack) -> Iterator[LineageReported]:
        """Report a rollback, a run of its own: the rollout may have ended long ago."""
        parent = self._parent(event.rollout_id, f"{event.pipeline}.rollout")
        run = self._run(event.meta.id, parent=parent)
        job = self._job(event.pipeline, "rollback")
        taken = self._named(event.pipeline, "model", event.version)
        restored = (
            [self._named(event.pipeline, "serving", event.restored.version)]
            if event.restored
            else []
        )
        ended = self._run(
            event.meta.id, parent=parent, errorMessage=_error(event.reason)
        )
        yield self._report("START", event, run, job, [taken])
        yield self._report("COMPLETE", event, ended, job, [taken], restored)

    # ── parts ───────────────────────────────────────────────────────────────

    def _report(
        self,
        kind: Any,
        event: Event,
        run: Json,
        job: Json,
        inputs: list[Json] | None = None,
        outputs: list[Json] | None = None,
    ) -> LineageReported:
        return LineageReported(
            pipeline=event.pipeline,
            eventType=kind,
            eventTime=event.meta.time,
            producer=PRODUCER,
            schemaURL=SCHEMA_URL,
            run=run,
            job=job,
            inputs=inputs or [],
            outputs=outputs or [],
        )

    def _run(self, run_id: str, **facets: Json) -> Json:
        return {"runId": _uuid(run_id), "facets": facets}

    def _training_run(
        self,
        event: TrainingStarted | TrainingFailed | TrainingCancelled | ModelTrained,
        span: Span | None,
        *more: Facet,
    ) -> Json:
        trigger = _trigger(event.trigger)
        facets = {facet.key(): facet.as_json() for facet in (trigger, *more)}
        if "dataset-versioned" in event.trigger.event_type:
            facets["parent"] = self._parent(
                event.trigger.event_id, f"{event.pipeline}.validation"
            )
        if span is not None:
            facets["nominalTime"] = _nominal(span)
        return self._run(event.job_id, **facets)

    def _job(self, pipeline: str, what: str) -> Json:
        kind = _facet(
            "JobTypeJobFacet",
            processingType="BATCH",
            integration="DRIFTLOOP",
            jobType=what.upper(),
        )
        name = f"{pipeline}.{what}"
        return {"namespace": self.namespace, "name": name, "facets": {"jobType": kind}}

    def _parent(self, run_id: str, job: str) -> Json:
        return _facet(
            "ParentRunFacet",
            run={"runId": _uuid(run_id)},
            job={"namespace": self.namespace, "name": job},
        )

    def _topic(self, **more: Json) -> Json:
        namespace = f"kafka://{self.broker.split(',')[0]}"
        return {"namespace": namespace, "name": BatchIngested.topic(), **more}

    def _named(self, pipeline: str, what: str, version: int) -> Json:
        named = _facet("DatasetVersionDatasetFacet", datasetVersion=str(version))
        return {
            "namespace": self.namespace,
            "name": f"{pipeline}.{what}",
            "facets": {"version": named},
        }

    def _model(self, pipeline: str, package: Package, what: str) -> Json:
        worth = package.evaluation
        facet = ModelFacet(
            pipeline=pipeline,
            version=package.version,
            packageDigest=package.digest,
            algorithm=package.algorithm,
            metric=worth.metric,
            candidate=worth.candidate,
            champion=worth.champion,
            baseline=worth.baseline,
            holdoutRowCount=worth.holdout_row_count,
        )
        found = self._named(pipeline, what, package.version)
        found["facets"][facet.key()] = facet.as_json()
        return found


def _rollout_type(event: RolloutAdvanced, *, is_new: bool) -> str | None:
    """Return the event type of a step; None: it is none of the run's.

    The run ends when the step ``full`` has passed in production; ``watching`` comes
    after it. A version that never got its turn (``waiting``) has no run.
    """
    is_productions = event.environment == PRODUCTION
    if event.step == "waiting" or (event.step == "watching" and is_productions):
        return None
    if event.verdict == "failed":
        return "FAIL"
    if event.verdict == "passed":
        return "COMPLETE" if event.step == "full" and is_productions else "OTHER"
    return "START" if is_new else "RUNNING"


def _validation_id(event: DatasetVersioned | BatchRejected) -> str:
    cause = event.meta.causation_id or event.meta.id
    return derived_id(cause, DatasetVersioned.topic(), 0)


def _uuid(name: str) -> str:
    """Return an id as OpenLineage wants it; people's events may have other ones."""
    try:
        return str(UUID(name))
    except ValueError:
        return str(uuid5(EVENT_NAMESPACE, name))


def _facet(name: str, /, **content: Any) -> Json:
    url = f"{SPEC}/facets/{VERSIONS[name]}/{name}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": url, **content}


def _error(message: str) -> Json:
    return _facet("ErrorMessageRunFacet", message=message, programmingLanguage="Python")


def _nominal(span: Span) -> Json:
    return _facet(
        "NominalTimeRunFacet",
        nominalStartTime=_time(span.start),
        nominalEndTime=_time(span.end),
    )


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _trigger(trigger: Trigger) -> TriggerFacet:
    is_drift = "drift-detected" in trigger.event_type
    return TriggerFacet(
        eventId=trigger.event_id,
        eventType=trigger.event_type,
        reason=trigger.reason,
        driftCause=trigger.reason if is_drift else None,
        since=_time(trigger.since) if trigger.since else None,
    )


def _read(dataset: DatasetRef) -> list[Json]:
    return [_table(t) for t in (dataset.observations, dataset.labels) if t is not None]


def _table(ref: TableRef, **facets: Json) -> Json:
    """Return a table as a dataset, named by where it is."""
    place = urlsplit(ref.uri)
    is_file = place.scheme in ("", "file")
    namespace = "file" if is_file else f"{place.scheme}://{place.netloc}"
    name = place.path.rstrip("/") if is_file else place.path.strip("/")
    return {
        "namespace": namespace,
        "name": name,
        "facets": {
            "version": _facet(
                "DatasetVersionDatasetFacet", datasetVersion=str(ref.version)
            ),
            "dataSource": _facet(
                "DatasourceDatasetFacet",
                name=namespace,
                uri=ref.uri if not is_file else f"file://{name}",
            ),
            **facets,
        },
    }
